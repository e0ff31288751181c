"""Whether compression is faster, by batch: worked out by hand."""

from __future__ import annotations

import pytest

from bench.measure.stats import Spread
from bench.publish.tables.model import CellSummary, Row
from bench.publish.tables.speedup import sections, verdict


def rates(*values: float, n: int = 3, spread: float = 0.01) -> dict[int, Spread]:
    """Tokens per second at batches of 1, 8 and 64."""
    batches = zip((1, 8, 64), values, strict=False)
    return {b: Spread(v, v * (1 - spread), v * (1 + spread), spread, n) for b, v in batches}


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        ((200.0, 1200.0, 4000.0), "faster at every batch"),
        ((50.0, 400.0, 1600.0), "slower at every batch"),
        ((100.0, 800.0, 3200.0), "no difference at every batch"),
        # x2 at 8 and x0.5 at 64 are as far from even: their geometric mean, the root of 512.
        ((300.0, 1600.0, 1600.0), "up to about batch 23"),
        ((200.0, 800.0, 3200.0), "faster at 1; no difference at 8, 64"),
        ((50.0, 800.0, 6400.0), "faster at 64; no difference at 8; slower at 1"),
        ((200.0,), "\N{EN DASH}"),
    ],
)
def test_where_it_turns(mine: tuple[float, ...], words: str) -> None:
    """Against 100, 800 and 3,200 tokens per second."""
    assert verdict(rates(*mine), rates(100.0, 800.0, 3200.0)) == words


def test_single_rounds_differ_by_more_than_a_twentieth() -> None:
    """One round says nothing of noise."""
    base = rates(100.0, 800.0, n=1, spread=0.0)

    assert verdict(rates(104.0, 832.0, n=1, spread=0.0), base) == "no difference at every batch"
    assert verdict(rates(106.0, 848.0, n=1, spread=0.0), base) == "faster at every batch"


def test_each_engine_has_its_own_unquantized_model() -> None:
    """GGUF is compared with an f16 file in llama.cpp, since the baseline has no row there."""

    def row(recipe: str, engine: str, rate: float, *, baseline: bool = False, whole: bool = False) -> Row:
        loads = {
            f"b{b}": CellSummary("ok", rounds=3, figures={"output_tok_per_s": figure}, sizes=(b, 512, 128))
            for b, figure in rates(rate, 8 * rate).items()
        }
        return Row("gpu", "s", "m", recipe, engine, baseline, None, {}, loads, whole=whole)

    rows = [
        row("baseline", "hf", 100, baseline=True, whole=True),
        row("nf4", "hf", 50),
        row("gguf-f16", "llamacpp", 200, whole=True),
        row("gguf-q4_k_m", "llamacpp", 500),
    ]
    (result,) = sections(rows)

    assert result.heads == ("recipe", "engine", "batch 1", "batch 8", "faster?")
    assert result.lines == (
        ("nf4", "hf", "0.500", "0.500", "slower at every batch"),
        ("gguf-q4_k_m", "llamacpp", "2.50", "2.50", "faster at every batch"),
    )
