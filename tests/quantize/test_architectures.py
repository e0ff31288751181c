"""Architectures that a library does not know are refused before anything is run; its table is the library's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.record import Hardware, Source
from bench.envs import environment
from quantize.backends import architectures
from quantize.methods import llmcompressor

_CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")


def _reason(method: str, **config: Any) -> str | None:
    plugin = plugins.load(plugins.METHODS, method)
    reason: str | None = plugin.unsupported(plugin.Options(), Source("hf", {}, config), _CPU)
    return reason


def test_an_unknown_architecture_is_named_with_the_library() -> None:
    """In a plan, not after half an hour in a record that failed."""
    assert _reason("gguf", architectures=["OPTForCausalLM"]) == (
        "llama.cpp's converter does not know the architecture OPTForCausalLM"
    )
    assert _reason("onnx", architectures=["MambaForCausalLM"]) == (
        "onnxruntime-genai's model builder does not know the architecture MambaForCausalLM"
    )


def test_what_is_known_or_not_said_is_tried() -> None:
    """A config.json without architectures is the library's to judge."""
    assert _reason("gguf", architectures=["MambaForCausalLM"]) is None
    assert _reason("onnx", architectures=["LlamaForCausalLM"], hidden_size=256) is None
    assert _reason("gguf") is None


@pytest.mark.engine
@pytest.mark.needs("llamacpp")
def test_llama_cpps_table_is_its_converters() -> None:
    """TEXT_MODEL_MAP of the converter's package."""
    text = _file("llamacpp", "share/llama-cpp-python/conversion/__init__.py").read_text()
    entry = next(n for n in ast.parse(text).body if isinstance(n, ast.AnnAssign) and "TEXT_MODEL_MAP" in ast.dump(n))
    assert entry.value is not None

    assert architectures.known("llama.cpp's converter") == set(ast.literal_eval(entry.value))


@pytest.mark.engine
@pytest.mark.needs("onnx")
def test_the_model_builders_table_is_its_dispatch() -> None:
    """Every name that the builder compares `architectures` with."""
    text = _file("onnx", "lib/python3.11/site-packages/onnxruntime_genai/models/builder.py").read_text()

    names = set(re.findall(r'config\.architectures\[0\] == "(\w+)"', text))
    assert architectures.known("onnxruntime-genai's model builder") == names


def _file(env: str, path: str) -> Path:
    prefix = Path(environment.ensure(env, print).python).parents[1]
    return next(prefix.glob(path.replace("python3.11", "python3*")))


@pytest.mark.parametrize("method", ["torchao", "llmcompressor", "awq"])
def test_layers_that_a_library_does_not_look_for_are_told_before(method: str) -> None:
    """GPT-2's are Conv1D: each library left them, or failed at the first one."""
    assert "has Conv1D in its place" in (_reason(method, model_type="gpt2") or "")
    assert _reason(method, model_type="llama") is None


@pytest.mark.parametrize("kind", ["olmo2", "olmo3", "exaone4"])
def test_scales_have_no_norm_to_go_into_where_norms_stand_behind(kind: str) -> None:
    """What attention and MLP read there is the sum itself."""
    source, smoothed = Source("hf", {}, {"model_type": kind}), llmcompressor.Options(scheme="w8a8")
    for reason in (_reason("awq", model_type=kind), llmcompressor.unsupported(smoothed, source, _CPU)):
        assert "has its norms behind them" in (reason or "")
    assert _reason("llmcompressor", model_type=kind) is None


def test_awq_of_a_model_whose_activation_it_would_scale_is_unsupported() -> None:
    """What is written has tensors that Transformers has no module for."""
    assert "no engine here loads" in (_reason("awq", model_type="gpt_neox") or "")
