"""The load process: `python -m bench.load.client JOB.json ANSWER.json`.

One process, one thread, one event loop. Requests are bytes before the clock starts, and answers stay bytes
until it has stopped; the collector of cycles is off meanwhile. SIGINT and SIGTERM end the load early: what
was finished by then is in the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench.contract import wire
from bench.contract.cycles import no_gc
from bench.contract.outside import scrubber
from bench.load import prompts
from bench.load.connection import Exchange
from bench.load.health import Meter, in_flight
from bench.load.job import LoadAnswer, LoadJob, RequestResult
from bench.load.loops import ClosedLoop, OpenLoop
from bench.load.pool import Pool
from bench.load.reply import Reply, recounted
from bench.load.request import address, encode, most_bytes
from bench.load.result import decode, request_result

_ONE_SCHEDULE = "a load job has one schedule: either `closed` or `opened`"


def main() -> None:
    job_file, answer_file = map(Path, sys.argv[1:])
    try:
        answer = run(wire.build(LoadJob, orjson.loads(job_file.read_bytes())))
    except ValueError as error:
        answer = LoadAnswer(error=str(error))
    wire.write(answer_file, orjson.dumps(answer))


def read_answer(file: Path) -> LoadAnswer:
    """The answer that a load process left."""
    return wire.build(LoadAnswer, orjson.loads(file.read_bytes()))


def run(job: LoadJob) -> LoadAnswer:
    """Apply the load and record it. ValueError where the job cannot be run; in the main thread only."""
    _check(job)
    requests = encode(job.endpoint, job.requests, os.environ)
    with no_gc(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(job, requests))


async def _run(job: LoadJob, requests: list[bytes]) -> LoadAnswer:
    most = [most_bytes(request, data) for request, data in zip(job.requests, requests, strict=True)]
    pool = Pool(address(job.endpoint), job.endpoint.timeout_s, most_bytes=most, ca=job.endpoint.ca)
    scrub = scrubber(job.endpoint.key_variable)
    meter = Meter()
    exchanges = _Exchanges(job.hold_bytes, scrub, frozenset(i for i, r in enumerate(job.requests) if r.whole))
    load: ClosedLoop | OpenLoop
    if job.closed is not None:
        connections, load = job.closed.concurrency, ClosedLoop(pool, requests, job.closed, meter, exchanges.add)
    elif job.opened is not None:
        connections = job.opened.connections
        load = OpenLoop(pool, requests, job.opened, meter, exchanges.add)
    else:
        raise ValueError(_ONE_SCHEDULE)
    await pool.open(min(connections, len(requests)))
    errors: list[Mapping[str, Any]] = []

    def fail(_: object, context: Mapping[str, Any]) -> None:
        errors.append(context)
        load.stop()

    asyncio.get_running_loop().set_exception_handler(fail)
    with _stopped_by_signals(load.stop):
        await load.run()
    await pool.close()
    if errors:  # an error in a callback would else leave its request to the timeout
        raise RuntimeError(f"the client failed: {errors[0]['message']}") from errors[0].get("exception")
    return _answer(job, load, meter, exchanges, pool.reconnects)


def _answer(
    job: LoadJob, load: ClosedLoop | OpenLoop, meter: Meter, exchanges: _Exchanges, reconnects: int
) -> LoadAnswer:
    zero_s, closed = load.zero_s, job.closed is not None
    starts_of = partial(prompts.starts, tokenizer=Path(job.tokenizer))
    results: dict[bool, list[RequestResult]] = {True: [], False: []}
    for exchange in sorted(exchanges.over, key=lambda e: e.index):
        measured = load.measured(exchange)
        request, window = job.requests[exchange.index], 0 if measured else -1
        reply = recounted(exchanges.reply(exchange), starts_of) if job.tokenizer else exchanges.reply(exchange)
        result = request_result(
            exchange, reply, request, job.endpoint, exchanges.scrub, zero_s=zero_s, window=window, closed=closed
        )
        results[measured].append(result)
    spans = [(r.trace.sent_s, r.end_s) for group in results.values() for r in group]
    return LoadAnswer(
        measured=tuple(results[True]),
        warmup=tuple(results[False]),
        zero_s=zero_s,
        window_s=load.window_s,
        health=meter.health(),
        in_flight=in_flight(spans, 0.0, load.window_s),
        failures=dict(Counter(r.failure for r in results[True] if r.failure)),
        reconnects=reconnects,
        decoded_inside=exchanges.decoded_inside,
        ended=load.ended,
    )


class _Exchanges:
    """Exchanges that are over. Bodies are decoded after the load, or at once when they take too much memory."""

    def __init__(self, hold_bytes: int, scrub: Callable[[str], str], whole: frozenset[int]) -> None:
        self.over: list[Exchange] = []
        self.decoded_inside = 0
        self._free_bytes = hold_bytes
        self._whole = whole
        self.scrub = scrub
        self._replies: dict[Exchange, Reply] = {}

    def add(self, exchange: Exchange) -> None:
        self.over.append(exchange)
        size = sum(map(len, exchange.parts))
        if size <= self._free_bytes:
            self._free_bytes -= size
        else:
            self._replies[exchange] = self._decoded(exchange)
            self.decoded_inside += 1
            exchange.parts = []

    def reply(self, exchange: Exchange) -> Reply:
        return self._replies.get(exchange) or self._decoded(exchange)

    def _decoded(self, exchange: Exchange) -> Reply:
        return decode(exchange, self.scrub, whole=exchange.index in self._whole)


def _check(job: LoadJob) -> None:
    """ValueError with what is wrong, where the job cannot be run."""
    if (job.closed is None) == (job.opened is None):
        raise ValueError(_ONE_SCHEDULE)
    if job.closed is not None:
        if job.closed.concurrency < 1:
            raise ValueError(f"concurrency {job.closed.concurrency}: must be at least 1")
        unmeasured = job.closed.warmups + job.closed.after
        if len(job.requests) <= unmeasured:
            raise ValueError(f"{len(job.requests)} requests, all of them warm-up: give more than {unmeasured}")
    if job.opened is not None:
        due = list(job.opened.due_s)
        if len(due) != len(job.requests) or not due:
            raise ValueError(f"{len(due)} due times for {len(job.requests)} requests")
        if due != sorted(due) or due[0] < 0:
            raise ValueError("due times must ascend from zero")


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM stop the load while this holds."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


if __name__ == "__main__":
    main()
