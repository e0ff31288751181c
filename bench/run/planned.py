"""What a plan is made of: artifacts to build, what tasks need of the baseline, and rounds to run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Suite, Task
from bench.models.resolve import Resolved
from bench.run import memory_fit


@dataclass(frozen=True)
class PlannedArtifact:
    """One recipe on one device: its settled steps, its artifact's digest, and why it cannot be made.

    `held`: what the artifact will hold, as far as that is known.
    """

    model: Model
    resolved: Resolved
    recipe: Recipe
    hardware: Hardware
    steps: tuple[Step, ...]
    digest: str
    format: str
    context: int
    reason: str
    held: memory_fit.Held | None = None


@dataclass(frozen=True)
class Reference:
    """The baseline's side of a task: its artifact, and the engine that runs it.

    `reason` says why no engine of the suite can; there is then no `digest`.
    """

    task: Task
    made: PlannedArtifact
    engine: EngineSpec
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class Questions:
    """A task's questions to a model's derivatives; `context` is the model's, in tokens."""

    task: Task
    resolved: Resolved
    context: int
    digest: str


@dataclass(frozen=True)
class SkippedPair:
    """A recipe and an engine that make no cell: the engine does not load the format, another one does."""

    engine: str
    format: str
    recipe: str


@dataclass(frozen=True)
class PlannedRound:
    """One round of one cell. `order` is the cell's place in the suite; `reason` says why it cannot run.

    `digest` covers everything the numbers depend on. `reference`: what the task needs of the baseline;
    `questions`: what it asks, where that is made beforehand.
    """

    order: int
    cell: Cell
    round: int
    made: PlannedArtifact
    digest: str
    reason: str
    reference: Reference | None = None
    questions: Questions | None = None


@dataclass(frozen=True)
class Plan:
    """`items` are in the order in which they run: rounds one after another, cells shuffled within each."""

    suite: Suite
    resolved: Resolved
    items: tuple[PlannedRound, ...]
    unpaired: tuple[SkippedPair, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, in the suite's order."""
        return tuple(i.cell for i in sorted(self.items, key=lambda i: i.order) if i.round == 0)

    @property
    def made(self) -> tuple[PlannedArtifact, ...]:
        """The artifacts the items need, in the suite's order, each once."""
        ordered = sorted(self.items, key=lambda i: i.order)
        needed = [made for i in ordered for made in ([i.reference.made] if i.reference else []) + [i.made]]
        return tuple({(made.recipe.name, made.hardware.device): made for made in needed}.values())
