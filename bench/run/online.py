"""One online round: a fresh server of the engine, and the load process against it."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench import paths
from bench.contract import wire
from bench.contract.errors import CellError, UserError
from bench.contract.job import Answer
from bench.contract.server import Server
from bench.contract.spec import Cell, Suite
from bench.contract.speculation import answers, draft_of, method_of
from bench.contract.workload import Closed, Online, Open, Search, SingleLoad, Sweep
from bench.envs.environment import Environment
from bench.load import build, depth, sweep
from bench.load.client import read_answer
from bench.load.job import LoadAnswer, LoadJob
from bench.machine import counters, probes
from bench.measure import prefix
from bench.process import child, exposition, prefix_counts, scratch, supervisor
from bench.process import server as serving
from bench.run import artifacts, energy_window, speculation, text_prompts
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import PlannedRound

_MOST_REASONS = 3
_ANSWER_S = 30.0  # for a load process that was stopped to write down what it has


def run(
    item: PlannedRound,
    load: Online,
    built: BuiltArtifact,
    env: Environment,
    suite: Suite,
    *,
    report: Callable[[str], None] = lambda _: None,
    open_reader: counters.OpenReader = counters.reader,
) -> supervisor.Outcome:
    """Start the server, apply the load, end the server; CellError where the load could not be applied.

    Where the device counts energy and the suite asks for it, the load's window is the energy window.
    """
    cell, engine = item.cell, item.engine
    began, port = time.monotonic(), serving.free_port()
    device = "cuda:0" if cell.device.startswith("cuda") else cell.device  # the only one it sees
    options = engine.Options(**artifacts.absolute(cell.engine.options))
    speculates = method_of(cell.engine.options) != "off"
    drawn = text_prompts.of_round(item, suite.seed, report)
    try:
        server = engine.serve(built.folder, built.artifact, options, env.python, port, device)
        counted = suite.energy_window_s > 0 and not server.url
        idle = energy_window.idle_facts(cell.device, open_reader, report) if counted else {}
        report("starting the server")
        with contextlib.ExitStack() as stack:
            serves = serving.running(server, port, env, cell.device, model=built.folder, timeout_s=suite.timeout_s)
            live = stack.enter_context(serves)
            watch = probes.watch(live.pid, cell.device, open_reader=open_reader)
            probe = stack.enter_context(watch) if live.pid else None
            seed, deadline = f"{suite.seed}/{cell.measurement}", began + suite.timeout_s
            keeps = isinstance(load, Closed | Open) and speculation.keeps_answers(suite, item.round)
            texts = drawn.prompts if drawn else ()
            target = replace(target_of(server, live, built), texts=texts, keeps_answers=keeps)
            caching = bool(cell.engine.options.get("prefix_caching"))
            before = exposition.read(target.endpoint) if speculates else {}
            stages, facts = loaded(load, target, seed, item.round, deadline, report, prefix_caching=caching)
            if speculates and (counts := exposition.speculation(before, exposition.read(target.endpoint))):
                facts["speculation"] = counts
            report("ending the server")
            receipts, memory = engine.read_log(live.log_text)
            command = " ".join(map(public_word(built, cell), server.argv))
            facts |= {"ready_s": live.ready_s, "server": command, **memory}
            facts |= {"remote": True} if server.url else {}
            facts |= drawn.facts if drawn else {}
            ended = live.ended
    except UserError as error:  # this round's; the others go on
        raise CellError(str(error)) from None
    if idle and probe:
        facts = energy_window.of_load(facts, stages[facts.get("chosen", -1)], idle, probe)
    traces = tuple(replace(t, error=paths.scrubbed(t.error)) for stage in stages for t in stage.traces)
    reason = without_figures(load, stages, facts)
    if ended:
        reason = f"{paths.scrubbed(ended)}; {sum(not t.error for t in traces)} requests were finished before"
    answer = Answer(error=reason, facts=facts, receipts=receipts, traces=traces)
    return supervisor.Outcome(answer, time.monotonic() - began, probe.facts() if probe else {})


def public_word(built: BuiltArtifact, cell: Cell) -> Callable[[str], str]:
    """What makes of a word of a server's command one that a record may show."""
    folders = {str(built.folder): "ARTIFACT"}
    if draft := draft_of(cell.engine.options).removeprefix("path:"):
        folders[draft] = "DRAFT"

    def public(word: str) -> str:
        for folder, name in folders.items():
            word = word.replace(folder, name)
        return paths.scrubbed(word)

    return public


