"""The jobs of a worker, in an engine's or method's environment: each runs one plugin and returns an Answer."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.contract import phase, plugins, speculation, wire
from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep, Session
from bench.contract.job import Answer, Job, JobKind
from bench.contract.record import Artifact, RequestTrace
from bench.contract.session import DeepSession
from bench.contract.speculation import answers
from bench.contract.variation import SETTLED_LAST, coefficient_of_variation, settled
from bench.contract.workload import Offline
from bench.machine.resident import hwm_bytes
from bench.process import causality, model_code


def _compress(job: Job) -> Answer:
    method = plugins.load(plugins.METHODS, job.plugin)
    began = time.perf_counter()
    folder, out, options = Path(job.folder), Path(job.out), method.Options(**job.options)
    facts = method.train(folder, Path(job.teacher), options, out, job.device, Path(job.work))
    return Answer(facts={**facts, **_own_peak(), "apply_s": time.perf_counter() - began})


def _offline(job: Job) -> Answer:
    """Warm the shape up until it settles, then measure each group of prompts; the energy window comes last.

    A phase is told before a measured window, never within one, and twice, for some 0.1 ms, in a cold start.
    """
    if not isinstance(load := job.workload, Offline):
        raise UserError(f"an {job.kind} job needs an offline workload")
    groups = [job.prompts[i : i + load.batch] for i in range(0, len(job.prompts), load.batch)]
    warm, measured = groups[: -load.repeats], groups[-load.repeats :]
    loading, began = _session(job), time.perf_counter()
    with loading as session:
        facts: dict[str, Any] = {"load_s": time.perf_counter() - began}
        facts |= {"depth_tokens": load.depth_tokens} if load.depth_tokens else {}
        phase.begin("warming up")
        tpots: list[float] = []
        for prompts in warm:
            sent, steps = _generate(session, prompts, load.new_tokens, job.contexts)
            if not tpots:
                facts["cold_start_s"] = steps[0] + sent - job.spawned_s
                facts["first_ttft_s"] = steps[0]
            tpots.append((steps[-1] - steps[0]) / (load.new_tokens - 1))
            if settled(tpots[1:]):
                break
        facts.update(warmup_requests=len(tpots), warmup_cv=coefficient_of_variation(tpots[-SETTLED_LAST:]))
        phase.begin("measuring")
        zero = time.perf_counter()
        traces: list[RequestTrace] = []
        drafts: list[tuple[int, int]] = []
        generated: list[list[int]] = []
        labels = job.texts[-len(measured) * load.batch :] or (("", ""),) * (len(measured) * load.batch)
        for window, prompts in enumerate(measured):
            sent, steps = _generate(session, prompts, load.new_tokens, job.contexts, job.end_tokens, generated)
            drafts += session.drafts() if isinstance(session, speculation.SpeculatingSession) else ()
            passes = Counter(sent - zero + s for s in steps)  # in their order; several tokens come at one time
            at, counts, since = tuple(passes), tuple(passes.values()), sent - zero
            for prompt in prompts:
                name, category = labels[len(traces)]
                trace = RequestTrace(len(traces), window, len(prompt), since, since, at, counts, "", name, category)
                traces.append(trace)
        if speculation.method_of(job.options) != "off":
            tokens = sum(sum(trace.event_tokens) for trace in traces)
            facts["speculation"] = speculation.counters(drafts, tokens)
        if job.keep_answers:
            named = zip((trace.prompt_id for trace in traces), generated, strict=True)
            facts["answers"] = answers.pack(dict(reversed(list(named))))
        facts.update(**session.memory(), **_own_peak())
        receipts = session.receipts()
        if job.energy_window_s > 0:
            phase.begin(f"energy window of {job.energy_window_s:g} s")
            facts["energy_window"] = _sustain(session, groups, load.new_tokens, job.energy_window_s, job.end_tokens)
        return Answer(facts=facts, receipts=receipts, traces=tuple(traces))


def _sustain(
    session: Session, groups: Sequence[Any], new_tokens: int, least_s: float, end_tokens: Sequence[int]
) -> dict[str, Any]:
    """Repeat the shape for `least_s`, to the end of a batch. `start_s` is CLOCK_MONOTONIC, as the parent's.

    The prompts come round again: no engine keeps prefixes offline, so each pass costs what the first did.
    """
    start_s, batches, input_tokens, output_tokens = time.monotonic(), 0, 0, 0
    passed_s = 0.0
    for prompts in itertools.cycle(groups):
        _, steps = _generate(session, prompts, new_tokens, end_tokens=end_tokens)
        passed_s = time.monotonic() - start_s
        batches += 1
        input_tokens += sum(map(len, prompts))
        output_tokens += len(prompts) * len(steps)
        if passed_s >= least_s:
            break
    return {
        "start_s": start_s,
        "duration_s": passed_s,
        "asked_s": least_s,
        "batches": batches,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }


def _generate(
    session: Session,
    prompts: Any,
    new_tokens: int,
    contexts: Any = (),
    end_tokens: Sequence[int] = (),
    generated_tokens: list[list[int]] | None = None,
) -> tuple[float, list[float]]:
    """When the batch was sent (perf_counter), its contexts being in the KV cache, and each step's time after that.

    The last step is the one by which every sequence has had one of `end_tokens`, which counts as a token.
    `generated_tokens` gets those of each prompt.
    """
    if contexts:
        return _generate_at_depth(session, contexts, prompts, new_tokens)
    sent = time.perf_counter()
    generated = session.generate(prompts, new_tokens)
    if end_tokens:
        generated = _until_end(generated, len(prompts), end_tokens)
    steps = list(generated)
    if generated_tokens is not None:
        generated_tokens += [list(tokens) for tokens in zip(*(step.tokens for step in steps), strict=True)]
    times = [step.time_s - sent for step in steps]
    return sent, times if end_tokens and times else _all_steps(times, new_tokens)


def _generate_at_depth(session: Session, contexts: Any, prompts: Any, new_tokens: int) -> tuple[float, list[float]]:
    if not isinstance(session, DeepSession):
        raise UserError("the engine cannot fill its KV cache before a clock starts: leave depth_tokens out")
    sent: list[float] = []
    steps = session.generate_at_depth(contexts, prompts, new_tokens, lambda: sent.append(time.perf_counter()))
    times = [step.time_s for step in steps]
    if len(sent) != 1:
        raise UserError(f"the engine started the clock of a batch {len(sent)} times, expected once")
    return sent[0], _all_steps([time_s - sent[0] for time_s in times], new_tokens)


def _all_steps(steps: list[float], new_tokens: int) -> list[float]:
    if len(steps) != new_tokens:
        raise UserError(f"the engine generated {len(steps)} tokens, expected {new_tokens}")
    return steps


def _until_end(steps: Iterator[DecodeStep], rows: int, end_tokens: Sequence[int]) -> Iterator[DecodeStep]:
    """The steps up to the one by which every sequence has ended; the engine is then made to stop."""
    going = set(range(rows))
    for step in steps:
        yield step
        going -= {row for row, token in enumerate(step.tokens) if token in end_tokens}
        if not going:
            break
    if isinstance(steps, Generator):
        steps.close()


def _session(job: Job) -> AbstractContextManager[Session]:
    """What loads the artifact in the job's engine, once it is entered."""
    phase.begin("loading")
    engine = plugins.load(plugins.ENGINES, job.plugin)
    return engine.open(Path(job.folder), _artifact(job), engine.Options(**job.options), job.device)


