"""Quantized models, weights and GGUF files as older tools and people left them, read in the form libraries take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import formats
from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve
from tests.formats.gguf_models import write

LAYER = "model.layers.0.mlp.up_proj"  # 256 outputs of 512 inputs, in 4 bits, groups of 128
CONFIG = {"model_type": "llama", "vocab_size": 64, "tie_word_embeddings": True}
GPTQ = {
    f"{LAYER}.qweight": np.zeros((64, 256), np.int32),
    f"{LAYER}.scales": np.zeros((4, 256), np.float16),
    f"{LAYER}.qzeros": np.zeros((4, 32), np.int32),
    f"{LAYER}.g_idx": np.zeros(512, np.int32),
}
AWQ = {
    f"{LAYER}.qweight": np.zeros((512, 32), np.int32),
    f"{LAYER}.scales": np.zeros((4, 256), np.float16),
    f"{LAYER}.qzeros": np.zeros((4, 32), np.int32),
}
LLM_AWQ = {
    f"{LAYER}.qweight": np.zeros((64, 512), np.int16),
    f"{LAYER}.scales": np.zeros((8, 256), np.float16),
    f"{LAYER}.scaled_zeros": np.zeros((8, 256), np.float16),
}
PLAIN = {f"{LAYER}.weight": np.zeros((256, 512), np.float16)}

pytestmark = pytest.mark.usefixtures("cache")


def _folder(folder: Path, tensors: dict[str, Any], files: dict[str, Any], name: str = "model.safetensors") -> Path:
    folder.mkdir()
    save_file({"model.embed_tokens.weight": np.zeros((64, 512), np.float16), **tensors}, folder / name)
    for file, value in {"config.json": CONFIG, **files}.items():
        (folder / file).write_text(json.dumps(value))
    return folder


def _resolved(folder: Path) -> resolve.Resolved:
    return resolve.resolve(Model(str(folder)), fetch=False)


@pytest.mark.parametrize(
    ("tensors", "files", "format_name", "settings"),
    [
        (
            GPTQ,
            {"quantize_config.json": {"bits": 4, "group_size": 128, "desc_act": False}},
            "gptq",
            {"bits": 4, "group_size": 128, "desc_act": False, "quant_method": "gptq"},
        ),
        (
            AWQ,
            {"quant_config.json": {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}},
            "awq",
            {"zero_point": True, "group_size": 128, "bits": 4, "version": "gemm", "quant_method": "awq"},
        ),
        (
            GPTQ,
            {"config.json": {**CONFIG, "quantization_config": {"group_size": 128, "sym": True}}},
            "gptq",
            {"bits": 4, "group_size": 128, "sym": True, "quant_method": "gptq"},
        ),
    ],
    ids=["quantize_config.json", "quant_config.json", "no quant_method"],
)
def test_settings_that_are_elsewhere_are_given_to_the_libraries(
    tmp_path: Path, tensors: dict[str, Any], files: dict[str, Any], format_name: str, settings: dict[str, Any]
) -> None:
    """The tool is known by its tensors; its settings, under today's names, are in the config that engines read."""
    folder = _folder(tmp_path / "m", tensors, files, "gptq_model-4bit-128g.safetensors")
    before = (folder / "config.json").read_text()
    resolved = _resolved(folder)
    audit = formats.audit(resolved.local_folder, None)

    assert resolved.format == audit.format == format_name
    assert json.loads((resolved.local_folder / "config.json").read_text())["quantization_config"] == settings
    assert (resolved.local_folder / "model.safetensors").samefile(folder / "gptq_model-4bit-128g.safetensors")
    assert audit.linear_parameters == 256 * 512
    assert resolved.local_folder.name == "m"
    assert (folder / "config.json").read_text() == before
    assert _resolved(folder) == resolved
    assert resolved.identity == f"sha256:{resolve.content_hash(folder)}"


