"""What one tool's file says of one cell, and the reading of values that may be of any type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from bench.contract.spec import Task
from bench.contract.workload import Workload
from bench.measure.latency import TAILS

T = TypeVar("T")
W = TypeVar("W", bound=Workload)
Number = Annotated[float, Field(ge=0, lt=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=10**15)]
Text = Annotated[str, Field(max_length=1000)]


class MalformedError(Exception):
    """A file that is not as its tool writes it; the text says where."""


@dataclass(frozen=True)
class Measurement:
    """One load or task by another tool. `metrics` by this suite's names, in seconds; `notes`: where they differ.

    `engine`: the plugin that the tool measured, "" where the file does not say. `checkpoint`: the file that it loaded.
    """

    model: str
    workload: Workload | None = None
    task: Task | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    engine: str = ""
    recipe: str = ""
    checkpoint: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    duration_s: float = 0.0
    cpu: str = ""
    gpu: str = ""
    system: str = ""


def validated(kind: type[T], data: Any, where: str = "") -> T:
    """The value as a dataclass; what the dataclass has no field for is left out. MalformedError for another type."""
    try:
        value: T = TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (*([where] if where else []), *first["loc"])))
        raise MalformedError(f"{place}: {first['msg']}") from None
    return value


def load(kind: type[W], **fields: Any) -> W:
    """A load of that kind; MalformedError for one that this suite has not, as answers of one token."""
    try:
        return kind(**fields)
    except ValueError as error:
        raise MalformedError(f"its load is none of this suite's ({error})") from None


def percentiles(
    name: str, values: Mapping[int, Any], observations: int, scale: float = 1e-3
) -> tuple[dict[str, float], list[str]]:
    """The tails of a latency, by rank, and a note for each that is but an extreme value of so few observations."""
    metrics, notes = {}, []
    for rank, value in values.items():
        if observations >= TAILS[rank]:
            metrics[f"{name}_p{rank}_s"] = validated(Number, value, f"p{rank} of {name}") * scale
        else:
            notes.append(f"p{rank} of fewer than {TAILS[rank]} requests is left out")
    return metrics, notes


def started(seconds: float) -> str:
    """ISO 8601 of seconds since 1970; "" of 0, as where a file does not say."""
    return datetime.fromtimestamp(min(seconds, 4e9), UTC).isoformat(timespec="seconds") if seconds else ""


def public_name(name: str) -> str:
    """A model's name without the folders of the machine that it lay on."""
    return PurePath(name).name if PurePath(name).is_absolute() or name.startswith("~") else name
