"""What a person is told while a method runs on the demo model: its steps, from the first to the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.spec import Step
from tests.conftest import ROOT
from tests.quantize import in_environment

DEMO = ROOT / "models" / "demo"
_LAYERS = ("layer 1 of 5", "layer 3 of 5", "layer 5 of 5", "writing the artifact")
_LINEAR = ("loading: 47 of 47 tensors", "linear layer 1 of 35", "linear layer 35 of 35", "writing the artifact")
_FEW = {"samples": 2, "length": 64}
_CODE = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from bench.contract import phase, plugins
home, demo = map(Path, sys.argv[1:3])
def make(method, options, source, out):
    work = out.with_suffix(".work")
    for folder in (out, work):
        folder.mkdir()
    method.train(source, source, options, out, "cpu", work)
    return out
for name, (plugin, options) in json.loads(sys.argv[3]).items():
    os.environ[phase.VARIABLE] = str(home / f"{name}.txt")
    method, source = plugins.load(plugins.METHODS, plugin), demo
    options = method.Options(**options)
    if "hf" not in method.READS:
        gguf = plugins.load(plugins.METHODS, "gguf")
        source = make(gguf, gguf.Options(type="q8_0"), source, home / f"{name}-source")
    for step in method.prerequisites(options, "hf"):
        first = method.Options(**{**asdict(method.Options()), **step.options})
        source = make(method, first, source, home / f"{name}-first")
    make(method, options, source, home / name)
"""
# A method's options and the lines that are told, in that order, maybe with others between.
_STEPS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "none": ("none", {"dtype": "float32"}, ("0 of 10 MiB", "10 of 10 MiB")),
    "gptq": ("gptq", {**_FEW, "group_size": 32}, ("tokenizing the calibration text", "loading the model", *_LAYERS)),
    "awq": ("awq", {**_FEW, "group_size": 32}, ("layer 1 of 5 (searching the scales)", *_LAYERS[1:])),
    "autoawq": ("awq", {**_FEW, "group_size": 32, "backend": "autoawq"}, ("loading the model", *_LAYERS)),
    "nf4": ("bnb", {"type": "nf4"}, ("quantizing: 0 of 47 tensors", "quantizing: 47 of 47 tensors", _LAYERS[-1])),
    "torchao": ("torchao", {"dtype": "float32"}, _LINEAR),
    "torchao-static": (
        "torchao",
        {**_FEW, "scheme": "int8-static", "dtype": "float32"},
        ("calibrating: batch 1 of 1", *_LINEAR[1:]),
    ),
    "llmc-gptq": (
        "llmcompressor",
        {**_FEW, "group_size": 32},
        (
            *("loading: 47 of 47 tensors", "part 1 of 6 (calibrating)", "part 1 of 6 (propagating)"),
            *("part 6 of 6 (propagating)", "part 6 of 6", "writing the artifact", "packing: 35 of 35 linear layers"),
        ),
    ),
    "llmc-rtn": (
        "llmcompressor",
        {"scheme": "w8a8", "algorithm": "rtn", "smoothing": 0.0},
        ("packing: 0 of 35 linear layers", "packing: 35 of 35 linear layers"),
    ),
    "sparsegpt": ("sparsegpt", _FEW, ("part 1 of 6 (calibrating)", "part 6 of 6", "writing the artifact")),
    "wanda": ("wanda", _FEW, _LAYERS),
    "magnitude": ("magnitude", {}, _LINEAR),
    "structured": (
        "structured",
        {**_FEW, "share": 0.5},
        ("importance: 0 of 2 samples", "importance: 2 of 2 samples", "writing the artifact"),
    ),
    "structured-layers": (
        "structured",
        {**_FEW, "what": "layers", "share": 0.4, "importance": "loss"},
        ("importance: layer 1 of 5", "importance: layer 5 of 5", "writing the artifact"),
    ),
    "distill": (
        "distill",
        {"tokens": 256, "batch": 1, "length": 64},
        ("step 0 of 4", "step 4 of 4 (loss ", "writing the artifact"),
    ),
    "qat": ("qat", {"tokens": 256, "batch": 1, "length": 64}, ("step 0 of 4", "writing the artifact")),
    "gguf": (
        "gguf",
        {"type": "q4_k_m"},
        ("starting the converter", "converting: 10 of 10 MiB", "tensor 1 of 47", "tensor 47 of 47"),
    ),
    "gguf-imatrix": (
        "gguf",
        {**_FEW, "type": "q2_k", "imatrix": True},
        ("importance matrix: window 1 of 2", "importance matrix: window 2 of 2", "tensor 1 of 47", "tensor 47 of 47"),
    ),
    "sensitivity": (
        "sensitivity",
        {"choices": "q4_0,q8_0", "tokens": 32, "length": 16},
        ("tokenizing the calibration text", "the unquantized model's", "layer 1 of 70", "layer 70 of 70"),
    ),
    "rotate": ("rotate", {}, ("loading: 0 of 47 tensors", "loading: 47 of 47 tensors", "writing the artifact")),
    "dequantize": (
        "dequantize",
        {},
        ("tensor 1 of 47", "tensor 47 of 47", "writing the model", "comparing with llama.cpp"),
    ),
    "onnx": (
        "onnx",
        {"precision": "int4"},
        ("starting the model builder", *_LAYERS[:3], "packing and writing the model"),
    ),
    "onnx-dynamic": ("onnx", {"precision": "int8_dynamic"}, (*_LAYERS[:3], "reading the fp32 model", "node 1 of")),
    "openvino": (
        "openvino",
        {"type": "int8"},
        (
            *("loading the model", "tracing the graph, which has no steps"),
            *("weight 1 of 36", "weight 36 of 36", "writing the artifact"),
        ),
    ),
}


def _env(method: str, options: dict[str, Any]) -> str:
    return plugins.step_env(Step(method, vars(plugins.load(plugins.METHODS, method).Options(**options))))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The lines of one of _STEPS by its name; all that share an environment are made in one process of it."""
    home, ready = tmp_path_factory.mktemp("steps"), set[str]()

    def lines(name: str) -> list[str]:
        env = _env(*_STEPS[name][:2])
        if env not in ready:
            ready.add(env)
            cases = {n: case[:2] for n, case in _STEPS.items() if _env(*case[:2]) == env}
            in_environment.run(env, home, _CODE, str(home), str(DEMO), json.dumps(cases))
        return [line.partition("\t")[0] for line in (home / f"{name}.txt").read_text().splitlines()]

    return lines


@pytest.mark.engine
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.needs(_env(*step[:2]))) for name, step in _STEPS.items()]
)
def test_a_method_tells_its_steps_to_the_last(name: str, written: Callable[[str], list[str]]) -> None:
    """By the library's own callbacks, bars or log: another release that has them elsewhere fails here."""
    expected, lines = _STEPS[name][2], written(name)
    remaining = iter(lines)
    for text in expected:
        assert any(line.startswith(text) for line in remaining), f"{text!r} is not told, or not there: {lines}"


def test_every_method_is_among_them() -> None:
    """A new method comes with its steps; `allocation` has one alone, and reads what `sensitivity` wrote."""
    assert {"allocation", *(method for method, _, _ in _STEPS.values())} == set(plugins.names(plugins.METHODS))
