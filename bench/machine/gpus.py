"""What the vendor states that a GPU can do: the table gpus.yaml, by NVML's name or by a short one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from bench import yaml
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Ceiling

TABLE = Path(__file__).with_name("gpus.yaml")
_WHOLE = 0.8  # of the board's memory: less of it is a slice, or another board of the same name


@dataclass(frozen=True)
class Board:
    """One entry: `quote` is the source's own text, `flop_per_s` dense figures by dtype."""

    names: tuple[str, ...]
    capability: str
    memory_gb: float
    bandwidth_per_s: float
    flop_per_s: Mapping[str, float]
    source: str
    quote: str

    @property
    def ceiling(self) -> Ceiling:
        """As records hold it: one bandwidth for any size."""
        return Ceiling(self.source, {"0": self.bandwidth_per_s}, self.flop_per_s, self.names[0])


def named(name: str) -> Board:
    """The entry of a short name, e.g. `l4` or `h100-sxm`; UserError with the nearest for an unknown one."""
    board = boards().get(name.lower())
    if board is None:
        raise UserError(plugins.unknown("GPU", name, sorted(boards())))
    return board


def peak(gpu_name: str, memory_bytes: int) -> Ceiling | None:
    """By the name NVML gives; None for a GPU that is not in the table, and for a slice of one (MIG)."""
    for board in boards().values():
        if gpu_name.casefold() in (name.casefold() for name in board.names):
            return board.ceiling if memory_bytes >= _WHOLE * 1e9 * board.memory_gb else None
    return None


@cache
def boards() -> dict[str, Board]:
    """Every entry by its short name."""
    return TypeAdapter(dict[str, Board]).validate_python(yaml.load_file(TABLE)["gpus"])
