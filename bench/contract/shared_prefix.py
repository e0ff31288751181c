"""What the prompts of a load share."""

from __future__ import annotations

from dataclasses import dataclass

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error


@dataclass(frozen=True)
class SharedPrefix:
    """`groups` prefixes of `tokens` each; every one begins the prompts of `turns` requests, one after the other."""

    tokens: int = 512
    groups: int = 8
    turns: int = 4
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count < 1:
                raise ValueError(f"{name} of a shared prefix starts at 1, got {count}")
