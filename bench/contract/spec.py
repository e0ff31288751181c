"""What a user asks for: the words of a suite file, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = str | int | float | bool | None
Options = Mapping[str, Scalar]

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error


@dataclass(frozen=True)
class Model:
    """Weights and tokenizer: a Hub id at a revision, or a local folder."""

    source: str
    revision: str | None = None
    name: str = ""
    __pydantic_config__ = _CLOSED

    @property
    def label(self) -> str:
        """The name a table shows: the one given, else the last part of the path or id."""
        return self.name or self.source.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Step:
    """One compression step: a file of quantize/methods with its options."""

    method: str
    options: Options = field(default_factory=dict)
    __pydantic_config__ = _CLOSED


@dataclass(frozen=True)
class Recipe:
    """How a model is compressed. No steps means: the model exactly as it was found."""

    name: str
    steps: tuple[Step, ...] = ()
    __pydantic_config__ = _CLOSED


@dataclass(frozen=True)
class EngineSpec:
    """A file of bench/engines with its options; `label` tells two settings of one engine apart."""

    name: str
    options: Options = field(default_factory=dict)
    label: str = ""
    __pydantic_config__ = _CLOSED

    @property
    def title(self) -> str:
        return self.label or self.name


# The fields of a Workload that mean something to each kind, beside those that do to all.
LOAD_FIELDS: Mapping[str, tuple[str, ...]] = {
    "offline": ("batch", "repeats"),
    "closed": ("concurrency", "requests"),
    "open": ("rate_per_s", "arrivals", "burstiness", "requests"),
}


@dataclass(frozen=True)
class Workload:
    """A load of prompts of `prompt_tokens`, `new_tokens` made from each.

    `offline`: static batches of `batch` in process; `repeats` of them are measured in a round, after warm-up.
    `closed`: requests to the engine's server, `concurrency` in flight, each followed by the next. `open`:
    requests due at `rate_per_s` on average, whatever is in flight (`arrivals`; `burstiness` is gamma's shape,
    1 being Poisson's). Of both, `requests` are measured in a round, after warm-up.
    """

    batch: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64
    repeats: int = 5
    kind: Literal["offline", "closed", "open"] = "offline"
    name: str = ""
    concurrency: int = 1
    rate_per_s: float = 0.0
    arrivals: Literal["poisson", "constant", "gamma"] = "poisson"
    burstiness: float = 1.0
    requests: int = 100
    __pydantic_config__ = _CLOSED

    @property
    def online(self) -> bool:
        """Whether it goes to a server over HTTP."""
        return self.kind != "offline"

    @property
    def title(self) -> str:
        """As offline-b1-p128-n64, closed-c4-p128-n64, open-poisson2.5-p128-n64."""
        bursts = f"-b{self.burstiness:g}" if self.arrivals == "gamma" else ""
        how = {
            "offline": f"b{self.batch}",
            "closed": f"c{self.concurrency}",
            "open": f"{self.arrivals}{self.rate_per_s:g}{bursts}",
        }[self.kind]
        return self.name or f"{self.kind}-{how}-p{self.prompt_tokens}-n{self.new_tokens}"


@dataclass(frozen=True)
class Task:
    """A quality measurement: a file of eval/tasks with its options."""

    kind: str
    options: Options = field(default_factory=dict)
    name: str = ""
    __pydantic_config__ = _CLOSED

    @property
    def title(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True)
class Suite:
    """One YAML file: a model, recipes, engines, workloads, tasks, devices and rounds.

    Workloads run `rounds` times and tasks `task_rounds`: a score does not depend on the clock, and more
    rounds of it show only that it repeats.
    `timeout_s` bounds one round; `memory_limit_gib` bounds a worker's process tree (0: the machine's own
    memory); `settle_s` is how long a run waits for an idle device before its first round.
    """

    name: str
    model: Model
    recipes: tuple[Recipe, ...]
    engines: tuple[EngineSpec, ...]
    workloads: tuple[Workload, ...] = ()
    tasks: tuple[Task, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    rounds: int = 3
    task_rounds: int = 1
    seed: int = 0
    timeout_s: float = 1800.0
    memory_limit_gib: float = 0.0
    settle_s: float = 20.0
    __pydantic_config__ = _CLOSED


@dataclass(frozen=True)
class Cell:
    """Model x recipe x engine x (workload or task) on a device.

    Exactly one of `workload` and `task` is set.
    """

    model: Model
    recipe: Recipe
    engine: EngineSpec
    device: str
    workload: Workload | None = None
    task: Task | None = None
    __pydantic_config__ = _CLOSED

    @property
    def what(self) -> str:
        """The workload's or the task's name."""
        if self.workload is not None:
            return self.workload.title
        return self.task.title if self.task is not None else ""

    @property
    def title(self) -> str:
        """What `--only` matches: model/recipe/engine/workload-or-task."""
        return f"{self.model.label}/{self.recipe.name}/{self.engine.title}/{self.what}"
