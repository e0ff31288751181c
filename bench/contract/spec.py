"""What a suite file has, as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.contract.wire import OMITTED_AT_DEFAULT
from bench.contract.workload import Workload

Scalar = str | int | float | bool | None
Options = Mapping[str, Scalar]

_CLOSED = {"extra": "forbid"}  # read by pydantic in the parent; an unknown key is an error
_MOST_PRICE, _LONGEST_WHAT = 1e9, 200


@dataclass(frozen=True)
class Model:
    """Weights and tokenizer: a Hub id at a revision, a local folder, or `shape:NAME` with dummy weights."""

    source: str
    revision: str | None = None
    name: str = ""
    __pydantic_config__ = _CLOSED

    @property
    def label(self) -> str:
        """The name in tables: `name`, else the last part of the path or id."""
        return self.name or self.source.removeprefix("shape:").rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_dummy(self) -> bool:
        """Whether its weights are drawn: right in size, and without meaning."""
        return self.source.startswith("shape:")

    @property
    def display_name(self) -> str:
        """The label, with a note where weights are dummies."""
        return f"{self.label} (dummy weights)" if self.is_dummy else self.label


@dataclass(frozen=True)
class Step:
    """One compression step: a file of quantize/methods with its options."""

    method: str
    options: Options = field(default_factory=dict)
    __pydantic_config__ = _CLOSED


@dataclass(frozen=True)
class Recipe:
    """How a model is compressed; without steps the model is left as it is.

    `checkpoint`: what somebody else made, in place of steps: named as a model is, at a `revision` of the Hub.
    `replicates`: of a suite's file alone, how often it is made, each time with another seed. A suite has those as
    recipes of their own, which are `replicate_of` this one.
    """

    name: str
    steps: tuple[Step, ...] = ()
    checkpoint: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    revision: str | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    replicates: int = field(default=1, metadata=OMITTED_AT_DEFAULT)
    replicate_of: str = field(default="", metadata=OMITTED_AT_DEFAULT)
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
class HourPrice:
    """What an hour of a machine costs: `amount` in `currency` (ISO 4217, three letters), and `what` it pays for."""

    amount: float
    currency: str
    what: str
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        if not 0 < self.amount <= _MOST_PRICE:
            raise ValueError(
                f"amount must be above 0 and at most {_MOST_PRICE:.0e}, got {self.amount:g}; for no price leave it out"
            )
        _check_price(self.currency, self.what)

    @property
    def text(self) -> str:
        return f"{self.amount:.10g} {self.currency} an hour for {self.what}"


@dataclass(frozen=True)
class ApiPrice:
    """What a million `input` and a million `output` tokens of an API cost in `currency`, and `what` API that is."""

    input: float
    output: float
    currency: str
    what: str
    __pydantic_config__ = _CLOSED

    def __post_init__(self) -> None:
        for name, value in (("input", self.input), ("output", self.output)):
            if not 0 <= value <= _MOST_PRICE:
                raise ValueError(f"{name} must be within 0 and {_MOST_PRICE:.0e}, got {value:g}")
        if self.input == self.output == 0:
            raise ValueError("input and output are both 0: an API for nothing breaks even with no machine")
        _check_price(self.currency, self.what)

    @property
    def text(self) -> str:
        rates = f"{self.input:.10g} and {self.output:.10g} {self.currency}"
        return f"{rates} a million input and output tokens of {self.what}"


def _check_price(currency: str, what: str) -> None:
    if not re.fullmatch("[A-Z]{3}", currency):
        raise ValueError(f"currency must be three capital letters, as USD or EUR, got {currency[:_LONGEST_WHAT]!r}")
    if not what.strip():
        raise ValueError("what must say what the price is for, as 'one H100 on demand'")
    if len(what) > _LONGEST_WHAT or "\n" in what:
        raise ValueError(f"what must be one line of at most {_LONGEST_WHAT} characters")


@dataclass(frozen=True)
class Suite:
    """One YAML file: a model, recipes, engines, workloads, tasks, devices and rounds.

    Workloads run `rounds` times and tasks `task_rounds`: a score does not depend on the clock, and more rounds of it
    show only that it repeats. `timeout_s` bounds one round; `memory_limit_gib` bounds a worker's process tree (0: the
    machine's own memory); `settle_s` is how long a run waits for an idle device before its first round; an offline
    round goes on for `energy_window_s` after its measured batches where the device counts its energy (0: no energy is
    measured). None of these is part of a digest: they change no figure that is there without them. `data`: a folder
    with the data sets that are downloaded else; recipes and tasks name its files, which count by their contents.
    `price_per_hour` of the machine and `api_price`, which that is compared with, are shown in tables alone.
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
    energy_window_s: float = 10.0
    data: str = ""
    price_per_hour: HourPrice | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    api_price: ApiPrice | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    __pydantic_config__ = _CLOSED

    @property
    def memory_limit_bytes(self) -> int:
        return int(self.memory_limit_gib * 2**30)


@dataclass(frozen=True)
class Cell:
    """Model x recipe x engine x (workload or task, never both) on a device."""

    model: Model
    recipe: Recipe
    engine: EngineSpec
    device: str
    workload: Workload | None = None
    task: Task | None = None
    __pydantic_config__ = _CLOSED

    @property
    def measurement(self) -> str:
        """The workload's or the task's name."""
        if self.workload is not None:
            return self.workload.title
        return self.task.title if self.task is not None else ""

    @property
    def title(self) -> str:
        """model/recipe/engine/workload-or-task."""
        return self._titled(self.recipe.name)

    @property
    def selectors(self) -> tuple[str, ...]:
        """What `--only` matches: title, recipe and measurement; of a replicate its recipe's own title and name too."""
        recipes = tuple(filter(None, (self.recipe.name, self.recipe.replicate_of)))
        return (*map(self._titled, recipes), *recipes, self.measurement)

    def _titled(self, recipe: str) -> str:
        return f"{self.model.label}/{recipe}/{self.engine.title}/{self.measurement}"
