"""Limits of latency that a load states."""

from __future__ import annotations

from dataclasses import asdict, dataclass

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error


@dataclass(frozen=True)
class Slo:
    """Seconds at most for a request to count as good (0: no limit), as the latency metrics define them."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2el_s: float = 0.0
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        if min(self.ttft_s, self.tpot_s, self.e2el_s) < 0:
            raise ValueError("limits cannot be below zero; 0 is no limit")

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: float(limit) for name, limit in asdict(self).items() if limit > 0}
