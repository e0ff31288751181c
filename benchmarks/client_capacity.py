"""What the load client measures against the scripted server's own log, and how many tokens it can take.

Run from the repository's root: `python -m benchmarks.client_capacity`. The server has one core, the client
process the other. Timing: closed loop, TTFT 50 ms, ITL 10 ms; each error is the client's figure less the one
of the server's log, over the same measured requests. Capacity: ITL 0, 64 streams. Each point is run `--runs`
times. The last line of the output is the result as JSON.

A stamp is taken after the server's send and never before, so that errors lean one way; what the scheduler
does to either process is in the figures. `--realtime` runs both by SCHED_FIFO, which needs the privilege.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.contract import wire
from bench.load.client import read_answer
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, Request
from bench.measure.latency import itl_s, tpot_s, ttft_s
from benchmarks import script
from tests.instrument.scripted_server import Logged, Scripted, place, running

_TTFT_S, _ITL_S = 0.05, 0.01
_TTFT_TARGET_MS = {1: 0.5, 16: 0.5, 64: 0.5, 256: 1.0, 512: 2.0}
_COLUMNS = (
    ("streams", "concurrency", "d"),
    ("TTFT err ms", "ttft_error_ms", ".3f"),
    ("TPOT err ms", "tpot_error_ms", ".4f"),
    ("gap p99 ms", "gap_p99_ms", ".2f"),
    ("server's", "server_gap_p99_ms", ".2f"),
    ("lag p50 ms", "lag_p50_ms", ".3f"),
    ("lag p99 ms", "lag_p99_ms", ".3f"),
    ("in flight", "in_flight", ".2f"),
    ("server's", "server_in_flight", ".2f"),
    ("CPU", "cpu_fraction", ".2f"),
    ("lost core", "preempted", "d"),
    ("start s", "start_s", ".2f"),
    ("misses", "misses", "s"),
)

Pin = Callable[[], None]  # puts the process that calls it on the client's core


def main() -> None:
    parser = script.parser(__doc__, runs=2, tokens=64)
    parser.add_argument("--concurrency", type=int, nargs="*", default=list(_TTFT_TARGET_MS))
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1), help="the server's and the client's")
    parser.add_argument("--realtime", action="store_true", help="before all other work of the machine")
    arguments = parser.parse_args()
    server_core, client = arguments.cores[0], partial(place, arguments.cores[1], realtime=arguments.realtime)
    timed, absorbed = [], []
    print(f"load average {os.getloadavg()[0]:.1f}, {'SCHED_FIFO' if arguments.realtime else 'SCHED_OTHER'}")
    with running(server_core, realtime=arguments.realtime, ttft_s=_TTFT_S, itl_s=_ITL_S) as server:
        print("".join(f"{title:>13}" for title, _, _ in _COLUMNS))
        for concurrency in [c for c in arguments.concurrency for _ in range(arguments.runs)]:
            timed.append(timing(server, concurrency, arguments.tokens, client))
            print("".join(f"{timed[-1][name]:>13{form}}" for _, name, form in _COLUMNS), flush=True)
    with running(server_core, realtime=arguments.realtime) as server:
        for _ in range(arguments.runs):
            absorbed.append(capacity(server, client))
            print("  ".join(f"{name} {value:.5g}" for name, value in absorbed[-1].items()), flush=True)
    print(json.dumps({"realtime": arguments.realtime, "timing": timed, "capacity": absorbed}))


def timing(server: Scripted, concurrency: int, tokens: int, client: Pin) -> dict[str, Any]:
    """One closed loop of 2 warm-up and 6 measured requests for each stream, at least 20 measured."""
    measured = max(20, 6 * concurrency)
    answer, log, start_s = load(server, concurrency, measured, tokens, client)
    pairs = [(s.trace, log[str(s.trace.request)]) for s in answer.measured]
    lags = [
        1e3 * (answer.zero_s + received - sent)
        for trace, entry in pairs
        for received, sent in zip(trace.token_s, entry.token_s, strict=True)
    ]
    gaps = [1e3 * gap for trace, _ in pairs for gap in itl_s(trace)]
    true_gaps = [1e3 * (b - a) for _, entry in pairs for a, b in pairwise(entry.token_s)]
    ttft = median(ttft_s(trace) for trace, _ in pairs)
    tpot = median(t for trace, _ in pairs if (t := tpot_s(trace)) is not None)
    true_tpot = median((e.token_s[-1] - e.token_s[0]) / (len(e.token_s) - 1) for _, e in pairs)
    figures: dict[str, Any] = {
        "concurrency": concurrency,
        "ttft_error_ms": 1e3 * (ttft - median(e.token_s[0] - e.received_s for _, e in pairs)),
        "tpot_error_ms": 1e3 * (tpot - true_tpot),
        "gap_p99_ms": float(np.percentile(gaps, 99)),
        "server_gap_p99_ms": float(np.percentile(true_gaps, 99)),
        "lag_p50_ms": float(np.percentile(lags, 50)),
        "lag_p99_ms": float(np.percentile(lags, 99)),
        "in_flight": answer.in_flight.mean,
        "server_in_flight": _server_in_flight(answer, list(log.values())),
        "cpu_fraction": answer.health.cpu_s / answer.health.wall_s,
        "loop_lag_max_ms": 1e3 * answer.health.lag_max_s,
        "preempted": answer.health.preempted,
        "start_s": start_s,
    }
    return {**figures, "misses": _misses(figures)}


def capacity(server: Scripted, client: Pin, streams: int = 64, tokens: int = 1024) -> dict[str, float]:
    """Tokens/s and CPU per 1,000 tokens over the window, ITL 0, every answer checked against its usage."""
    answer, _, _ = load(server, streams, 8 * streams, tokens, client)
    inside = [t for s in (*answer.warmup, *answer.measured) for t in s.trace.token_s if 0 <= t < answer.window_s]
    return {
        "streams": streams,
        "tokens": len(inside),
        "tokens_per_s": len(inside) / answer.window_s,
        "client_cpu_ms_per_1000_tokens": 1e6 * answer.health.cpu_s / len(inside),
        "client_cpu_fraction": answer.health.cpu_s / answer.health.wall_s,
        "window_s": answer.window_s,
    }


def load(
    server: Scripted, streams: int, measured: int, tokens: int, client: Pin
) -> tuple[LoadAnswer, dict[str, Logged], float]:
    """Run the load process: its answer, the server's log, seconds from the command to the first request."""
    server.reset()
    requests = tuple(Request(tokens, ids=(i, 1, 2)) for i in range(2 * streams + measured))
    endpoint = Endpoint(server.url, "scripted")
    with tempfile.TemporaryDirectory() as folder:
        job, file = Path(folder, "job.json"), Path(folder, "answer.json")
        job.write_text(wire.dumps(LoadJob(endpoint, requests, closed=ClosedSchedule(streams))))
        began = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bench.load.client", str(job), str(file)],
            cwd=script.ROOT,
            check=True,
            preexec_fn=client,
        )
        answer = read_answer(file)
    if answer.error or answer.failures:
        raise RuntimeError(answer.error or f"requests failed: {answer.failures}")
    log = server.log()
    return answer, {entry.key: entry for entry in log}, log[0].received_s - began


def _server_in_flight(answer: LoadAnswer, log: Sequence[Logged]) -> float:
    """Mean over the client's window of requests that had arrived and were not answered, by the server."""
    start, end = answer.zero_s, answer.zero_s + answer.window_s
    inside = (min(e.finished_s, end) - max(e.received_s, start) for e in log)
    return sum(max(0.0, span) for span in inside) / answer.window_s


def _misses(figures: dict[str, Any]) -> str:
    """The targets that this run did not meet, by name."""
    bounds = {
        "TTFT": abs(figures["ttft_error_ms"]) <= _TTFT_TARGET_MS.get(figures["concurrency"], 2.0),
        "TPOT": abs(figures["tpot_error_ms"]) <= 0.05,
        "gap": abs(figures["gap_p99_ms"] - figures["server_gap_p99_ms"]) <= 2.0,
        "load": figures["in_flight"] >= figures["concurrency"] * 254 / 256,
        "start": figures["start_s"] < 1.0,
    }
    return ",".join(name for name, met in bounds.items() if not met) or "none"


if __name__ == "__main__":
    main()
