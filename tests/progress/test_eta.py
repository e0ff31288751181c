"""The time that is left, by hand-worked numbers."""

from __future__ import annotations

from bench.progress.eta import EtaEstimator, clock, duration

A, B = ("a", "load", "cpu"), ("b", "load", "cpu")
OTHER = ("c", "task", "cpu")
NOTHING: tuple[str, ...] = ()


def test_nothing_is_foretold_of_what_is_like_nothing_known() -> None:
    """No round was run yet, or none on this device."""
    eta = EtaEstimator([A, A, ("d", "load of a GPU", "cuda:0")])

    assert eta.expected_s(A) is None
    assert eta.remaining_s() is None
    eta.finish(A, 4.0)
    assert eta.remaining_s() is None


def test_a_round_takes_the_mean_of_its_own_cell() -> None:
    """Two rounds of 4 and 6 s: the third takes 5 s, whatever other cells took."""
    eta = EtaEstimator([A, A, A, B])
    eta.finish(A, 4.0)
    eta.finish(B, 100.0)
    eta.finish(A, 6.0)

    assert eta.expected_s(A) == 5.0
    assert eta.remaining_s() == 5.0


def test_a_cell_without_rounds_is_taken_for_the_closest_kind_that_has_some() -> None:
    """B is like A in its load (10 s), the other cell like both in its device alone ((10 + 20) / 2)."""
    eta = EtaEstimator([A, B, B, OTHER])
    eta.finish(A, 10.0)
    assert eta.remaining_s() == 10.0 + 10.0 + 10.0
    eta.finish(B, 20.0)

    assert eta.expected_s(B) == 20.0
    assert eta.expected_s(OTHER) == 15.0
    assert eta.remaining_s() == 20.0 + 15.0


def test_rounds_of_an_earlier_run_count() -> None:
    """A record's duration is known before the first round of this run."""
    eta = EtaEstimator([A, A])
    eta.add_recorded(A, 30.0)

    assert eta.remaining_s() == 60.0


def test_what_cannot_run_takes_no_time() -> None:
    """Two rounds of 8 s, one of a cell that is refused."""
    eta = EtaEstimator([A, NOTHING, A])
    eta.add_recorded(A, 8.0)
    eta.finish(NOTHING, 0.0)

    assert eta.expected_s(NOTHING) == 0.0
    assert eta.remaining_s() == 16.0


def test_what_failed_says_nothing_of_other_engines() -> None:
    """Its own cell is expected to fail as fast again; the same load elsewhere is not."""
    same, other = ("x hf", "hf/load", "load", "cpu"), ("x vllm", "vllm/load", "load", "cpu")
    eta = EtaEstimator([same, same, other])
    eta.finish(same, 0.5, failed=True)

    assert eta.expected_s(same) == 0.5
    assert eta.expected_s(other) is None


def test_seconds_are_written_as_a_clock_has_them() -> None:
    """Minutes and seconds, hours from the first on; below a minute with a decimal where it took that long."""
    assert [clock(s) for s in (0.4, 83, 3599.6, 3723)] == ["0:00", "1:23", "1:00:00", "1:02:03"]
    assert [duration(s) for s in (4.2, 59.94, 60.0)] == ["4.2 s", "59.9 s", "1:00"]