def _score(job: Job) -> Answer:
    task = plugins.load(plugins.TASKS, job.task)
    options, reference = task.Options(**job.task_options), Path(job.reference) if job.reference else None
    loading, began = _session(job), time.perf_counter()
    with loading as session:
        loaded = time.perf_counter()
        phase.begin("scoring")
        shift = _causal_shift(job, session)
        scored = task.evaluate_resumably(session, options, Path(job.folder), reference, Path(job.work))
        facts = {**scored, "causal_shift": shift}
        spent = {"load_s": loaded - began, "evaluate_s": time.perf_counter() - loaded}
        return Answer(facts={**facts, **spent, **session.memory(), **_own_peak()}, receipts=session.receipts())


def _reference(job: Job) -> Answer:
    task = plugins.load(plugins.TASKS, job.task)
    with _session(job) as session:
        phase.begin("scoring")
        _causal_shift(job, session)
        facts = task.prepare(session, task.Options(**job.task_options), Path(job.folder), Path(job.out))
        return Answer(facts=facts, receipts=session.receipts())


def _causal_shift(job: Job, session: Session) -> float:
    """Checked once a session: a task takes the model's logits for those of a causal language model."""
    audit = _artifact(job).audit
    return causality.check(session, audit.vocab_size, audit.context)


