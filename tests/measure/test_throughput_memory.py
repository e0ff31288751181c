import pytest

from bench.contract.record import RequestTrace
from bench.measure.memory import memory_metrics
from bench.measure.throughput import throughput_metrics


def batch(
    window: int, sent: float, times: tuple[float, ...], size: int, error: str = ""
) -> list[RequestTrace]:
    tokens = (1,) * len(times)
    return [RequestTrace(i, window, 100, sent, sent, times, tokens, error) for i in range(size)]


def test_rates_of_two_static_batches() -> None:
    """Totals divide sums by sums; prefill and decode are medians over windows. Idle time is out."""
    traces = batch(0, 0.0, (0.5, 0.75, 1.0), 4) + batch(1, 10.0, (11.0, 11.5, 12.0), 4)
    found = throughput_metrics(traces)
    assert found["measured_s"] == pytest.approx(3.0)
    assert found["output_tok_per_s"] == pytest.approx(24 / 3.0)
    assert found["request_per_s"] == pytest.approx(8 / 3.0)
    assert found["prefill_tok_per_s"] == pytest.approx((400 / 0.5 + 400 / 1.0) / 2)
    assert found["decode_tok_per_s"] == pytest.approx((8 / 0.5 + 8 / 1.0) / 2)


def test_a_failed_request_costs_its_time_and_brings_nothing() -> None:
    """Its tokens are not output, its window's duration stays, and the window gives no phase rates."""
    traces = [*batch(0, 0.0, (0.5, 1.0), 1), *batch(0, 0.0, (0.5, 2.0), 1, error="cut off")]
    found = throughput_metrics(traces)
    assert found["output_tok_per_s"] == pytest.approx(2 / 2.0)
    assert "decode_tok_per_s" not in found


def test_single_token_windows_have_no_decode_rate() -> None:
    """Prefill only: a rate for decoding is absent, not zero and not infinite."""
    assert "decode_tok_per_s" not in throughput_metrics(batch(0, 0.0, (0.5,), 2))
    assert throughput_metrics([]) == {}


def test_cpu_peak_is_the_larger_of_sampled_tree_and_kernel_mark() -> None:
    """Sampling misses a spike of the worker, the kernel's mark misses the children: the larger stands."""
    assert memory_metrics({"peak_rss_bytes": 10, "hwm_bytes": 12}, "cpu") == {"peak_memory_bytes": 12.0}
    assert memory_metrics({"peak_rss_bytes": 20, "hwm_bytes": 12}, "cpu") == {"peak_memory_bytes": 20.0}
    assert memory_metrics({"peak_bytes": 5}, "cpu") == {}
    assert memory_metrics({"hwm_bytes": 12}) == {"peak_memory_bytes": 12.0}


def test_cuda_peak_is_the_allocators_beside_nvmls() -> None:
    """The parts add up to the allocator's peak; NVML's larger figure stands beside, not in place."""
    facts = {"peak_device_bytes": 100, "nvml_process_peak_bytes": 600, "weights_bytes": 70, "kv_bytes": 20}
    found = memory_metrics({**facts, "hwm_bytes": 9}, "cuda:0")
    assert memory_metrics({**facts, "hwm_bytes": 9}) == found
    assert found["peak_memory_bytes"] == 100
    assert found["other_bytes"] == 10
    assert found["nvml_process_peak_bytes"] == 600


def test_cuda_without_an_allocators_word() -> None:
    """NVML's figure is better than a blank, and no split is made up from it."""
    found = memory_metrics({"nvml_process_peak_bytes": 600, "weights_bytes": 70}, "cuda:0")
    assert found["peak_memory_bytes"] == 600
    assert "other_bytes" not in found
