"""What servers count of a shared prefix: usage first, then their counters, then nothing."""

from __future__ import annotations

from typing import Any

from bench.contract.record import RequestTrace
from bench.load.job import LoadAnswer, RequestResult
from bench.process import prefix_counts
from bench.process.prefix_counts import Counters

# As vllm 0.32 prints it, shortened.
_METRICS = """# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="model"} 4096.0
vllm:prefix_cache_hits_total{engine="0",model_name="model"} 1536.0
vllm:prefix_cache_hits_total{engine="1",model_name="model"} 512.0
vllm:prefix_cache_hits_created{engine="0",model_name="model"} 1.764e+09
vllm:cache_config_info{block_size="128",cache_dtype="auto",enable_prefix_caching="True",engine="0"} 1.0
"""


def _result(number: int, shared: int, cached: int | None, failure: Any = None) -> RequestResult:
    trace = RequestTrace(number, 0, 200, 0.0, 0.0, (0.1,), (1,))
    return RequestResult(trace, failure, 0.0, 0.1, 0.2, cached_tokens=cached, shared_tokens=shared)


def test_counters_of_vllm_and_llama_server_are_read() -> None:
    """Of vLLM those of all its engines, and the size of its blocks; nothing from another server's text."""
    assert prefix_counts.parsed(_METRICS) == Counters(2048, 128)
    assert prefix_counts.parsed("llamacpp:prompt_tokens_cached_total 1.2345e+06\n") == Counters(1234500)
    assert prefix_counts.parsed("llamacpp:prompt_tokens_total 12\n") == Counters()
    assert prefix_counts.parsed("vllm:prefix_cache_hits_total 1e999\n") == Counters()
    assert prefix_counts.parsed("vllm:prefix_cache_hits_total nan\n") == Counters()
    assert prefix_counts.parsed("<html>not found</html>") == Counters()


def test_a_usage_goes_before_counters() -> None:
    """It is of the measured requests alone; a failed one is in no sum."""
    measured = (_result(0, 0, 0), _result(1, 150, 128), _result(2, 150, None, "reset"))
    facts = prefix_counts.facts(LoadAnswer(measured=measured), Counters(0, 64), Counters(999, 64), caching=True)

    assert facts["prefix"] == {
        "caching": True,
        "block_tokens": 64,
        "counted_by": "usage",
        "prompt_tokens": 400,
        "asked_tokens": 150,
        "asked_block_tokens": 128,
        "cached_tokens": 128,
    }


def test_counters_are_of_all_that_was_sent() -> None:
    """Warm-up and what came after the window are in them, and so in what was asked."""
    answer = LoadAnswer(measured=(_result(1, 150, None),), warmup=(_result(0, 100, None), _result(2, 9, None, "reset")))
    shared = prefix_counts.facts(answer, Counters(10), Counters(240), caching=True)["prefix"]

    assert (shared["counted_by"], shared["cached_tokens"]) == ("metrics", 230)
    assert (shared["asked_tokens"], shared["prompt_tokens"]) == (250, 400)


def test_a_server_may_count_nothing() -> None:
    """Then no number is made of it."""
    shared = prefix_counts.facts(LoadAnswer(measured=(_result(1, 150, None),)), Counters(), Counters(), caching=True)
    assert shared["prefix"]["cached_tokens"] is None
    assert shared["prefix"]["counted_by"] == ""
