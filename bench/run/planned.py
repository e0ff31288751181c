"""The parts of a plan: artifacts to build, inputs of tasks, and rounds to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench import formats
from bench.contract import hooks
from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Suite, Task
from bench.models.resolve import Resolved
from bench.run.memory_fit import Footprint

Mode = Literal["offline", "online", "score", "served"]  # the last: a task through the engine's server


@dataclass(frozen=True)
class PlannedArtifact:
    """One recipe on one device: its settled steps, its artifact's digest, and why it cannot be made.

    `footprint`: the parameters and bits the artifact will have, as far as that is known. `other_tokenizer`,
    `other_model`, `linears`, `as_steps`: of a checkpoint, as in `bench.models.comparison`.
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
    footprint: Footprint | None = None
    other_tokenizer: str = ""
    other_model: str = ""
    linears: Mapping[str, tuple[int, int]] | None = None
    as_steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The baseline's predictions that a task compares with: the baseline's artifact, and what runs it.

    `env` is the engine's environment. Where no engine of the suite can run it, `reason` says why and `digest` is empty.
    """

    task: Task
    artifact: PlannedArtifact
    engine: EngineSpec
    env: str
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class Requests:
    """The requests of a task whose library builds them, one set per model; `context`: the model's, in tokens."""

    task: Task
    task_module: hooks.Task
    resolved: Resolved
    context: int
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class SkippedPair:
    """A recipe and an engine that make no cell: the engine does not load the format, another one does."""

    engine: str
    format: str
    recipe: str


@dataclass(frozen=True)
class PlannedRound:
    """One round of one cell. `order` is the cell's position in the suite; `reason` says why it cannot run.

    `digest` covers everything the numbers depend on. `engine` is the engine's plugin module, `env` the name
    of the environment it runs in, `task` the task's module, `task_input` what the task needs beforehand, `draft` the
    model that drafts for this one.
    """

    order: int
    cell: Cell
    round: int
    artifact: PlannedArtifact
    digest: str
    reason: str
    mode: Mode
    engine: hooks.Engine
    env: str
    task: hooks.Task | None = None
    task_input: Reference | Requests | None = None
    draft: PlannedArtifact | None = None

    @property
    def is_timed(self) -> bool:
        """A load on an engine that computes here: those of the core environment pretend to, or ask a server."""
        return self.mode in ("offline", "online") and self.env != "core"


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
    def preparation(self) -> str:
        """What a run does with the files of models before all else, a sentence a line; "" for nothing."""
        sentences = [self.resolved.preparation]
        for artifact in self.artifacts:
            name, checkpoint = artifact.recipe.name, artifact.recipe.checkpoint
            if checkpoint and artifact.resolved.folder is None:
                its_format = artifact.resolved.format
                what = "plain weights" if formats.holds_floats(its_format) else its_format
                sentences.append(
                    f"recipe {name}: {checkpoint} is not here yet: a run fetches it, and what runs it is known then; "
                    f"until then it is planned as {what}"
                )
            elif checkpoint:
                sentences.append(artifact.resolved.preparation)
        return "\n".join(dict.fromkeys(filter(None, sentences)))

    @property
    def artifacts(self) -> tuple[PlannedArtifact, ...]:
        """The artifacts the items need, those of references included, in the suite's order, each once."""
        needed: dict[tuple[str, str], PlannedArtifact] = {}
        for item in sorted(self.items, key=lambda i: i.order):
            baseline = [item.task_input.artifact] if isinstance(item.task_input, Reference) else []
            drafts = [item.draft] if item.draft and not item.reason else []
            needed |= {(a.recipe.name, a.hardware.device): a for a in (*baseline, *drafts, item.artifact)}
        return tuple(needed.values())
