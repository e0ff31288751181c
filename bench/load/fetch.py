"""One answer of an endpoint that is no load, as its list of models: by the same connection as the load's.

So it goes where the load goes and nowhere else: no redirect is followed, and no proxy is asked.
"""

from __future__ import annotations

import asyncio
import os
from time import perf_counter

from bench.contract.address import Address
from bench.contract.outside import scrubber
from bench.load.connection import Exchange
from bench.load.job import Endpoint
from bench.load.pool import Pool
from bench.load.request import list_metrics, list_models

_MOST_BYTES = 4 << 20


def models(endpoint: Endpoint, *, timeout_s: float) -> str:
    """The body of /v1/models without secrets; "" where the server refuses, redirects or answers without end.

    ConnectionError with the address that was asked where no HTTP server answers in time; ValueError where the
    endpoint is invalid.
    """
    return _body(endpoint, *list_models(endpoint, os.environ), timeout_s)


def metrics(endpoint: Endpoint, *, timeout_s: float) -> str:
    """The body of /metrics; as `models`."""
    return _body(endpoint, *list_metrics(endpoint, os.environ), timeout_s)


def _body(endpoint: Endpoint, to: Address, data: bytes, timeout_s: float) -> str:
    now = perf_counter()
    exchange = Exchange(0, data, now, now)

    async def ask() -> None:
        pool = Pool(to, timeout_s, most_bytes=(_MOST_BYTES,), ca=endpoint.ca)
        over = asyncio.get_running_loop().create_future()
        pool.on_over = over.set_result
        pool.start(exchange)
        await over
        await pool.close()

    asyncio.run(ask())
    if exchange.failure and not exchange.status:
        raise ConnectionError(f"{exchange.message}, asked {to.url}")
    whole = exchange.status == 200 and not exchange.failure
    return scrubber(endpoint.key_variable)(b"".join(exchange.parts).decode(errors="replace")) if whole else ""