def loaded(
    load: Online,
    target: build.Target,
    seed: str,
    round_: int,
    deadline: float,
    report: Callable[[str], None] = lambda _: None,
    *,
    prefix_caching: bool = False,
) -> tuple[list[sweep.StageResult], dict[str, Any]]:
    """Apply every load of a workload until `deadline` (time.monotonic), or until all requests of one were refused.

    `prefix_caching`: as the engine was asked.
    """

    def apply_stage(stage: SingleLoad, k: int) -> tuple[LoadAnswer, dict[str, Any]]:
        report(f"under load {k + 1} ({stage.title})" if isinstance(load, Sweep | Search) else "under load")
        facts: dict[str, Any] = {}
        if isinstance(stage, Closed) and stage.shared_prefix:
            before = prefix_counts.counters(target.endpoint)
            answer = within_time(build.closed(stage, target, f"{seed}/{round_}/{k}"))
            after = prefix_counts.counters(target.endpoint)
            facts = prefix_counts.facts(answer, before, after, caching=prefix_caching)
        elif isinstance(stage, Closed):
            answer = within_time(build.closed(stage, target, f"{seed}/{round_}/{k}"))
        else:
            requests, facts = build.opened(stage, target, seed, f"{round_}/{k}")
            answer = within_time(requests.warmup)
            if answer.error:
                answer = replace(answer, measured=(), warmup=answer.measured)
            else:
                facts["lead_s"] = min(requests.lead_s(answer), max(0.0, deadline - time.monotonic()))
                answer = within_time(requests.job(facts["lead_s"]))
        if not answer.error and answer.measured and all(r.failure == "refused" for r in answer.measured):
            answer = replace(answer, error=_none_completed(answer))
        if stage.deepest:
            answer = depth.after_context(answer, stage.deepest)
            facts["depth_tokens"] = stage.deepest
        return answer, {**client_facts(answer), **build.prompt_facts(target), **facts}

    def within_time(job: LoadJob) -> LoadAnswer:
        return apply(job, timeout_s=max(1.0, deadline - time.monotonic()))

    return sweep.run(load, apply_stage)


def apply(job: LoadJob, *, timeout_s: float) -> LoadAnswer:
    """Run the load process; after `timeout_s` it is stopped, and the answer has the requests finished by then."""
    with scratch.folder() as folder:
        job_file, answer_file = folder / "load.json", folder / "answer.json"
        job_file.write_text(wire.dumps(job))
        argv = [sys.executable, "-m", "bench.load.client", str(job_file), str(answer_file)]
        with child.logged(argv, "load", cwd=paths.import_root(), variables=os.environ) as (process, log):
            try:
                process.wait(timeout=timeout_s)
                in_time = True
            except subprocess.TimeoutExpired:
                in_time = False
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_ANSWER_S)
        answer = read_answer(answer_file) if answer_file.exists() else None
    if in_time:
        last = log.last or "no message"
        return answer or LoadAnswer(error=f"the load process ended with code {process.returncode}: {last}")
    answer = answer or LoadAnswer()
    completed = sum(not result.failure for result in answer.measured)
    sentence = (
        f"the load was not over within {timeout_s:.0f} s and was stopped with {completed} requests finished: "
        "allow it more time (timeout_s of a suite, --timeout) or ask for fewer requests"
    )
    return replace(answer, error=sentence)


def target_of(server: Server, live: serving.Live, built: BuiltArtifact) -> build.Target:
    endpoint = serving.endpoint(server, live.url)
    audit, tokenizer = built.artifact.audit, built.folder / "tokenizer.json"
    file = tokenizer if tokenizer.is_file() else None
    ids_below = audit.vocab_size if server.takes_ids else 0
    return build.Target(endpoint, ids_below, file, audit.context, server.reuse, natural=server.natural)