def _artifact(job: Job) -> Artifact:
    if job.artifact is None:
        raise UserError(f"a job of kind {job.kind} needs an artifact")
    return job.artifact


def _tokenizer(job: Job) -> Answer:
    from bench import formats

    formats.write_tokenizer(Path(job.folder), Path(job.out))
    return Answer()


def _build_requests(job: Job) -> Answer:
    task = plugins.load(plugins.TASKS, job.plugin)
    options, folder, out = task.Options(**job.task_options), Path(job.folder), Path(job.out)
    return Answer(facts=task.build_requests(options, folder, job.context, out))


def _score_replies(job: Job) -> Answer:
    task = plugins.load(plugins.TASKS, job.plugin)
    options, folder = task.Options(**job.task_options), Path(job.folder)
    verdict = task.score_replies(options, folder, Path(job.reference), job.replies)
    return Answer(facts=verdict.facts, items=verdict.items)


def _ceiling(job: Job) -> Answer:
    """What the device can do at most; `threads` is among the options."""
    from bench.machine import ceiling

    return Answer(facts=wire.plain(ceiling.measure(job.device, int(job.options["threads"] or 1))))


def _own_peak() -> dict[str, int]:
    """The most memory of this process so far, where the system tells: a short life falls between two samples."""
    mark = hwm_bytes()
    return {"worker_hwm_bytes": mark} if mark else {}


JOBS: Mapping[JobKind, Callable[[Job], Answer]] = {
    "compress": _compress,
    "offline": _offline,
    "score": _score,
    "reference": _reference,
    "tokenizer": _tokenizer,
    "build_requests": _build_requests,
    "score_replies": _score_replies,
    "ceiling": _ceiling,
}


def run(job_file: str) -> int:
    """Run the job; its answer is written atomically, while stdout and stderr are only a log. Returns the exit code."""
    job = wire.build(Job, json.loads(Path(job_file).read_text()))
    try:
        answer = JOBS[job.kind](job)
    except UserError as error:
        answer = Answer(error=model_code.needed(Path(job.folder), str(error)) or str(error))
    except MemoryError:
        answer = Answer(error="out of memory: the machine has less than this cell needs; use a smaller model or batch")
    except Exception as error:  # noqa: BLE001  (an engine may raise anything; the log keeps the traceback)
        traceback.print_exc()
        answer = Answer(error=model_code.needed(Path(job.folder), str(error)) or _one_line(error))
    if answer.error and job.out:
        shutil.rmtree(job.out, ignore_errors=True)  # half an artifact, in the way of the answer on a full disk
    wire.write(Path(job.answer), wire.dumps(answer))
    return 1 if answer.error else 0


def _one_line(error: Exception) -> str:
    """An engine's exception as one sentence: its class and the first line of its message."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk for {error.filename or 'a file'}; free some or move LLM_BENCH_CACHE"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
