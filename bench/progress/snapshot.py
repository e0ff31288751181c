"""What a person may be told of a run at one moment, and the plain lines of it that a pipe gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.contract.record import Status
from bench.progress.eta import Alike, clock, took


@dataclass(frozen=True)
class Round:
    """A round of a cell; `number` counts from 1. `alike`: what its time is like (pace.py)."""

    title: str
    device: str
    number: int
    of: int
    alike: Alike = ()


@dataclass(frozen=True)
class Finished:
    """A round that is over; `place` is how many were by then, `said` its main figure or its reason."""

    cell: str
    number: int
    place: int
    status: Status
    seconds: float
    said: str = ""


@dataclass(frozen=True)
class Scene:
    """All of it. `left_s` and `expected_s` are None while they are not known, `left_s` is from now on.

    `recent` are rounds that went well; what failed was said at once.
    """

    spent_s: float
    doing: str = ""
    doing_s: float = 0.0
    round: Round | None = None
    round_s: float = 0.0
    expected_s: float | None = None
    total: int = 0
    kept: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    left_s: float | None = None
    recent: tuple[Finished, ...] = ()

    @property
    def done(self) -> int:
        return sum(self.counts.values())


def finished(one: Finished, total: int, spent_s: float) -> str:
    """As "[ 12/65] 1:23 demo/nf4/hf/offline-b1-p128-n64 round 1 ok 4.2 s, 63 tok/s"."""
    head = f"{_place(one.place, total)} {clock(spent_s)} {one.cell} round {one.number} {one.status}"
    if one.status == "unsupported":
        return f"{head}: {one.said}"
    stop = ": " if one.status == "failed" else ", "
    return f"{head} {took(one.seconds)}{stop if one.said else ''}{one.said}"


def now(scene: Scene) -> str:
    """What is being done, as "[ 13/65] 2:05 demo/… round 2 of 3: measuring, 0:42 of about 1:05"."""
    if scene.round is None:
        return f"{clock(scene.spent_s)} {scene.doing}"
    one = scene.round
    head = f"{_place(scene.done + 1, scene.total)} {clock(scene.spent_s)} {one.title} {which(one)}"
    return f"{head}: {', '.join(filter(None, (scene.doing, of_expected(scene))))}"


def which(one: Round) -> str:
    return f"round {one.number} of {one.of}"


def of_expected(scene: Scene) -> str:
    """The time of the round in flight beside what it is expected to take."""
    expected = "" if scene.expected_s is None else f" of about {clock(scene.expected_s)}"
    return f"{clock(scene.round_s)}{expected}"


def printable(text: str) -> str:
    """Text from outside without what moves a cursor or rings a bell."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _place(place: int, total: int) -> str:
    return f"[{place:>{len(str(total))}}/{total}]"
