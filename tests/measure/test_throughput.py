import pytest

from bench.contract.record import RequestTrace
from bench.contract.workload import Closed, Offline, SharedPrefix, Trace
from bench.measure.throughput import input_rate, throughput_metrics


def batch(window: int, sent: float, times: tuple[float, ...], size: int, error: str = "") -> list[RequestTrace]:
    tokens = (1,) * len(times)
    return [RequestTrace(i, window, 100, sent, sent, times, tokens, error) for i in range(size)]


def test_rates_of_two_static_batches() -> None:
    """Totals divide sums by sums; prefill and decode are medians over windows. Idle time is out."""
    traces = batch(0, 0.0, (0.5, 0.75, 1.0), 4) + batch(1, 10.0, (11.0, 11.5, 12.0), 4)
    metrics = throughput_metrics(traces)
    assert metrics["measured_s"] == pytest.approx(3.0)
    assert metrics["output_tok_per_s"] == pytest.approx(24 / 3.0)
    assert metrics["request_per_s"] == pytest.approx(8 / 3.0)
    assert metrics["input_tok_per_s"] == pytest.approx(8 * 100 / 3.0)
    assert metrics["prefill_tok_per_s"] == pytest.approx((400 / 0.5 + 400 / 1.0) / 2)
    assert metrics["decode_tok_per_s"] == pytest.approx((8 / 0.5 + 8 / 1.0) / 2)


def test_a_failed_request_costs_its_time_and_brings_nothing() -> None:
    """Its tokens are not output, its window's duration stays, and the window gives no phase rates."""
    traces = [*batch(0, 0.0, (0.5, 1.0), 1), *batch(0, 0.0, (0.5, 2.0), 1, error="cut off")]
    metrics = throughput_metrics(traces)
    assert metrics["output_tok_per_s"] == pytest.approx(2 / 2.0)
    assert "decode_tok_per_s" not in metrics


def test_single_token_windows_have_no_decode_rate() -> None:
    """Prefill only: a rate for decoding is absent, not zero and not infinite."""
    assert "decode_tok_per_s" not in throughput_metrics(batch(0, 0.0, (0.5,), 2))
    assert throughput_metrics([]) == {}


def test_older_records_of_prompts_of_one_length_have_their_input_rate_too() -> None:
    """Requests a second times their prompts, with what these share; drawn lengths and traces are not known."""
    metrics = {"request_per_s": 2.0}

    assert input_rate(metrics, Offline(prompt_tokens=50)) == {"input_tok_per_s": 100.0}
    assert input_rate(metrics, Closed(prompt_tokens=50, shared_prefix=SharedPrefix(tokens=30))) == {
        "input_tok_per_s": 160.0
    }
    for load in (
        Closed(lengths="uniform", spread=0.5),
        Closed(turns=2),
        Trace(path="x.csv"),
        Offline(prompts="x"),
        None,
    ):
        assert input_rate(metrics, load) == {}
    assert input_rate({"input_tok_per_s": 7.0, **metrics}, Offline()) == {}
    assert input_rate({}, Offline()) == {}
