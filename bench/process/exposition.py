"""The counters that a server tells Prometheus, and those of speculation among them.

vLLM and llama.cpp call them alike but for a prefix: `vllm:spec_decode_num_drafts_total{…} 12`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from bench.load import fetch
from bench.load.job import Endpoint

_SAMPLE = re.compile(r"^[a-z_]+:(\w+?)(?:\{(.*)\})? ([-+0-9.eE]+)$", re.MULTILINE)
_POSITION = re.compile(r'position="(\d+)"')
_DRAFTS, _DRAFT_TOKENS = "spec_decode_num_drafts_total", "spec_decode_num_draft_tokens_total"
_ACCEPTED, _BY_POSITION = "spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_per_pos_total"
_GENERATED = ("generation_tokens_total", "tokens_predicted_total")  # of vLLM, of llama.cpp
_ANSWER_S, _SETTLED_S, _TRIES = 10.0, 0.2, 25

Samples = Mapping[str, float]


def parse(text: str) -> dict[str, float]:
    """Each sample by its name without the prefix, summed over labels; one with a position as NAME/POSITION."""
    samples: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        position = _POSITION.search(labels)
        key = f"{name}/{position[1]}" if position else name
        samples[key] = samples.get(key, 0.0) + float(value)
    return samples


def read(endpoint: Endpoint) -> Samples:
    """What the server tells once its counters rest; {} where it tells nothing."""
    before: Samples = {}
    for _ in range(_TRIES):
        try:
            now = parse(fetch.metrics(endpoint, timeout_s=_ANSWER_S))
        except (ConnectionError, ValueError):
            return {}
        if not now or _speculation(now) == _speculation(before):
            return now
        before = now
        time.sleep(_SETTLED_S)
    return before


def speculation(before: Samples, after: Samples) -> dict[str, Any]:
    """What a record has of the drafts between two readings, as of `bench.contract.speculation.counters`.

    {} where the server does not count them.
    """
    if _DRAFTS not in after:
        return {}
    grown = {name: int(after[name] - before.get(name, 0)) for name in _speculation(after)}
    drafts = grown[_DRAFTS]
    at_least = [drafts]  # drafts of which at least so many tokens were accepted
    while (name := f"{_BY_POSITION}/{len(at_least) - 1}") in grown:
        at_least.append(grown[name])
    histogram = [count - more for count, more in zip(at_least, [*at_least[1:], 0], strict=True)]
    while len(histogram) > 1 and not histogram[-1]:
        histogram.pop()
    return {
        "drafts": drafts,
        "draft_tokens": grown.get(_DRAFT_TOKENS, 0),
        "accepted_tokens": grown.get(_ACCEPTED, 0),
        "generated_tokens": sum(grown.get(name, 0) for name in _GENERATED),
        "accepted_histogram": histogram,
    }


def _speculation(samples: Samples) -> Samples:
    return {name: value for name, value in samples.items() if name.startswith("spec_decode") or name in _GENERATED}
