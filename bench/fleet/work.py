"""What travels between the driver and a device: the plan of a kind of device, and what became of one thing to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell
from bench.fleet.place import Key
from bench.fleet.transfer import CacheFolder
from bench.progress.snapshot import RoundLabel


@dataclass(frozen=True)
class PlannedBuild:
    """An artifact or a task's input: `folders` of the cache are there once it is built.

    `blame`: how the reason of a round that needed it begins, should what it needs fail.
    """

    key: Key
    title: str
    folders: tuple[CacheFolder, ...]
    needs: tuple[Key, ...] = ()
    blame: str = ""


@dataclass(frozen=True)
class RoundToRun:
    """A round by its `number` in the plan. `skeleton`: its record before it has run; `cell`: as the plan has it."""

    number: int
    skeleton: Result
    cell: Cell
    label: RoundLabel
    is_timed: bool
    needs: tuple[Key, ...]


@dataclass(frozen=True)
class KindPlan:
    """The plan of a suite on one kind of device, as a node that has one made it."""

    hardware: Hardware
    rounds: tuple[RoundToRun, ...]
    builds: tuple[PlannedBuild, ...]


@dataclass(frozen=True)
class Ended:
    """One thing to do is over. `files`: records and their attachments, by their path below the results.

    `reason`: why a build failed. `differs`: why this device must not do it at all. `folders`: of the cache, here now.
    `logs`: what failed processes printed, by name.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ""
    differs: str = ""
    folders: tuple[CacheFolder, ...] = ()
    logs: Mapping[str, bytes] = field(default_factory=dict)