@pytest.mark.parametrize(
    ("tensors", "config", "sentence"),
    [
        (GPTQ, CONFIG, 'm has weights packed by gptq, and config.json does not say so: .* "quant_method": "gptq"'),
        (AWQ, CONFIG, "packed by awq"),
        (
            {f"{LAYER}.weight": np.zeros((9, 1), np.uint8), f"{LAYER}.weight.absmax": np.zeros(3, np.float32)},
            CONFIG,
            "packed by bitsandbytes",
        ),
        ({f"{LAYER}.weight_packed": np.zeros((9, 1), np.int32)}, CONFIG, "packed by compressed-tensors"),
        (
            {name: tensor for name, tensor in GPTQ.items() if not name.endswith("g_idx")},
            {**CONFIG, "quantization_config": {"group_size": 128}},
            "nothing says in how many bits its weights are: add",
        ),
        (LLM_AWQ, CONFIG, "m has weights in llm-awq's own packing .*: make it with AutoAWQ, layout gemm, or name"),
        (
            LLM_AWQ,
            {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm"}},
            "in llm-awq's own packing",
        ),
        (PLAIN, {**CONFIG, "quantization_config": {"bits": 4}}, "without quant_method, and its weights are plain"),
    ],
)
def test_packed_weights_that_nothing_describes_are_refused_by_what_they_are(
    tmp_path: Path, tensors: dict[str, Any], config: dict[str, Any], sentence: str
) -> None:
    """Transformers would take them for missing, and make up random ones."""
    with pytest.raises(UserError, match=sentence):
        _resolved(_folder(tmp_path / "m", tensors, {"config.json": config}))


def test_flags_of_older_transformers_are_bitsandbytes(tmp_path: Path) -> None:
    """As transformers itself takes load_in_8bit without a quant_method."""
    tensors = {f"{LAYER}.weight": np.zeros((256, 512), np.int8), f"{LAYER}.SCB": np.zeros(256, np.float32)}
    config = {**CONFIG, "quantization_config": {"load_in_8bit": True}}

    assert _resolved(_folder(tmp_path / "m", tensors, {"config.json": config})).format == "bnb"


def test_weights_under_any_names_are_one_model(tmp_path: Path) -> None:
    """Parts without an index get one, in the cache; two models in a folder are refused."""
    folder = _folder(tmp_path / "m", PLAIN, {}, "weights-a.safetensors")
    save_file({"lm_head.weight": np.ones((64, 512), np.float16)}, folder / "weights-b.safetensors")
    resolved = _resolved(folder)
    index = json.loads((resolved.local_folder / "model.safetensors.index.json").read_text())

    assert index["weight_map"]["lm_head.weight"] == "weights-b.safetensors"
    assert set(resolved.source.linears) == {LAYER, "lm_head"}
    assert _resolved(_folder(tmp_path / "usual", PLAIN, {})).folder == tmp_path / "usual"
    save_file(PLAIN, folder / "weights-c.safetensors")
    with pytest.raises(UserError, match="both hold tensor"):
        _resolved(folder)


def test_the_case_of_a_suffix_and_a_projector_do_not_matter(tmp_path: Path) -> None:
    """X.GGUF, named or in a folder, and with an mmproj beside it, is the model; engines see m.gguf alone."""
    file = write(tmp_path / "m.gguf").rename(tmp_path / "X.GGUF")
    named, alone = _resolved(file), _resolved(tmp_path)
    write(tmp_path / "mmproj-X-f16.gguf", architecture="clip")
    both = _resolved(tmp_path)

    assert [named.format, alone.format, both.format] == ["gguf"] * 3
    assert named.local_folder.name == "X.gguf"
    for resolved in (alone, both):
        assert [f.name for f in resolved.local_folder.glob("*.gguf")] == ["X.gguf"]
        assert resolved.local_folder.name == tmp_path.name
        assert set(resolved.source.linears) == set(named.source.linears)
    assert named.identity == f"sha256:{resolve.content_hash(file)}"


def test_a_split_in_capitals_is_one_model(tmp_path: Path) -> None:
    """All its parts are linked."""
    for number in (1, 2):
        part = write(
            tmp_path / "part.gguf", split__count=2, split__no=number - 1, shapes={f"blk.{number}.attn_q": (32, 32)}
        )
        part.rename(tmp_path / f"m-0000{number}-of-00002.GGUF")
    resolved = _resolved(tmp_path / "m-00001-of-00002.GGUF")

    assert set(resolved.source.linears) == {"blk.1.attn_q", "blk.2.attn_q"}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("${HOME}/m", "no variable is filled in here; write the path out, or ~ for your home"),
        ("~nobody-of-this-name/m", "is no path and no Hub id"),
        ("x" * 5_000, "is no path and no Hub id"),
        ("a\0b", "is no path|cannot be downloaded|does not exist"),
    ],
)
def test_what_no_file_system_can_have_is_one_sentence(source: str, sentence: str) -> None:
    """A variable, somebody's home, a name too long."""
    with pytest.raises(UserError, match=sentence) as caught:
        resolve.resolve(Model(source), fetch=False)
    assert len(str(caught.value)) < 500
