"""Predictions: a law that holds is found again, and what is left out tells how far off it is."""

from __future__ import annotations

import numpy as np
import pytest

from bench.measure.predict import Sample, error, fit, hold_out


def cells(per_layer_s: float, factor: float, engine: str = "hf", format_: str = "hf") -> list[Sample]:
    """Times that obey a law exactly, of models of 5, 16 and 30 layers."""
    least = ((5, 0.001), (16, 0.004), (30, 0.010), (30, 0.050))
    return [Sample(engine, format_, n, s, per_layer_s * n + factor * s) for n, s in least]


def test_a_law_is_found_again() -> None:
    """20 µs a layer and an efficiency of one half, to rounding; a bandwidth-bound step and an idle one."""
    model = fit(cells(20e-6, 2.0), "hf", "hf")

    assert model is not None
    assert (model.per_layer_s, model.factor) == pytest.approx((20e-6, 2.0))
    assert model.time_s(0.008, 28) == pytest.approx(28 * 20e-6 + 0.016)
    assert (model.of, model.cells) == ("hf hf", 4)


def test_the_nearest_cells_that_suffice_are_taken() -> None:
    """Format, engine, all: three cells at the least, and none of another law where there are three."""
    known = [*cells(0.0, 2.0, "hf", "hf"), *cells(0.0, 4.0, "hf", "bnb")[:2], *cells(0.0, 1.2, "vllm", "hf")]
    of = {
        (e, f): model.of
        for e, f in (("hf", "hf"), ("hf", "bnb"), ("vllm", "hf"), ("llamacpp", "gguf"))
        if (model := fit(known, e, f))
    }

    assert of == {
        ("hf", "hf"): "hf hf",
        ("hf", "bnb"): "hf",
        ("vllm", "hf"): "vllm hf",
        ("llamacpp", "gguf"): "all engines",
    }
    assert fit(known[:2], "hf", "hf") is None


def test_nothing_is_below_zero() -> None:
    """Where steps of more layers take less, the overhead is nothing and the factor alone is fitted."""
    odd = [
        Sample("hf", "hf", 30, 0.010, 0.020),
        Sample("hf", "hf", 5, 0.010, 0.022),
        Sample("hf", "hf", 10, 0.005, 0.012),
    ]
    model = fit(odd, "hf", "hf")

    assert model is not None
    assert model.per_layer_s == 0.0
    assert model.factor == pytest.approx(2.19, abs=0.02)


def test_the_error_is_of_cells_the_fit_has_not_seen() -> None:
    """Nothing where the law holds; one cell that is twice as slow is seen to be off by half."""
    exact = cells(20e-6, 2.0)
    slow = Sample("hf", "hf", 16, 0.004, 2 * exact[1].took_s, "slow")

    spread = error(hold_out(exact))
    assert spread is not None
    assert spread.p90 is None
    assert (spread.median, spread.largest) == pytest.approx((0.0, 0.0), abs=1e-9)
    off = {sample.name: fraction for sample, fraction in hold_out([*exact, slow])}
    assert off["slow"] == pytest.approx(-0.5)
    assert error(hold_out(exact[:2])) is None


@pytest.mark.parametrize("count", [3, 9, 10, 11, 40])
def test_a_90th_percentile_needs_ten_cells(count: int) -> None:
    """Below them it would be the largest; from them on it is NumPy's, and never the largest."""
    sample = Sample("e", "hf", 4, 0.01, 1.0)
    errors = [0.01 * (i + 1) for i in range(count)]

    spread = error([(sample, (-1) ** i * size) for i, size in enumerate(errors)])

    assert spread is not None
    assert (spread.median, spread.largest) == pytest.approx((np.median(errors), errors[-1]))
    assert spread.p90 == (pytest.approx(np.percentile(errors, 90)) if count >= 10 else None)
    assert spread.p90 is None or spread.p90 < spread.largest