def without_figures(load: Online, stages: list[sweep.StageResult], facts: dict[str, Any]) -> str:
    """Why a load has no figures, if it has none."""
    chosen = stages[facts.get("chosen", -1)].answer
    if stages[-1].answer.error:
        return stages[-1].answer.error
    if all(result.failure for result in chosen.measured):
        return _none_completed(chosen)
    if isinstance(load, Search) and not facts["slo_rate_per_s"]:
        limits = ", ".join(f"{name.removesuffix('_s')} {limit:g} s" for name, limit in load.slo.limits.items())
        return f"no rate down to {facts['slo_rate_high_per_s']:.3g}/s was shown to keep {limits}"
    return prefix.fault(facts)


def _none_completed(answer: LoadAnswer) -> str:
    first = answer.measured[0].trace.error if answer.measured else "none was sent"
    return f"none of {len(answer.measured)} requests was completed; the first: {first}"


def client_facts(answer: LoadAnswer) -> dict[str, Any]:
    """The client's facts of the window and of itself."""
    health = answer.health
    ways = {result.counted_by for result in answer.measured if not result.failure}
    return {
        "window_s": answer.window_s,
        "in_flight_mean": answer.in_flight.mean,
        "in_flight_low": answer.in_flight.low,
        "in_flight_high": answer.in_flight.high,
        "client_cpu_fraction": health.cpu_s / health.wall_s if health.wall_s else 0.0,
        "client_lag_p99_s": health.lag_p99_s,
        "client_lag_max_s": health.lag_max_s,
        "failures": dict(answer.failures),
        "failure_reasons": [
            paths.scrubbed(r)
            for r, _ in Counter(s.trace.error for s in answer.measured if s.failure).most_common(_MOST_REASONS)
        ],
        "reconnects": answer.reconnects,
        "chunk_gaps": any(request.chunk_gaps for request in answer.measured),
        "counted_by": next((by for by in ("events", "tokenizer") if by in ways), "usage"),
        "cached_tokens": sum(request.cached_tokens or 0 for request in answer.measured),
        **_answers(answer),
        **_texts(answer),
        **_uncounted(answer),
    }


def _uncounted(answer: LoadAnswer) -> dict[str, Any]:
    """What speaks against counting events: answers that ended at the length asked for, in fewer or more of them."""
    cut = [r for r in answer.measured if not r.failure and r.counted_by == "events" and r.finish == "length"]
    other = [r for r in cut if len(r.trace.token_s) != r.new_tokens]
    if not other:
        return {}
    median_events, median_tokens = (
        statistics.median(n) for n in zip(*((len(r.trace.token_s), r.new_tokens) for r in other), strict=True)
    )
    return {
        "events_against_length": f"{len(other)} answers ended with finish_reason length at the {median_tokens:g} "
        f"tokens that were asked for, but in {median_events:g} events: these are not tokens"
    }


def _texts(answer: LoadAnswer) -> dict[str, Any]:
    """The texts of the answers, where they are kept; of a prompt that was asked again the first."""
    texts = {r.trace.prompt_id: r.answer for r in reversed(answer.measured) if r.answer and not r.failure}
    return {"answers": answers.pack(texts)} if texts else {}


def _answers(answer: LoadAnswer) -> dict[str, Any]:
    """What answers were besides text: reasoning before it, calls of functions instead; nothing where all were text."""
    done = [request for request in answer.measured if not request.failure]
    facts: dict[str, Any] = {}
    if reasoning := sum(request.reasoning_tokens for request in done):
        answered = [r.answer_s - r.trace.due_s for r in done if r.answer_s is not None]
        facts = {"reasoning_tokens": reasoning, "answered": len(answered)}
        facts |= {"answer_ttft_s": statistics.median(answered)} if answered else {}
    if calls := sum(request.calls_only for request in done):
        facts["calls_only"] = calls
    return facts
