"""What an audit reads from files made by hand, whose sizes are known."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import formats
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from tests.formats.gguf_models import CONTEXT, write

LAYER = "model.layers.0.mlp.up_proj"
SHAPE = {LAYER: (256, 512)}  # 131,072 parameters
BLOCK = {
    "model.embed_tokens.weight": np.zeros((64, 512), np.float16),
    "model.layers.0.input_layernorm.weight": np.zeros(512, np.float16),
}
SETTINGS = {"vocab_size": 64, "max_position_embeddings": 128, "tie_word_embeddings": True}


def _folder(folder: Path, tensors: dict[str, Any], quantization: dict[str, Any] | None = None, **more: Any) -> Path:
    config = {**SETTINGS, **more, **({"quantization_config": quantization} if quantization else {})}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({**BLOCK, **tensors}, folder / "model.safetensors")
    return folder


def _gptq() -> dict[str, Any]:
    """4 bits, groups of 128: 65,536 bytes of weights, 2,048 scales, 512 zeros, 2,048 group numbers."""
    return {
        f"{LAYER}.qweight": np.zeros((512 * 4 // 32, 256), np.int32),
        f"{LAYER}.scales": np.zeros((4, 256), np.float16),
        f"{LAYER}.qzeros": np.zeros((4, 256 * 4 // 32), np.int32),
        f"{LAYER}.g_idx": np.zeros(512, np.int32),
        f"{LAYER}.bias": np.zeros(256, np.float16),
    }


def _awq() -> dict[str, Any]:
    return {
        f"{LAYER}.qweight": np.zeros((512, 256 * 4 // 32), np.int32),
        f"{LAYER}.scales": np.zeros((4, 256), np.float16),
        f"{LAYER}.qzeros": np.zeros((4, 256 * 4 // 32), np.int32),
    }


def _nf4() -> dict[str, Any]:
    """Blocks of 64 with a float32 scale each: 65,536 + 8,192 bytes, 64 for the table, 10 for the state."""
    return {
        f"{LAYER}.weight": np.zeros((131072 // 2, 1), np.uint8),
        f"{LAYER}.weight.absmax": np.zeros(131072 // 64, np.float32),
        f"{LAYER}.weight.quant_map": np.zeros(16, np.float32),
        f"{LAYER}.weight.quant_state.bitsandbytes__nf4": np.zeros(10, np.uint8),
    }


def _int8() -> dict[str, Any]:
    return {f"{LAYER}.weight": np.zeros((256, 512), np.int8), f"{LAYER}.SCB": np.zeros(256, np.float32)}


@pytest.mark.parametrize("reference", [SHAPE, None], ids=["against the source", "from the format alone"])
@pytest.mark.parametrize(
    ("kind", "tensors", "quantization", "size"),
    [
        ("gptq", _gptq(), {"quant_method": "gptq", "bits": 4}, 65536 + 2048 + 512 + 2048),
        ("awq", _awq(), {"quant_method": "awq", "bits": 4}, 65536 + 2048 + 512),
        ("bnb", _nf4(), {"quant_method": "bitsandbytes", "load_in_4bit": True}, 65536 + 8192 + 64 + 10),
        ("bnb", _int8(), {"quant_method": "bitsandbytes", "load_in_8bit": True}, 131072 + 1024),
    ],
)
def test_bits_per_weight_count_every_byte_but_the_bias(
    tmp_path: Path, kind: str, tensors: dict[str, Any], quantization: dict[str, Any], size: int, reference: Any
) -> None:
    """Scales, zeros and tables are counted, a bias is not, and the format alone gives the same parameters."""
    audit = formats.audit(_folder(tmp_path, tensors, quantization), reference)

    assert audit.format == kind
    assert audit.linear_bytes == size
    assert audit.linear_parameters == 131072
    assert audit.bits_per_weight == pytest.approx(8 * size / 131072)
    assert audit.quantized_fraction == 1.0
    assert audit.notes == ()


def test_the_whole_account_of_an_unquantized_model(tmp_path: Path) -> None:
    """Parameters, bytes, types, vocabulary and context of a tied model without quantization."""
    folder = _folder(tmp_path, {f"{LAYER}.weight": np.zeros((256, 512), np.float16)})
    audit = formats.audit(folder, None)

    assert audit.format == "hf"
    assert (audit.bits_per_weight, audit.quantized_fraction) == (16.0, 0.0)
    assert audit.parameters == 131072 + 64 * 512 + 512
    assert audit.weight_bytes == 2 * audit.parameters
    assert audit.total_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert (audit.tied_head, audit.vocab_size, audit.context) == (True, 64, 128)
    assert audit.tensor_types == {"F16": 3}


def test_an_untied_head_counts_as_a_linear_layer_left_whole(tmp_path: Path) -> None:
    """A stored lm_head in 16 bits lowers the quantized share and is named in a note."""
    head = {"lm_head.weight": np.zeros((64, 512), np.float16)}
    quantization = {"quant_method": "gptq", "bits": 4}
    folder = _folder(tmp_path, {**_gptq(), **head}, quantization, tie_word_embeddings=False)
    audit = formats.audit(folder, {**SHAPE, "lm_head": (64, 512)})

    assert not audit.tied_head
    assert audit.linear_parameters == 131072 + 32768
    assert audit.quantized_fraction == pytest.approx(131072 / (131072 + 32768))
    assert audit.notes == ("not quantized: lm_head",)


def test_a_quantization_in_name_only_is_seen(tmp_path: Path) -> None:
    """A config that says GPTQ over weights in 16 bits has nothing quantized."""
    folder = _folder(tmp_path, {f"{LAYER}.weight": np.zeros((256, 512), np.float16)}, {"quant_method": "gptq"})
    audit = formats.audit(folder, SHAPE)

    assert (audit.bits_per_weight, audit.quantized_fraction) == (16.0, 0.0)


def test_source_tells_the_linear_layers(tmp_path: Path) -> None:
    """Embeddings, norms, biases and a tied head are not linear layers; an untied head is one."""
    tensors = {
        f"{LAYER}.weight": np.zeros((256, 512), np.float16),
        f"{LAYER}.bias": np.zeros(256, np.float16),
        "lm_head.weight": np.zeros((64, 512), np.float16),
        "model.layers.0.conv.weight": np.zeros((4, 1, 3), np.float16),
    }

    assert formats.source(_folder(tmp_path, tensors)).linears == SHAPE
    untied = formats.source(_folder(tmp_path, tensors, tie_word_embeddings=False))
    assert untied.linears == {**SHAPE, "lm_head": (64, 512)}
    assert formats.source(_folder(tmp_path, _gptq(), {"quant_method": "gptq"})).linears == {}


def test_gpt2_stores_its_linear_layers_the_other_way_round(tmp_path: Path) -> None:
    """Conv1D weights are (in, out), and are told as (out, in)."""
    tensors = {"h.0.mlp.c_fc.weight": np.zeros((512, 256), np.float16), "wpe.weight": np.zeros((8, 512), np.float16)}

    assert formats.source(_folder(tmp_path, tensors, model_type="gpt2")).linears == {"h.0.mlp.c_fc": (256, 512)}


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        (None, "hf"),
        ({"quant_method": "gptq"}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "bitsandbytes"}, "bnb"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "torchao"}, "torchao"),
    ],
)
def test_format_is_what_the_config_says(tmp_path: Path, quantization: dict[str, Any] | None, name: str) -> None:
    """The quantization method of config.json names the format."""
    assert formats.detect(_folder(tmp_path, {}, quantization)) == name


def test_a_gguf_folder_needs_no_config(tmp_path: Path) -> None:
    """A .gguf file, or a folder with one and no safetensors, has the format gguf."""
    write(tmp_path / "model.gguf")

    assert formats.detect(tmp_path) == "gguf"
    assert formats.source(tmp_path) == formats.source(tmp_path / "model.gguf")
    assert formats.source(tmp_path).config["max_position_embeddings"] == CONTEXT
    assert formats.detect(_folder(tmp_path, {})) == "hf"


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path: Path, cut: int) -> None:
    """Cut in its length, its header or its last tensor, the file is named and said to be cut short."""
    folder = _folder(tmp_path, {})
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:cut])

    with pytest.raises(UserError, match=r"model\.safetensors is cut short"):
        formats.source(folder)


def _raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (_raw(b"{nonsense"), "its header is not JSON"),
        (_raw([1]), "not a JSON object"),
        (_raw({"a": {"dtype": "F16", "shape": [2]}}), "does not describe tensor a"),
        (_raw({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "tensor a, F16"),
        (_raw({"a": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}, bytes(8)), "byte 0 should follow"),
        (_raw({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}, bytes(9)), "bytes no tensor owns"),
        (_raw({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}, bytes(3)), "describes 4 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ],
)
def test_a_corrupt_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Each way a header can lie has its own sentence, which names the file."""
    (tmp_path / "x.safetensors").write_bytes(content)

    with pytest.raises(UserError, match=rf"^x\.safetensors .*{sentence}"):
        model_folder.read_header(tmp_path / "x.safetensors")


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    """All shards count, a missing one is named, and so is a tensor that is not where the index says."""
    folder = _folder(tmp_path, {})
    save_file({f"{LAYER}.weight": np.zeros((256, 512), np.float16)}, folder / "b.safetensors")
    index = {**dict.fromkeys(BLOCK, "model.safetensors"), f"{LAYER}.weight": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))

    assert formats.audit(folder, None).linear_parameters == 131072

    save_file({"other": np.zeros(1, np.float16)}, folder / "b.safetensors")
    with pytest.raises(UserError, match=rf"b\.safetensors does not hold tensor {LAYER}\.weight"):
        formats.source(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"weight file b\.safetensors is missing"):
        formats.source(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """No folder, no config, no weights, only a pickle: a sentence each."""
    with pytest.raises(UserError, match="does not exist"):
        formats.source(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json"):
        formats.source(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        formats.source(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no safetensors file"):
        formats.source(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickle"):
        formats.source(tmp_path)


def test_layers_under_other_names_are_not_guessed(tmp_path: Path) -> None:
    """A reference of which nothing is found is an error; of which a part is missing, a note."""
    folder = _folder(tmp_path, {f"{LAYER}.weight": np.zeros((256, 512), np.float16)})

    with pytest.raises(UserError, match="none of the model's linear layers"):
        formats.audit(folder, {"h.0.other": (256, 512)})
    notes = formats.audit(folder, {**SHAPE, "h.0.other": (256, 512)}).notes
    assert notes == ("not stored under its name: h.0.other",)
