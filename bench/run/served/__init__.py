"""One round of a task through the engine's own server: a fresh server, the task's items as its load, their replies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract.errors import CellError, UserError
from bench.contract.job import Answer
from bench.contract.record import RequestTrace
from bench.contract.server import Server
from bench.contract.spec import Suite
from bench.envs.environment import Environment
from bench.load.job import LoadAnswer
from bench.machine import counters, probes
from bench.process import server as serving
from bench.process import supervisor
from bench.run import artifacts, online
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import PlannedRound
from bench.run.served.session import EndpointSession, Finished, deadline_s


def run(
    item: PlannedRound,
    built: BuiltArtifact,
    task_input: Path | None,
    env: Environment,
    suite: Suite,
    *,
    report: Callable[[str], None] = lambda _: None,
    open_reader: counters.OpenReader = counters.reader,
) -> supervisor.Outcome:
    """Start the server, have the task ask it, end it; CellError where an item has no answer.

    The facts are the replies, as a worker's are, and those of the load.
    """
    cell, engine, task = item.cell, item.engine, item.task
    if cell.task is None or task is None:
        raise CellError("a workload is no task: it has no items to ask a server")
    began, port, left_s = time.monotonic(), serving.free_port(), deadline_s(suite.timeout_s)
    device = "cuda:0" if cell.device.startswith("cuda") else cell.device  # the only one it sees
    engine_options = engine.Options(**artifacts.absolute(cell.engine.options))
    task_options = task.Options(**artifacts.absolute(cell.task.options))
    finished = Finished(paths.cache_folder("served") / f"{item.digest}-r{item.round}.json")
    try:
        server = engine.serve(built.folder, built.artifact, engine_options, env.python, port, device)
        report("starting the server")
        with contextlib.ExitStack() as stack:
            serves = serving.running(server, port, env, cell.device, model=built.folder, timeout_s=suite.timeout_s)
            live = stack.enter_context(serves)
            watch = probes.watch(live.pid, cell.device, open_reader=open_reader)
            probe = stack.enter_context(watch) if live.pid else None
            session = EndpointSession(
                online.target_of(server, live, built),
                task_options.concurrency,
                f"{suite.seed}/{cell.measurement}/{item.round}",
                lambda job: online.apply(job, timeout_s=left_s()),
                finished,
                server.prompt_logprobs,
                server.scored,
            )
            report(f"asking the server, {task_options.concurrency} at a time")
            try:
                replies = task.evaluate(session, task_options, built.folder, task_input)
            except CellError as error:
                if live.ended:
                    raise CellError(f"{paths.scrubbed(live.ended)}; {error}") from None
                raise
            report("ending the server")
            receipts, memory = engine.read_log(live.log_text)
            command = " ".join(map(online.public_word(built, cell), server.argv))
    except (UserError, ValueError) as error:  # this round's, or a server's that answers otherwise; the others go on
        raise CellError(str(error)) from None
    finished.forget()
    facts = {**replies, "ready_s": live.ready_s, "server": command, **memory, **_load_facts(session, server)}
    answer = Answer(facts=facts, receipts=receipts, traces=_traces(session.load))
    return supervisor.Outcome(answer, time.monotonic() - began, probe.facts() if probe else {})


def _load_facts(session: EndpointSession, server: Server) -> dict[str, Any]:
    """What the client says of the load, and how the items were asked."""
    facts: dict[str, Any] = {"concurrency_asked": session.concurrency}
    if session.load is not None:
        facts |= {name: fact for name, fact in online.client_facts(session.load).items() if name != "answers"}
    facts |= {"resumed_items": session.resumed} if session.resumed else {}
    return facts | ({"remote": True} if server.url else {})


def _traces(load: LoadAnswer | None) -> tuple[RequestTrace, ...]:
    results = (*load.warmup, *load.measured) if load is not None else ()
    return tuple(replace(r.trace, error=paths.scrubbed(r.trace.error)) for r in results)
