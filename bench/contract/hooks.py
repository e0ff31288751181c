"""What a plugin has to offer, and what it may: one table a role (of formats, in `bench.contract.format`).

A plugin is a module, or a package, of the folder of its role; the file's name is its name in a suite. Its
hooks are its public functions and constants (in capitals), and each class below is the table of a role's
hooks, `self` being the module:

- a constant without a value, or an abstract method, is required;
- a constant with a value, or a method with a body, is optional: the value or the body holds where a plugin
  leaves it out, and `plugins.load` adds it;
- a method marked `@required_if(condition)` is required where the condition holds, and refused elsewhere.

`plugins.load` refuses whatever else is public, and parameters of other names: helpers begin with an underscore, or live
in another module. `Options` is a frozen standard-library dataclass whose fields are the options a user may give, typed
and with defaults; the parent validates against it, the worker builds one from the job. Nothing at the top level of a
plugin may import its engine or library: the core environment loads every plugin to ask what it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from bench.contract.columns import Column, Part
from bench.contract.record import Artifact, Hardware, Source
from bench.contract.server import Server
from bench.contract.session import (
    ChoiceScore,
    DecodeStep,
    Ended,
    GenerateUntilSession,
    LogitBlock,
    LoglikelihoodSession,
    Prompt,
    Question,
    Session,
)
from bench.contract.spec import Cell, Step

__all__ = [
    "ANY",
    "CONDITIONS",
    "ChoiceScore",
    "DecodeStep",
    "Default",
    "Ended",
    "Engine",
    "GenerateUntilSession",
    "LogitBlock",
    "LoglikelihoodSession",
    "Method",
    "Prompt",
    "Question",
    "ScoredReplies",
    "Server",
    "Session",
    "Task",
    "plugin_has",
    "required_if",
]

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
CONDITIONS: dict[str, Callable[[Any], bool]] = {}  # by the name of a hook marked `@required_if`


def required_if(condition: Callable[[Any], bool]) -> Callable[[_Hook], _Hook]:
    """Mark a hook that a plugin has exactly where `condition(plugin)` holds."""

    def mark(hook: _Hook) -> _Hook:
        CONDITIONS[hook.__qualname__] = condition
        return hook

    return mark


class Engine(Protocol):
    """What runs an artifact.

    ENV: the environment it runs in, a file of configs/envs. VERSION is part of its records' digests. LOADS: artifact
    formats. MODES: of "offline", "online", "score". DEPTH_MODES: those in which its KV cache can be filled before a
    clock starts. PATHS: options that name files or folders. OPTIONS_SINCE: options younger than records, which at their
    defaults are no part of a digest. ENV_BY_FORMAT: the environments of formats that need a package ENV lacks.
    WITHOUT_WINDOW: model types whose sliding window it leaves out: each token sees all before it. LAYER_FORMATS: of
    LOADS those whose sessions give single layers (LayerSession).
    """

    ENV: str
    VERSION: int
    LOADS: frozenset[str]
    MODES: frozenset[str]
    Options: type[Any]
    DEPTH_MODES: frozenset[str] = frozenset()
    PATHS: tuple[str, ...] = ()
    OPTIONS_SINCE: frozenset[str] = frozenset()
    ENV_BY_FORMAT: Mapping[str, str] = {}
    WITHOUT_WINDOW: frozenset[str] = frozenset()
    LAYER_FORMATS: frozenset[str] = frozenset()

    def unsupported(self, cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:  # noqa: ARG002
        """Why this cell cannot run on this hardware, known before anything is tried; None when it can."""
        return None

    def unsupported_model(self, source: Source, cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:  # noqa: ARG002
        """Why it cannot run this format of a model, of the recipe's first `source`, by its config; None when it can."""
        return None

    def may_offload(self, options: Any) -> bool:  # noqa: ARG002
        """Whether weights may lie outside the cell's device, whose memory then bounds nothing."""
        return False

    @required_if(lambda engine: bool(engine.MODES & {"offline", "score"}))
    def open(self, folder: Path, artifact: Artifact, options: Any, device: str) -> AbstractContextManager[Session]:
        """Load the artifact in `folder`, which may be a single file. Runs inside the engine's environment."""

    @required_if(lambda engine: "online" in engine.MODES)
    def serve(self, folder: Path, artifact: Artifact, options: Any, python: str, port: int, device: str) -> Server:
        """How its server starts on 127.0.0.1:`port`, with the settings of `open`; UserError if it cannot serve it."""

    @required_if(lambda engine: "online" in engine.MODES)
    def read_log(self, text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
        """Receipts, and sizes in bytes, from what the server wrote: what it names there, and nothing else."""


class Method(Protocol):
    """One compression step.

    READS and WRITES: artifact formats. PATHS: options that name files or folders. OPTIONS_SINCE: options
    younger than artifacts, which at their defaults are no part of a digest. OPENS_SOURCES: it is taken first by itself
    where a recipe's step reads what it writes, and not the model as it is. It has `apply` or `train`.
    """

    ENV: str
    VERSION: int
    READS: frozenset[str]
    WRITES: str
    Options: type[Any]
    PATHS: tuple[str, ...] = ()
    OPTIONS_SINCE: frozenset[str] = frozenset()
    OPENS_SOURCES: bool = False

    def env(self, options: Any) -> str:  # noqa: ARG002
        """The environment for these options, where they choose between libraries; ENV for the defaults."""
        return self.ENV

    def unsupported(self, options: Any, source: Source, hardware: Hardware) -> str | None:  # noqa: ARG002
        """Why this step cannot be taken from this source on this hardware; None when it can."""
        return None

    def reads_text(self, options: Any) -> bool:
        """Whether it needs the model's tokenizer: by default where it has an option that names a text."""
        return any(hasattr(options, name) for name in ("calibration", "corpus"))

    def is_seeded(self, options: Any) -> bool:
        """Whether what it makes depends on its option `seed`, of calibration text or training: replicates differ so."""
        return hasattr(options, "seed")

    def prerequisites(self, options: Any, source_format: str) -> tuple[Step, ...]:  # noqa: ARG002
        """Steps to be taken first, each cached like any other and so shared; () when there are none."""
        return ()

    def without_data(self, options: Any) -> Step | None:  # noqa: ARG002
        """The step that ends on the same grid, or with the same zeros, by the weights alone.

        None where these options look at no data, or no method has such a step. Options it leaves out do not matter.
        """
        return None

    def weight_bits(self, options: Any) -> float | None:  # noqa: ARG002
        """Bits per linear weight with scales and zeros, never above what is stored; None where not known."""
        return None

    def is_lossless(self, options: Any) -> bool:  # noqa: ARG002
        """Whether the weights stay as they are, but for floating type and file format."""
        return False

    def output_source(self, options: Any, source: Source) -> Source:  # noqa: ARG002
        """What a step that gives the model other shapes makes of a source: later steps are planned by it."""
        return source

    @required_if(lambda method: not plugin_has(method, "train"))
    def apply(self, folder: Path, options: Any, out: Path, device: str) -> Mapping[str, Any]:
        """Write the compressed model into the empty folder `out`; return what is worth recording (JSON values)."""

    def train(self, folder: Path, teacher: Path, options: Any, out: Path, device: str, work: Path) -> Mapping[str, Any]:
        """In place of `apply` for a method that trains. `teacher`: the original model of the recipe.

        `work` outlives an interruption, for checkpoints to resume from; the line in its file `progress` is displayed.
        """
        del teacher, work
        return self.apply(folder, options, out, device)


class Task(Protocol):
    """A quality measurement.

    `evaluate` runs in the engine's environment, the rest in the parent. With REFERENCE false its facts are
    compared with the baseline's when tables are built; with REFERENCE true `evaluate` reads what `prepare` wrote.

    A task whose requests and scores come from a library has that library's environment as ENV: `build_requests` and
    `score_replies` run there. Requests are token ids, built once for all engines and recipes of a model. The facts of
    `evaluate` are then replies; those of `score_replies` are recorded. PATHS, OPTIONS_SINCE: as an engine's. COLUMNS:
    its metrics and changes in tables, PART_COLUMNS: those of its `parts`; one without a column is only in the records.
    LAYERS: it takes single layers out of its sessions, which engines give of their LAYER_FORMATS. It has `evaluate`, or
    `evaluate_resumably` in its place. One whose Options inherit ServedOptions (bench.contract.served) can be asked of
    an engine's server: `evaluate` then runs in the parent, with a ServedSession.
    """

    VERSION: int
    REFERENCE: bool
    Options: type[Any]
    ENV: str = ""
    PATHS: tuple[str, ...] = ()
    OPTIONS_SINCE: frozenset[str] = frozenset()
    COLUMNS: tuple[Column, ...] = ()
    PART_COLUMNS: tuple[Column, ...] = ()
    LAYERS: bool = False

    @abstractmethod
    def title(self, options: Any) -> str:
        """The task's name in tables: its convention is part of it."""

    @required_if(lambda task: not plugin_has(task, "evaluate_resumably"))
    def evaluate(self, session: Session, options: Any, folder: Path, reference: Path | None) -> Mapping[str, Any]:
        """Facts (JSON values) from which `metrics` can be recomputed.

        `folder` has tokenizer and config, or is a file with both. `reference` is the folder that `prepare` filled,
        with its result in reference.json beside the reference's `digest`, `engine` and `artifact`; of a task with
        an ENV the folder that `build_requests` filled.
        """

    def evaluate_resumably(
        self, session: Session, options: Any, folder: Path, reference: Path | None, work: Path
    ) -> Mapping[str, Any]:
        """As `evaluate`. `work` outlives an interruption, for what is done to resume from; it may not be there yet."""
        del work
        return self.evaluate(session, options, folder, reference)

    @abstractmethod
    def metrics(self, facts: Mapping[str, Any]) -> Mapping[str, float]:
        """A pure function over the facts."""

    def parts(self, facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Sequence[Part]:  # noqa: ARG002
        """Metrics of parts of the items, as by position; with the changes against a `baseline`'s facts. Pure.

        UserError where the baseline's are over other items.
        """
        return ()

    def longest(self, options: Any) -> int:
        """Tokens of the longest text that a model reads in it; 0 where that is not known."""
        return int(getattr(options, "context", 0))

    def local(self, options: Any, folder: Path) -> Any:  # noqa: ARG002
        """These options with what would be downloaded read from `folder`, a suite's `data`, where it can be.

        UserError that names a file which is not there. A `corpus` is the caller's.
        """
        return options

    @required_if(lambda task: not task.REFERENCE)
    def compare_to_baseline(self, facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
        """Change against the baseline on the same items, with its interval. A pure function."""

    @required_if(lambda task: task.REFERENCE)
    def prepare(self, session: Session, options: Any, folder: Path, out: Path) -> Mapping[str, Any]:
        """Write what `evaluate` needs of the baseline into the empty folder `out`; return facts of it (JSON values)."""

    @required_if(lambda task: task.REFERENCE)
    def compare_by_reference(self, facts: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, float]:
        """Pure: the paired difference of two artifacts' distances; UserError for other items or references."""

    @required_if(lambda task: bool(task.ENV))
    def depends(self, options: Any) -> Any:
        """What the requests depend on besides the options and ENV, for a digest (JSON values)."""

    @required_if(lambda task: bool(task.ENV))
    def build_requests(self, options: Any, folder: Path, context: int, out: Path) -> Mapping[str, Any]:
        """Write the requests of `evaluate` into the empty folder `out`; return facts about them (JSON values).

        `folder` has the model's tokenizer; `context` is the model's, in tokens.
        """

    @required_if(lambda task: bool(task.ENV))
    def score_replies(self, options: Any, folder: Path, requests: Path, replies: Mapping[str, Any]) -> ScoredReplies:
        """Score the replies with the library that built the requests."""


@dataclass(frozen=True)
class ScoredReplies:
    """`facts` as of `evaluate`; `items`: the names of columns, then a row per item."""

    facts: Mapping[str, Any]
    items: tuple[tuple[Any, ...], ...]


class _EveryFormat(frozenset[str]):
    """Contains every name."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)


ANY: Final = _EveryFormat()  # LOADS of an engine that takes every format


def plugin_has(plugin: Any, hook: str) -> bool:
    """Whether a plugin has a hook of its own, not the one that `plugins.load` added."""
    own = vars(plugin).get(hook)
    return callable(own) and not isinstance(own, Default)


class Default(partial[Any]):
    """What holds where a plugin leaves out an optional hook."""
