"""The roles a plugin can play.

A plugin is a module: the file's name is its name in a suite, its globals are its attributes.

Each module has a frozen standard-library dataclass `Options` whose fields are the options a user may give,
typed and with defaults; the parent validates against it, the worker builds one from the job. Nothing at the
top level of a plugin may import its engine or library: the core environment loads every plugin to ask what
it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.contract.record import Artifact, Hardware, Source
from bench.contract.spec import Cell, Step


@dataclass(frozen=True)
class Decoded:
    """One decode step of a batch.

    When its tokens were on the host (time.perf_counter), and one token per sequence.
    """

    time_s: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class LogitBlock:
    """Next-token logits of positions start .. start + rows: float32 NumPy array [rows, vocab]."""

    start: int
    logits: Any


class Session(Protocol):
    """A loaded model in one engine."""

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[Decoded]:
        """Greedy decoding of a static batch of equally long prompts, EOS ignored.

        Exactly `new_tokens` steps.

        Each step is stamped by the engine after its device sync, so a step may be yielded later than it was
        made.
        """

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Next-token logits for every position of one sequence, in order, in blocks that fit in memory."""

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids by the tokenizer stored with the weights, and the UTF-8 bytes of the text each adds.

        Special tokens are added as the model adds them, and have 0 bytes. Asked only where the artifact has
        no tokenizer.json (a bare GGUF file); UserError where the weights have no tokenizer with them.
        """

    def receipts(self) -> Mapping[str, str]:
        """Kernel, weight dtype, compute dtype, attention implementation, threads, device.

        As they really are.
        """

    def memory(self) -> Mapping[str, int]:
        """The engine's own accounting, in bytes.

        `weights_bytes`, and where it can tell `kv_bytes`, `peak_bytes`.
        """


@dataclass(frozen=True)
class Server:
    """An engine's own HTTP server, OpenAI-compatible, as its command line; or one at `url` that runs already.

    `variables` are added to the environment's. `model` is what requests name. `health` is answered with 200
    once it can serve. `takes_ids`: prompts may be lists of token ids. `extra`: body fields of every request
    over the client's own; null removes one. `api`, `exact_length` and `key_variable` as in the client's
    Endpoint.
    """

    argv: tuple[str, ...]
    model: str
    variables: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    takes_ids: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    api: Literal["completions", "chat"] = "completions"
    exact_length: bool = True
    key_variable: str = ""


class Engine(Protocol):
    """What runs an artifact."""

    ENV: str
    VERSION: int
    LOADS: frozenset[str]
    MODES: frozenset[str]
    Options: type

    def unsupported(self, cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
        """Why this cell cannot run here, known before anything is tried; None when it can."""

    def open(
        self, folder: Path, artifact: Artifact, options: Any, device: str
    ) -> AbstractContextManager[Session]:
        """Load the artifact in `folder`, which may be a single file. Runs inside the engine's environment."""


class Serving(Engine, Protocol):
    """An engine with "online" among its MODES."""

    def serve(
        self, folder: Path, artifact: Artifact, options: Any, python: str, port: int, device: str
    ) -> Server:
        """How its server is started on 127.0.0.1:`port` by the environment's `python`.

        With the settings that `open` gives the engine. UserError for what it cannot serve.
        """

    def read_log(self, text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
        """Receipts, and sizes in bytes, from what the server wrote: what it names there, and nothing else."""


class Method(Protocol):
    """One compression step."""

    ENV: str
    VERSION: int
    READS: frozenset[str]
    WRITES: str
    Options: type

    def unsupported(self, options: Any, source: Source, hardware: Hardware) -> str | None:
        """Why this step cannot be taken from this source on this hardware; None when it can."""

    def before(self, options: Any, source_format: str) -> tuple[Step, ...]:
        """Steps to be taken first, each cached like any other and so shared; () when there are none."""

    def apply(self, folder: Path, options: Any, out: Path, device: str) -> Mapping[str, Any]:
        """Write the compressed model into the empty folder `out`.

        Return what is worth recording (JSON values).
        """


class Evaluator(Protocol):
    """A quality measurement.

    `evaluate` runs beside a Session, in the engine's environment; the rest runs in the parent. It stands in
    relation to the baseline in one of two ways: with REFERENCE false it is `Compared` with the baseline's
    facts when tables are built, with REFERENCE true it is `Referenced`.
    """

    VERSION: int
    REFERENCE: bool
    Options: type

    def title(self, options: Any) -> str:
        """The task's name in tables: its convention is part of it."""

    def evaluate(
        self, session: Session, options: Any, folder: Path, reference: Path | None
    ) -> Mapping[str, Any]:
        """Facts (JSON values) from which `metrics` can be recomputed.

        `folder` has tokenizer and config, or is a file that holds both. `reference`, where REFERENCE is true,
        is the folder that `prepare` filled; what it returned is there in reference.json, with the `digest` of
        the reference and the `engine` and `artifact` it was made from.
        """

    def metrics(self, facts: Mapping[str, Any]) -> Mapping[str, float]:
        """A pure function over the facts."""


class Compared(Evaluator, Protocol):
    """An evaluator that measures each artifact alone."""

    def compare(self, facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
        """Against the baseline on the same items: change and its interval. A pure function."""


class Referenced(Evaluator, Protocol):
    """An evaluator that needs, while it measures, more of the baseline than a record can hold."""

    def prepare(self, session: Session, options: Any, folder: Path, out: Path) -> Mapping[str, Any]:
        """Write what `evaluate` needs of the baseline into the empty folder `out`.

        Runs once beside a Session of the baseline. Return what is worth knowing of it (JSON values).
        """
