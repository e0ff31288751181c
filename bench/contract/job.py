"""The job of a worker process and its answer. Both are JSON files; stdout is only a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contract.record import Artifact, RequestTrace
from bench.contract.spec import Options
from bench.contract.workload import Workload

PHASE = "phase"  # the file beside the answer in which a worker says what it is doing, for a person
JobKind = Literal["compress", "offline", "score", "reference", "tokenizer", "ask", "judge", "ceiling"]


@dataclass(frozen=True)
class Job:
    """`plugin` is a method (compress), a task (ask, judge), nothing (tokenizer, ceiling) or else an engine.

    `folder` is what it reads, `out` what it may write, `teacher` the model that a recipe began with, `work`
    what outlives an interrupted compress job, `reference` a folder that a reference or ask job wrote,
    `context` the model's in tokens, `replies` the facts of a score job. An ask job builds a task's requests,
    a judge job scores its replies.

    `prompts` has one list of token ids per request, `repeats` groups of `batch` after the warm-up groups.
    `spawned_s` is CLOCK_MONOTONIC, which all processes of a machine share, just before the worker was
    started. `energy_window_s`: how long an offline job goes on after its last measured batch, so that a
    counter of energy has something to count; 0 where there is no counter.
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
    task: str = ""
    task_options: Options = field(default_factory=dict)
    reference: str = ""
    context: int = 0
    replies: Mapping[str, Any] = field(default_factory=dict)
    energy_window_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a worker observed. `error` is one sentence; the traceback, if any, is in the log.

    `items`: names of columns, then a row per item of a task.
    """

    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    receipts: Mapping[str, str] = field(default_factory=dict)
    traces: tuple[RequestTrace, ...] = ()
    items: tuple[tuple[Any, ...], ...] = ()
