"""Predictions for GPUs that are not here: their bounds worked out by hand, and never among the measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.publish import predictions
from bench.run import predict
from bench.run.predict import CalibrationSet
from bench.store import Store
from bench.suite import config

RESULTS = Path(__file__).resolve().parents[2] / "results"

_NOTHING = CalibrationSet((), (), (), on_gpu=False)
_LOAD = {"batch": 8, "prompt_tokens": 512, "new_tokens": 128}


def _cells(gpu: str, measured: CalibrationSet = _NOTHING, **more: object) -> dict[str, predict.Prediction]:
    """Predictions by recipe and engine."""
    suite = config.suite(
        {
            "name": "s",
            "model": "shape:llama-3.2-1b",
            "recipes": ["baseline", "gguf-q8_0"],
            "engines": ["hf", "llamacpp"],
            "workloads": [_LOAD],
            **more,
        }
    )
    result = predict.predict(suite, gpu, measured)
    return {f"{p.cell.recipe.name} {p.cell.engine.name}": p for p in result}


def test_the_bound_is_what_the_data_sheet_allows() -> None:
    """Llama-3.2-1B in bfloat16 on an L4, 300 GB/s and 121 TFLOP/s, by hand."""
    result = _cells("l4")["baseline hf"]
    weights = 2 * (16 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 8192 * 2048) + 128256 * 2048)
    kv_bytes = 8 * (512 + 64) * 2 * 16 * 8 * 64 * 2
    prompt = 8 * (2 * ((weights / 2 - 128256 * 2048) * 512 + 128256 * 2048) + 4 * 16 * 32 * 64 * 512 * 513 / 2)

    assert result.reason == ""
    assert result.least_tpot_s == pytest.approx((weights + kv_bytes) / 300e9, rel=1e-3)
    assert result.least_ttft_s == pytest.approx(prompt / 121e12, rel=1e-3)
    assert (result.ttft_s, result.tpot_s, result.output_tok_per_s()) == (None, None, None)
    rate = result.output_tok_per_s(least=True)
    assert rate == pytest.approx(8 * 128 / (prompt / 121e12 + 127 * (weights + kv_bytes) / 300e9), rel=1e-3)


def test_what_does_not_fit_or_run_there_says_so() -> None:
    """16 bits of a 7B model exceed 11 GB; a T4 has no bfloat16, and is given float16."""
    too_large = _cells("rtx-2080-ti", model="shape:qwen2.5-7b")
    t4 = _cells("t4")

    assert too_large["baseline hf"].reason.startswith("needs about 14.")
    assert too_large["gguf-q8_0 llamacpp"].reason == ""
    assert t4["baseline hf"].cell.engine.options["dtype"] == "float16"


def test_what_cannot_be_predicted_is_one_sentence() -> None:
    """A GPU that is none, and a suite of servers alone."""
    with pytest.raises(UserError, match="did you mean 'l4'"):
        _cells("l5")
    with pytest.raises(UserError, match="no offline cell"):
        _cells("l4", workloads=[{"kind": "closed", "prompt_tokens": 512, "new_tokens": 128}])


@pytest.fixture(scope="module")
def measured() -> CalibrationSet:
    """What the committed records of a shape of 135 M parameters on a CPU tell."""
    return predict.calibration_set(Store(RESULTS).all("*/shape/*"))


def test_cpu_cells_that_were_left_out_are_predicted_from_the_others(measured: CalibrationSet) -> None:
    """Within half for most of them; the error is printed beside every prediction."""
    lines = list(predictions.caveats(measured, "l4"))

    assert len(measured.steps) >= 8
    assert not measured.on_gpu
    assert measured.step_error is not None
    assert 0 < measured.step_error.median < 0.5
    assert any(line.startswith("Error of TPOT") for line in lines)
    assert any(line.startswith("No GPU was measured") for line in lines)


def test_a_prediction_is_no_faster_than_its_bound_and_says_whose_law_it_is_by(measured: CalibrationSet) -> None:
    """In the text and for programs; a word in each heading keeps it apart from what was measured."""
    result = _cells("h100-sxm", measured)
    sections, reasons = predictions.sections(list(result.values()))
    plain = wire.plain(predictions.as_json(list(result.values()), measured, "h100-sxm"))

    assert reasons == []
    for one in result.values():
        assert one.tpot_s is not None
        assert one.least_tpot_s is not None
        assert one.tpot_s >= one.least_tpot_s
    assert all(section.title.startswith("predicted, not measured") for section in sections)
    assert {line[-1].partition(" (")[0] for section in sections for line in section.lines} <= {
        "hf hf",
        "llamacpp gguf",
        "hf",
        "llamacpp",
        "all engines",
    }
    assert len(plain["predicted"]) == 2
    assert plain["tpot_error_fraction"] == list((measured.step_error or ())[:2])
