"""The gguf method: what it refuses beforehand, and what it says when the converter does not know a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from bench.contract.record import Hardware, Source
from bench.contract.spec import Recipe, Step
from bench.run import artifacts
from quantize.backends import gguf_converter, llama_cpp
from quantize.methods import gguf
from tests.conftest import ROOT, json_of

CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")
_APPLY = """
import sys
from pathlib import Path
from bench.contract.errors import UserError
from quantize.methods import gguf
try:
    gguf.apply(Path(sys.argv[1]), gguf.Options(type=sys.argv[3]), Path(sys.argv[2]), "cpu")
except UserError as error:
    print(error)
"""


def test_a_quantized_type_is_made_from_the_f16_file() -> None:
    """An hf model gets one step in front, the same for every type; 16 bits and GGUF sources get none."""
    for kind in ("q4_k_m", "q8_0"):
        steps = artifacts.steps_for(Recipe(kind, (Step("gguf", {"type": kind}),)), CPU, "hf")
        assert [step.options["type"] for step in steps] == ["f16", kind]
    assert gguf.prerequisites(gguf.Options(type="f16"), "hf") == ()
    assert gguf.prerequisites(gguf.Options(type="q4_k_m"), "gguf") == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (gguf.Options(type="iq2_xs"), "worthless without an importance matrix"),
        (gguf.Options(type="f16", imatrix=True), "no effect on f16"),
        (gguf.Options(type="q2_k", imatrix=True, length=4096), "longer than the model's context of 1024"),
    ],
)
def test_what_makes_no_sense_is_unsupported(options: gguf.Options, words: str) -> None:
    """Known from the options and the config, before anything is run."""
    source = Source("hf", {}, {"max_position_embeddings": 1024})

    assert words in (gguf.unsupported(options, source, CPU) or "")


@pytest.mark.engine
def test_an_unknown_architecture_is_named(llamacpp_python: Path, tmp_path: Path) -> None:
    """The sentence names the architecture that the converter does not know."""
    folder = _demo(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["ZorgonForCausalLM"]}))

    assert (
        _said(llamacpp_python, folder, "f16")
        == "llama.cpp's converter does not know the architecture ZorgonForCausalLM"
    )


@pytest.mark.engine
def test_an_unknown_tokenizer_is_named(llamacpp_python: Path, tmp_path: Path) -> None:
    """A BPE tokenizer of one's own, without a SentencePiece model, is refused by its hash."""
    folder = _demo(tmp_path)
    (folder / "tokenizer.model").unlink()
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["def f(x):"], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')

    reason = _said(llamacpp_python, folder, "f16")
    assert reason.startswith("llama.cpp's converter does not know this BPE tokenizer (its pre-tokenizer hash is ")
    assert len(reason.splitlines()) == 1


@pytest.mark.engine
def test_a_quantized_file_is_not_quantized_again(llamacpp_python: Path, tmp_path: Path) -> None:
    """Rounding what was rounded is refused by the library; its reason is the sentence."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert _said(llamacpp_python, _demo(tmp_path), "q8_0", once) == ""
    assert _said(llamacpp_python, once, "q4_0", twice) == (
        "llama.cpp cannot quantize to q4_0: failed to quantize: requantizing from type q8_0 is disabled"
    )


def _demo(tmp_path: Path) -> Path:
    skipped = shutil.ignore_patterns("*.py", "*.csv", "__pycache__")
    return Path(shutil.copytree(ROOT / "models/demo", tmp_path / "model", ignore=skipped))


def _said(python: Path, folder: Path, kind: str, out: Path | None = None) -> str:
    """The method's sentence, or nothing when it succeeds."""
    out = out or folder.parent / "out"
    out.mkdir()
    done = subprocess.run(
        [python, "-c", _APPLY, str(folder), str(out), kind],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.strip()


def test_the_converter_gets_the_names_that_it_asks_for() -> None:
    """From what Transformers 5 states under others; what a config states itself stays."""
    gpt2 = gguf_converter.with_older_names({"model_type": "gpt2", "n_positions": 1024})
    neox = gguf_converter.with_older_names({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}})

    assert gpt2["n_ctx"] == 1024
    assert neox["rotary_pct"] == 0.25
    assert "n_ctx" not in neox
    assert gguf_converter.with_older_names({"n_ctx": 512, "n_positions": 1024})["n_ctx"] == 512
    assert gguf_converter.with_older_names({"rope_parameters": None}) == {"rope_parameters": None}


def test_a_setting_that_no_one_states_is_named() -> None:
    """The converter's KeyError is a sentence that says what to add, and where."""
    log = "INFO:x:Loading\nTraceback (most recent call last):\n  File x\nKeyError: 'rotary_pct'\n"

    assert llama_cpp._conversion_error(log) == (
        "llama.cpp's converter asks for rotary_pct, which the model's config.json does not state: add it there"
    )


@pytest.mark.engine
def test_what_transformers_5_saves_computes_the_same_in_llama_cpp(llamacpp_python: Path, tmp_path: Path) -> None:
    """GPT-2 without n_ctx, and GPT-NeoX with a rotary share and a base of its own: Transformers' logits, to 3 %."""
    differences = json_of(llamacpp_python, "quantize/gguf_checks.py", cwd=tmp_path, variables={"HF_HUB_OFFLINE": "1"})
    assert set(differences) == {"gpt2", "gpt_neox", "llama"}
    assert all(difference < 0.03 for difference in differences.values()), differences
