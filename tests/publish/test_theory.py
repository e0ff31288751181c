"""What theory says of the techniques, in the records that are committed: nothing runs here.

`python -m bench run` of configs/techniques.yaml, pruned.yaml and libraries.yaml made them. A margin says how
far a result may be on the wrong side before theory is in doubt.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.publish.tables import build
from bench.publish.tables.model import Row
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"
_EQUAL = 1.005  # of two perplexities that are to be in an order
_FASTER = 0.85  # of the baseline's TPOT: faster below, not so above; rounds spread by up to a third here
_ENGINES = {"hf": "", "vllm": "", "llamacpp": "-gguf-f16", "onnxruntime": "-onnx-fp32", "openvino": "-openvino-fp32"}


def _rows(suite: str) -> dict[tuple[str, str], Row]:
    results = [result for result in Store(RESULTS).all() if result.suite == suite]
    assert results, f"no records of {suite} are committed"
    return {(row.recipe, row.engine): row for row in build.build(results).rows}


@pytest.fixture(scope="module")
def techniques() -> dict[tuple[str, str], Row]:
    return _rows("techniques")


@pytest.fixture(scope="module")
def pruned() -> dict[tuple[str, str], Row]:
    return _rows("pruned")


def _perplexity(rows: dict[tuple[str, str], Row], recipe: str) -> float:
    tasks = rows[recipe, "hf"].tasks
    return next(t.figures["perplexity"].median for t in tasks.values() if "perplexity" in t.figures)


def _tpot(rows: dict[tuple[str, str], Row], recipe: str, engine: str) -> float:
    (load,) = rows[recipe, engine].workloads.values()
    return load.figures["tpot_s"].median


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("wanda-50", "magnitude-50"),
        ("wanda-50", "wanda-2of4"),
        ("sparsegpt-50", "magnitude-50"),
        ("qat-int4-intx", "torchao-int4-intx"),
        ("heads-50-distilled", "heads-50-tuned"),
        ("magnitude-50-distilled", "magnitude-50"),
        ("wanda-2of4-distilled", "wanda-2of4"),
        ("heads-50-distilled", "heads-50"),
        ("neurons-25-distilled", "neurons-25"),
        ("layers-25-distilled", "layers-25"),
        ("baseline", "wanda-50"),
    ],
)
def test_the_better_way_has_no_more_perplexity(techniques: dict[tuple[str, str], Row], better: str, worse: str) -> None:
    """Activations tell which weights matter; a free choice of zeros beats a pattern; training mends.

    And rounding that was trained for, and a teacher's distribution against the text alone, at equal budgets.
    """
    assert _perplexity(techniques, better) <= _EQUAL * _perplexity(techniques, worse)


@pytest.mark.parametrize(("ours", "theirs"), [("gptq-w4g128", "llmc-w4a16"), ("awq-w4g128", "awq-w4g128-autoawq")])
def test_two_libraries_make_the_same_of_one_scheme(ours: str, theirs: str) -> None:
    """The same calibration text, bits and groups: perplexities within the margin of each other."""
    rows = _rows("libraries")

    assert _perplexity(rows, theirs) == pytest.approx(_perplexity(rows, ours), rel=_EQUAL - 1)


def test_equal_bits_are_compared(techniques: dict[tuple[str, str], Row]) -> None:
    """QAT's artifact has the bits per weight of the one that was only rounded."""
    bits = {name: techniques[name, "hf"].size("bits_per_weight") for name in ("qat-int4-intx", "torchao-int4-intx")}

    assert len(set(bits.values())) == 1


def test_distillation_keeps_the_zeros(techniques: dict[tuple[str, str], Row]) -> None:
    """Half of the weights are zero before and after, and two of each four where that was the pattern."""
    for name in ("magnitude-50", "wanda-50", "sparsegpt-50", "wanda-2of4"):
        for recipe in (name, f"{name}-distilled"):
            assert techniques[recipe, "hf"].size("zero_fraction") == pytest.approx(0.5, abs=1e-3)
    assert techniques["wanda-2of4-distilled", "hf"].size("two_of_four_fraction") == 1.0


@pytest.mark.parametrize("engine", _ENGINES)
def test_a_model_with_fewer_layers_is_faster_in_every_engine(pruned: dict[tuple[str, str], Row], engine: str) -> None:
    """Three of five layers: a decode step takes less than the whole model's, beyond the margin."""
    end = _ENGINES[engine]
    whole = _tpot(pruned, end.removeprefix("-") or "baseline", engine)

    assert _tpot(pruned, f"layers-40{end}", engine) <= _FASTER * whole


@pytest.mark.parametrize("engine", _ENGINES)
def test_unstructured_zeros_make_nothing_faster(pruned: dict[tuple[str, str], Row], engine: str) -> None:
    """Every engine multiplies by them: a step takes what it took, within the margin."""
    end = _ENGINES[engine]
    whole = _tpot(pruned, end.removeprefix("-") or "baseline", engine)

    assert _tpot(pruned, f"magnitude-50{end}", engine) >= _FASTER * whole
