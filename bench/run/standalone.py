"""`bench load`: the suite's own client against a server that runs already."""

from __future__ import annotations

import random
from typing import Any

from bench.contract.errors import UserError
from bench.contract.spec import Workload
from bench.load import prompts
from bench.load.job import Ask, Endpoint, LoadJob
from bench.measure import online_load
from bench.run import online

_UNITS = {"_s": ("ms", 1e3), "_per_s": ("/s", 1.0), "_fraction": ("%", 100.0)}


def measure(
    endpoint: Endpoint, load: Workload, *, vocab_size: int, seed: int, timeout_s: float
) -> dict[str, Any]:
    """Metrics and the client's facts; UserError where no request was completed."""
    name = f"{seed}/{load.title}"
    closed, opened, warm = online.shape(load, name)
    asks = _asks(endpoint, load, warm + load.requests, vocab_size, name)
    found = online.apply(LoadJob(endpoint, asks, closed, opened), timeout_s=timeout_s)
    facts = online.client_facts(found)
    if found.error:
        raise UserError(found.error)
    if all(served.failure for served in found.served):
        first = (facts["failure_reasons"] or ["none was sent"])[0]
        raise UserError(f"no request to {endpoint.url} was completed; the first: {first}")
    traces = tuple(served.trace for served in (*found.warmup, *found.served))
    return {"metrics": online_load.online_metrics(traces, facts), "facts": facts}


def lines(title: str, found: dict[str, Any]) -> list[str]:
    """A figure a line, in the units a person reads."""
    shown = [title]
    for name, value in found["metrics"].items():
        unit, scale = next(
            (_UNITS[end] for end in ("_per_s", "_fraction", "_s") if name.endswith(end)), ("", 1.0)
        )
        plain = name if name.endswith("_per_s") else name.removesuffix("_s")
        shown.append(f"  {plain:<22} {value * scale:>10.4g} {unit}".rstrip())
    facts = found["facts"]
    shown.append(f"  {'client CPU':<22} {100 * facts['client_cpu_fraction']:>10.3g} % of a core")
    shown.append(f"  {'client lag p99':<22} {1e3 * facts['client_lag_p99_s']:>10.3g} ms")
    shown += [f"  failed                 {kind} x{count}" for kind, count in facts["failures"].items()]
    return shown + [f"    {reason}" for reason in facts["failure_reasons"]]


def _asks(endpoint: Endpoint, load: Workload, count: int, vocab_size: int, seed: str) -> tuple[Ask, ...]:
    """Prompts of token ids where the vocabulary is known, else of as many short random words."""
    if vocab_size and endpoint.api == "completions":
        ids = prompts.unique(count, load.prompt_tokens, vocab_size, seed)
        return tuple(Ask(load.new_tokens, ids=prompt) for prompt in ids)
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    texts = [" ".join(f"{draw.randrange(10**4)}" for _ in range(load.prompt_tokens)) for _ in range(count)]
    if endpoint.api == "chat":
        return tuple(Ask(load.new_tokens, messages=(("user", text),)) for text in texts)
    return tuple(Ask(load.new_tokens, text=text) for text in texts)
