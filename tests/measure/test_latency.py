import pytest

from bench.contract.record import RequestTrace
from bench.measure.latency import e2el_s, itl_s, latency_metrics, osl, tpot_s, ttft_s


def trace(*times: float, request: int = 0, window: int = 0, due: float = 0.0, error: str = "") -> RequestTrace:
    return RequestTrace(request, window, 8, due, due, tuple(times), (1,) * len(times), error)


def test_definitions_on_one_request() -> None:
    """TTFT, TPOT, ITL and E2EL of a request whose stamps are known."""
    one = trace(1.5, 1.6, 1.8, 2.1, due=1.0)
    assert ttft_s(one) == pytest.approx(0.5)
    assert tpot_s(one) == pytest.approx(0.6 / 3)
    assert itl_s(one) == pytest.approx([0.1, 0.2, 0.3])
    assert e2el_s(one) == pytest.approx(1.1)


def test_time_waited_before_sending_counts() -> None:
    """Open loop: TTFT starts when the request was due, so queueing in the client is inside."""
    late = RequestTrace(0, 0, 8, 1.0, 1.4, (1.5,), (1,))
    assert ttft_s(late) == pytest.approx(0.5)


def test_an_empty_event_is_no_token() -> None:
    """A role-only first chunk moves neither TTFT nor OSL nor ITL."""
    role_first = RequestTrace(0, 0, 8, 0.0, 0.0, (0.001, 0.5, 0.6), (0, 1, 1))
    assert ttft_s(role_first) == 0.5
    assert osl(role_first) == 2
    assert itl_s(role_first) == pytest.approx([0.1])


def test_tokens_that_share_a_chunk() -> None:
    """TPOT divides by tokens, ITL by chunks: two tokens in one event are one gap."""
    chunked = RequestTrace(0, 0, 8, 0.0, 0.0, (1.0, 1.2, 1.4), (1, 2, 2))
    assert tpot_s(chunked) == pytest.approx(0.1)
    assert itl_s(chunked) == pytest.approx([0.2, 0.2])


def test_a_single_token_has_no_tpot() -> None:
    """One output token has a TTFT and an E2EL, and no time per further token."""
    assert tpot_s(trace(1.0)) is None
    assert set(latency_metrics([trace(1.0)])) == {"failed_requests", "ttft_s", "e2el_s"}


@pytest.mark.parametrize(
    ("n", "p95", "p99"), [(19, False, False), (20, True, False), (99, True, False), (100, True, True)]
)
def test_tails_need_observations(n: int, p95: bool, p99: bool) -> None:  # noqa: FBT001 a table of facts
    """p95 from 20 requests, p99 from 100, never below."""
    metrics = latency_metrics([trace(1.0 + i / n, 3.0 + i, request=i, window=i) for i in range(n)])
    assert ("ttft_p95_s" in metrics, "ttft_p99_s" in metrics) == (p95, p99)


def test_a_batch_is_one_observation() -> None:
    """Fifty copies of a batch's two gaps are two gaps: no p99 from them, and the same medians."""
    batch = [trace(0.5, 0.6, 0.8, request=i) for i in range(50)]
    metrics = latency_metrics(batch)
    assert "itl_p99_s" not in metrics
    assert metrics["itl_p50_s"] == pytest.approx(0.15)
    assert metrics["ttft_s"] == 0.5


def test_errors_never_enter_a_percentile() -> None:
    """A failed request is counted and nothing else, however it looks."""
    good = [trace(1.0, 2.0, request=i, window=i) for i in range(3)]
    metrics = latency_metrics([*good, trace(99.0, 990.0, error="reset"), trace()])
    assert metrics["failed_requests"] == 2
    assert {k: v for k, v in metrics.items() if k != "failed_requests"} == {
        k: v for k, v in latency_metrics(good).items() if k != "failed_requests"
    }


def test_nothing_observed_is_an_absent_key() -> None:
    """No traces, no metrics; only failures, only their count."""
    assert latency_metrics([]) == {}
    assert latency_metrics([trace(error="refused")]) == {"failed_requests": 1.0}


def test_the_first_token_of_an_answer_comes_after_the_thoughts() -> None:
    """From due, like TTFT; one that thinks to its end has no answer, one without thoughts begins with its token."""
    thinks = RequestTrace(0, 0, 8, 1.0, 1.0, (1.5, 2.0, 3.0, 3.5), (1, 1, 1, 1), reasoning_tokens=2, answer_s=3.0)
    endless = RequestTrace(1, 0, 8, 1.0, 1.0, (1.5, 2.0), (1, 1), reasoning_tokens=2)
    plain = RequestTrace(2, 0, 8, 1.0, 1.0, (1.5, 2.25), (1, 1))
    failed = RequestTrace(3, 0, 8, 1.0, 1.0, (), (), "reset")

    metrics = latency_metrics([thinks, endless, plain, failed])
    assert metrics["answer_ttft_s"] == pytest.approx((2.0 + 0.5) / 2)
    assert metrics["ttft_s"] == pytest.approx(0.5)
    assert metrics["reasoning_tokens_mean"] == pytest.approx(4 / 3)
    assert metrics["answered_fraction"] == pytest.approx(2 / 3)
    assert not {"answer_ttft_s", "answered_fraction", "reasoning_tokens_mean"} & latency_metrics([plain]).keys()
    assert latency_metrics([endless])["answered_fraction"] == 0
    many = [
        RequestTrace(i, 0, 8, 0, 0, (1.0, 1.0 + i), (1, 1), reasoning_tokens=1, answer_s=1.0 + i) for i in range(20)
    ]
    assert latency_metrics(many)["answer_ttft_p95_s"] == pytest.approx(1 + 0.95 * 19)
