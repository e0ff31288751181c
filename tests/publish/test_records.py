"""Records by device and suite: in which order they are shown."""

from __future__ import annotations

from bench.contract.record import Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Task
from bench.publish.records import gather

_HARDWARE = Hardware("cpu", "cpu-x", "x", 2**34, "x", 2, 2**34, (), "float32", "Linux")


def test_the_largest_model_is_shown_first_and_dummy_weights_last() -> None:
    """Suites of one model by their names; a device's suites stay together."""
    results = [
        _result("b", "models/demo", 5),
        _result("small-chain", "models/demo", 5),
        _result("a", "models/demo", 5),
        _result("shape", "shape:smollm2-135m", 900),
        _result("real", "org/model", 135),
        _result("larger", "org/other", 270),
    ]

    assert [suite for _, suite in gather(results).results] == ["larger", "real", "a", "b", "small-chain", "shape"]


def _result(suite: str, model: str, parameters: int) -> Result:
    audit = Audit("hf", 1, 1, parameters, 1, 1, 32.0, 0.0, tied_head=False, vocab_size=8, context=16)
    cell = Cell(Model(model), Recipe("baseline"), EngineSpec("hf"), "cpu", task=Task("perplexity", {}, "p"))
    return Result("d", suite, cell, 0, "ok", _HARDWARE, artifact=Artifact("a", "hf", "m", (), audit))
