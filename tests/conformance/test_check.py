"""Architectures through real libraries and engines: what a person would be shown."""

from __future__ import annotations

import pytest

from bench.conformance import check
from bench.progress.progress import Progress

pytestmark = [pytest.mark.engine, pytest.mark.slow]
_ONNX, _LLAMACPP = pytest.mark.needs("hf", "onnx"), pytest.mark.needs("hf", "llamacpp")


@pytest.mark.parametrize(
    ("name", "recipe", "engine"),
    [
        pytest.param(*("gemma3", "onnx-fp32", "onnxruntime"), marks=_ONNX),  # two rotary bases, windows
        pytest.param(*("mistral", "onnx-fp32", "onnxruntime"), marks=_ONNX),  # a window in every layer
        # a tokenizer of SentencePiece, weights as inputs x outputs
        pytest.param(*("gpt2", "gguf-f16", "llamacpp"), marks=_LLAMACPP),
    ],
)
def test_an_architecture_works(name: str, recipe: str, engine: str) -> None:
    """Its logits are Transformers' own on a text longer than its windows, and it generates by them."""
    with Progress(quiet=True) as progress:
        checked = check.check([name], progress, only=recipe, engine=engine)

    (verdict,) = checked.verdicts
    assert (verdict.status, verdict.reason) == ("works", "")
    assert verdict.kl is not None
    assert verdict.kl < 1e-3


@pytest.mark.needs("hf")
def test_what_is_unsupported_has_its_reason() -> None:
    """One sentence of the plan's, and nothing is run."""
    with Progress(quiet=True) as progress:
        (verdict,) = check.check(["opt"], progress, only="gguf-f16", engine="llamacpp").verdicts

    assert verdict.status == "unsupported"
    assert verdict.reason == "llama.cpp's converter does not know the architecture OPTForCausalLM"


@pytest.mark.needs("hf", "llamacpp")
def test_a_cell_that_is_recorded_is_not_run_again() -> None:
    """The second time takes no worker: the record's digest is the plan's."""
    with Progress(quiet=True) as progress:
        first = check.check(["llama"], progress, only="gguf-f16", engine="llamacpp")
    with Progress(quiet=True) as progress:
        again = check.check(["llama"], progress, only="gguf-f16", engine="llamacpp", run=False)

    assert again.verdicts == first.verdicts
    assert again.verdicts[0].status == "works"
