"""One online round: the engine's own server, started anew, and the load process against it."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.job import Answer
from bench.contract.spec import Cell, Workload
from bench.load import arrivals, prompts
from bench.load.client import answered
from bench.load.job import Ask, Closed, Endpoint, LoadAnswer, LoadJob, Open
from bench.machine import probes
from bench.run import artifacts, builds, launch, paths, serving
from bench.run.artifacts import Made
from bench.run.envs import Environment

_WARMUPS = 8  # of an open loop, beside twice what Little's law says is in flight
_KEPT_REASONS = 3


def run(cell: Cell, made: Made, env: Environment, seed: str, *, timeout_s: float) -> launch.Outcome:
    """Start the server, apply the load, end the server; whatever happened is in the outcome."""
    engine = plugins.load(plugins.ENGINES, cell.engine.name)
    began, port, load = time.monotonic(), serving.free_port(), cell.workload
    assert load is not None  # noqa: S101  (an online cell has a workload)
    device = "cuda:0" if cell.device.startswith("cuda") else cell.device  # the only one it sees
    options = engine.Options(**artifacts.absolute(cell.engine.options))
    try:
        server = engine.serve(made.folder, made.artifact, options, env.python, port, device)
        with (
            serving.running(server, port, env, cell.device, timeout_s=timeout_s) as live,
            probes.watch(live.pid, cell.device) as probe,
        ):
            job = _job(live, load, made.artifact.audit.vocab_size, seed)
            found = apply(job, timeout_s=max(1.0, timeout_s - (time.monotonic() - began)))
            receipts, memory = engine.read_log(live.log.text)
            facts = {"ready_s": live.ready_s, "server": " ".join(_shown(server.argv, made)), **memory}
            ended = live.ended
    except (serving.ServerFailedError, UserError) as failure:  # this round's; the others go on
        return launch.Outcome(Answer(error=str(failure)), time.monotonic() - began)
    if ended:
        facts["server_ended"] = paths.scrubbed(ended)
    return launch.Outcome(_answer(found, facts, receipts), time.monotonic() - began, probe.facts())


def apply(job: LoadJob, *, timeout_s: float) -> LoadAnswer:
    """Run the load process to its end; an answer with an error when it did not come to one."""
    with launch.scratch() as folder:
        letter, answer = folder / "load.json", folder / "answer.json"
        letter.write_text(wire.dumps(job))
        client = [sys.executable, "-m", "bench.load.client", str(letter), str(answer)]
        argv = [sys.executable, "-c", builds.MORTAL, *client]
        try:
            done = subprocess.run(
                argv, cwd=paths.ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return LoadAnswer(
                error=f"the load was not over within {timeout_s:.0f} s and was stopped: allow it more time "
                "(timeout_s of a suite, --timeout) or ask for fewer requests"
            )
        if not answer.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return LoadAnswer(error=f"the load process ended with code {done.returncode}: {last[0][:200]}")
        return answered(answer)


def shape(load: Workload, seed: str) -> tuple[Closed | None, Open | None, int]:
    """The load's shape for the client, and how many requests warm up before the measured ones."""
    if load.kind == "closed":
        warm = 2 * load.concurrency
        return Closed(load.concurrency, warm), None, warm
    makers = {
        "poisson": lambda: arrivals.poisson(load.requests, load.rate_per_s, seed),
        "constant": lambda: arrivals.constant(load.requests, load.rate_per_s),
        "gamma": lambda: arrivals.gamma(load.requests, load.rate_per_s, load.burstiness, seed),
    }
    together = max(1, math.ceil(load.rate_per_s))
    warm = max(_WARMUPS, 2 * together)
    return None, Open(makers[load.arrivals](), warmup=warm, warmup_concurrency=together), warm


def _job(live: serving.Live, load: Workload, vocab_size: int, seed: str) -> LoadJob:
    closed, opened, warm = shape(load, seed)
    ids = prompts.unique(warm + load.requests, load.prompt_tokens, vocab_size, seed)
    asks = tuple(Ask(load.new_tokens, ids=prompt) for prompt in ids)
    return LoadJob(Endpoint(f"http://{live.host}:{live.port}", live.model), asks, closed, opened)


def _answer(found: LoadAnswer, facts: dict[str, Any], receipts: Any) -> Answer:
    """The round's answer: an error where no request of the window was completed."""
    error = found.error
    if not error and all(served.failure for served in found.served):
        first = found.served[0].trace.error if found.served else "none was sent"
        error = f"none of {len(found.served)} requests was completed; the first: {first}"
        error += f"; {facts['server_ended']}" if "server_ended" in facts else ""
    traces = tuple(served.trace for served in (*found.warmup, *found.served))
    return Answer(error=error, facts={**facts, **client_facts(found)}, receipts=receipts, traces=traces)


def client_facts(found: LoadAnswer) -> dict[str, Any]:
    """What the client says of the window and of itself."""
    health = found.health
    return {
        "window_s": found.window_s,
        "in_flight_mean": found.in_flight.mean,
        "in_flight_low": found.in_flight.low,
        "in_flight_high": found.in_flight.high,
        "client_cpu_fraction": health.cpu_s / health.wall_s if health.wall_s else 0.0,
        "client_lag_p99_s": health.lag_p99_s,
        "client_lag_max_s": health.lag_max_s,
        "failures": dict(found.failures),
        "failure_reasons": [r for r, _ in Counter(
            s.trace.error for s in found.served if s.failure).most_common(_KEPT_REASONS)],
        "reconnects": found.reconnects,
        "chunk_gaps": any(served.chunk_gaps for served in found.served),
        "counted_by": "usage" if all(s.usage_tokens is not None for s in found.served if not s.failure)
        else "events",
        "cached_tokens": sum(served.cached_tokens or 0 for served in found.served),
    }  # fmt: skip


def _shown(argv: tuple[str, ...], made: Made) -> list[str]:
    """The command line as a record may show it: no folder of this machine."""
    return [paths.scrubbed(word.replace(str(made.folder), "ARTIFACT")) for word in argv]
