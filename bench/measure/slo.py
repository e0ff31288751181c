"""Service-level objectives: which requests kept theirs, and whether a share of them did for sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.contract.record import RequestTrace
from bench.measure.latency import completed, e2el_s, tpot_s, ttft_s

SHARE = 0.95  # of the requests that must keep each limit: a limit on the 95th percentile, as a share of requests
CONFIDENCE = 0.95  # of the verdict about a rate, however many looks it took

_VALUES: Mapping[str, Callable[[RequestTrace], float | None]] = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2el_s": e2el_s}


def within_limits(trace: RequestTrace, limits: Mapping[str, float]) -> bool:
    """Whether a completed request kept every limit; one of a single token has no TPOT, and keeps it."""
    values = {name: _VALUES[name](trace) for name in limits}
    return all(value is None or value <= limits[name] for name, value in values.items())


def counts(traces: Sequence[RequestTrace], limits: Mapping[str, float]) -> dict[str, int]:
    """For each limit, how many requests were completed and kept it. What failed kept none."""
    done = completed(traces)
    return {name: sum(within_limits(trace, {name: limit}) for trace in done) for name, limit in limits.items()}


def verdict(within: int, of: int, look: int) -> bool | None:
    """Whether at least SHARE of all requests keep a limit, from `within` of `of` that did; None: not clear.

    `look` counts from 1 how often the same requests, and more each time, were judged. True and False each have
    CONFIDENCE by the exact one-sided binomial test, whose error is spent over the looks: half of what is left at
    each (the union bound holds for any number of them; O'Brien and Fleming's and Pocock's bounds are for a number
    fixed beforehand). It takes requests as independent; those that waited in one queue are not quite, and the true
    confidence is somewhat lower.
    """
    if not of:
        return None
    from scipy import special  # slow to import, and needed by searches alone

    alpha = (1 - CONFIDENCE) / 2**look
    if special.bdtrc(within - 1, of, SHARE) <= alpha:  # P(X >= within)
        return True
    return False if special.bdtr(within, of, SHARE) <= alpha else None
