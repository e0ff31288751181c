"""A worker's job and its answer, both JSON files; its stdout is only a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contract.record import Artifact, RequestTrace
from bench.contract.spec import Options
from bench.contract.workload import Workload

Report = Callable[[str], None]  # is told what goes on, as "subject: detail"
JobKind = Literal[
    "compress", "offline", "score", "reference", "tokenizer", "build_requests", "score_replies", "ceiling"
]


@dataclass(frozen=True)
class Job:
    """`plugin`: a method (compress), a task (build_requests, score_replies), none (tokenizer, ceiling), or an engine.

    `folder` is what it reads, `out` what it may write, `teacher` the model that a recipe began with, `work`
    what outlives an interrupted compress or score job, `reference` a folder that a reference or build_requests job
    wrote, `context` the model's in tokens, `replies` the facts of a score job.

    `prompts` has one list of token ids per request, `repeats` groups of `batch` after the warm-up groups. Of prompts
    of real text `texts` has each one's (id, category); an answer ends with one of `end_tokens`, where there are any.
    With `keep_answers` the facts have the tokens of all of them. `contexts`: what is in the KV cache before each group,
    a list of ids per sequence of the batch; none where that is empty.
    `spawned_s`: CLOCK_MONOTONIC just before the worker started. `energy_window_s`: how long an offline job goes on
    after its last measured batch for the energy counter; 0 where there is none.
    """

    kind: JobKind
    plugin: str
    folder: str
    device: str
    options: Options
    answer: str = ""
    spawned_s: float = 0.0
    out: str = ""
    teacher: str = ""
    work: str = ""
    artifact: Artifact | None = None
    workload: Workload | None = None
    prompts: tuple[tuple[int, ...], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    end_tokens: tuple[int, ...] = ()
    contexts: tuple[tuple[int, ...], ...] = ()
    keep_answers: bool = False
    task: str = ""
    task_options: Options = field(default_factory=dict)
    reference: str = ""
    context: int = 0
    replies: Mapping[str, Any] = field(default_factory=dict)
    energy_window_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a worker observed. `error`: one sentence; `items`: names of columns, then a row per item of a task."""

    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    receipts: Mapping[str, str] = field(default_factory=dict)
    traces: tuple[RequestTrace, ...] = ()
    items: tuple[tuple[Any, ...], ...] = ()
