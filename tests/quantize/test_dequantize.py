"""A quantized GGUF file as a model: its weights, its tokenizer and its settings, checked against llama.cpp."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.contract.spec import Recipe, Step
from bench.machine import hardware as machine
from bench.run import artifacts
from tests.conftest import ROOT
from tests.quantize import in_environment

_DEMO = ROOT / "models" / "demo"

_QUANTIZE = """
import sys
from pathlib import Path
from quantize.methods import gguf
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
for kind in ("f16", "q4_0"):
    (out / kind).mkdir()
    gguf.apply(folder, gguf.Options(type=kind), out / kind, "cpu")
    folder = out / kind
"""

# Another file of the same tensors and these settings, as the package gguf's own script writes it.
_RESET = """
import json
import sys
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
reader, out, new = GGUFReader(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
kinds = {str: GGUFValueType.STRING, float: GGUFValueType.FLOAT32, int: GGUFValueType.UINT32}
writer = GGUFWriter(out, new.pop("general.architecture", "llama"), endianess=reader.endianess)
details = {key: MetadataDetails(kinds[type(value)], value) for key, value in new.items()}
copy_with_new_metadata(reader, writer, details, [])
"""

_DEQUANTIZE = """
import json
import sys
from pathlib import Path
from bench.contract.errors import UserError
from quantize.methods import dequantize
out = Path(sys.argv[2])
out.mkdir()
try:
    answer = dequantize.apply(Path(sys.argv[1]), dequantize.Options(), out, "cpu")
except UserError as error:
    answer = str(error)
print("RESULT" + json.dumps(answer))
"""

_COMPARE = """
import json
import sys
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import load_file
stored = {t.name: t for t in GGUFReader(sys.argv[1]).tensors}
written = load_file(sys.argv[2] + "/model.safetensors")
pairs = {
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
    "token_embd.weight": "model.embed_tokens.weight",
}
equal = all(
    np.array_equal(dequantize(stored[a].data, stored[a].tensor_type), written[b]) for a, b in pairs.items()
)
print("RESULT" + json.dumps(equal))
"""

_ENCODE = """
import json
import sys
from transformers import AutoTokenizer
texts = json.loads(sys.argv[2])
print("RESULT" + json.dumps([AutoTokenizer.from_pretrained(sys.argv[1]).encode(text) for text in texts]))
"""

_BACK = """
import json
import sys
from pathlib import Path
from gguf import GGUFReader
from quantize.methods import gguf
out = Path(sys.argv[2])
out.mkdir()
gguf.apply(Path(sys.argv[1]), gguf.Options(type="f16"), out, "cpu")
def vocabulary(file):
    return {f.name: f.contents() for f in GGUFReader(file).fields.values() if f.name.startswith("tokenizer.")}
print("RESULT" + json.dumps(vocabulary(out / "model.gguf") == vocabulary(sys.argv[3])))
"""


def test_a_step_that_reads_no_gguf_comes_after_dequantize() -> None:
    """And one that reads it does not; nor does any step of another model."""
    for method, source, expected in (
        ("none", "gguf", ["dequantize", "none"]),
        ("gguf", "gguf", ["gguf"]),
        ("none", "hf", ["none"]),
        ("none", "gptq", ["none"]),
    ):
        steps = artifacts.steps_for(Recipe("r", (Step(method, {}),)), machine.detect("cpu"), source)
        assert [step.method for step in steps] == expected


def test_a_plan_knows_the_layers_of_the_folder_to_come() -> None:
    """What the file calls `output` is the head by a name that methods know; widths are the file's."""
    from bench.contract.record import Source
    from quantize.methods import dequantize

    source = Source("gguf", {"blk.0.attn_q": (64, 64), "output": (256, 64)}, {"vocab_size": 256})

    written = dequantize.output_source(dequantize.Options(), source)

    assert written.format == "hf"
    assert written.linears == {"blk.0.attn_q": (64, 64), "lm_head": (256, 64)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`q4_0/model.gguf`, and `folder`, dequantized, with what was recorded in `facts.json`."""
    home = tmp_path_factory.mktemp("dequantize")
    in_environment.run("llamacpp", home, _QUANTIZE, str(_DEMO), str(home))
    answer = _dequantized(home, home / "q4_0" / "model.gguf", "folder")
    (home / "facts.json").write_text(answer)
    return home


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_the_weights_are_the_files(home: Path) -> None:
    """To the bit, in float32, as the format's own library dequantizes them."""
    file = home / "q4_0" / "model.gguf"

    assert in_environment.run("llamacpp", home, _COMPARE, str(file), str(home / "folder")).strip() == "true"
    assert json.loads((home / "facts.json").read_text())["source_type"] == "Q4_0"


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_it_predicts_as_llama_cpp_does_on_the_file(home: Path) -> None:
    """Up to llama.cpp's 8-bit activations."""
    facts = json.loads((home / "facts.json").read_text())

    assert 0 < facts["kl_from_llama_cpp"] < 0.01
    assert facts["compared_tokens"] > 200


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_the_tokenizer_cuts_text_as_the_models_own(home: Path) -> None:
    """On text that is hard to cut."""
    texts = json.dumps(["Hello  world\n\n\tx = 1_000", "naïve ﬁ ½ ² \u3000 😀\r\n", "</s> <s>", ""])
    folders = [home / "folder", _DEMO]

    ids = [json.loads(in_environment.run("llamacpp", home, _ENCODE, str(f), texts)) for f in folders]

    assert ids[0] == ids[1]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_back_in_gguf_it_has_the_vocabulary_of_the_file(home: Path) -> None:
    """Key by key: the converter is given it, and works none out of tokenizer.json."""
    file = str(home / "q4_0" / "model.gguf")

    answer = in_environment.run("llamacpp", home, _BACK, str(home / "folder"), str(home / "back"), file)

    assert answer.strip() == "true"


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_a_scaled_rope_is_in_the_config(home: Path) -> None:
    """Transformers leaves the scaling in the file; without it the two would not predict alike."""
    scaled = _reset(home, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0})

    facts = json.loads(_dequantized(home, scaled, "scaled"))

    assert facts["kl_from_llama_cpp"] < 0.01
    rope = json.loads((home / "scaled" / "config.json").read_text())["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 2.0)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_a_setting_that_transformers_does_not_have_is_refused(home: Path) -> None:
    """Attention is scaled in llama.cpp alone: the comparison finds it, whatever its name is."""
    other = _reset(home, {"llama.rope.scaling.attn_factor": 1.6})

    assert "nats a token where 0.02 is the most for one model" in _dequantized(home, other, "other")


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_an_architecture_without_a_class_is_one_sentence(home: Path) -> None:
    """It says which, and what to do."""
    other = _reset(home, {"general.architecture": "zorgon"})

    answer = _dequantized(home, other, "unknown")

    assert "Transformers cannot read a GGUF file of architecture zorgon" in answer
    assert "name the model that it was made from" in answer


def _dequantized(home: Path, file: Path, name: str) -> str:
    """What the method returns, as JSON; its sentence where it refuses."""
    shutil.rmtree(home / name, ignore_errors=True)
    return in_environment.run("llamacpp", home, _DEQUANTIZE, str(file), str(home / name)).strip()


def _reset(home: Path, settings: dict[str, str | float]) -> Path:
    """The demo model's f16 file with other settings."""
    out = home / "reset.gguf"
    out.unlink(missing_ok=True)
    in_environment.run("llamacpp", home, _RESET, str(home / "f16" / "model.gguf"), str(out), json.dumps(settings))
    return out
