"""What the one reader of a model folder says of configs and weight files written here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import formats
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Architecture, Hardware, Source
from bench.formats import architecture
from bench.formats import folder as model_folder

_ROOT = Path(__file__).resolve().parents[2]
_CPU = Hardware("cpu", "s", "n", 1, "c", 2, 1, (), "float32", "Linux")
PLAIN = {"model_type": "llama", "vocab_size": 64, "max_position_embeddings": 128, "num_hidden_layers": 2}
NESTED = {"model_type": "gemma3", "text_config": {**PLAIN, "model_type": "gemma3_text", "dtype": "bfloat16"}}
GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 128, "n_ctx": 128, "n_layer": 2}


@pytest.mark.parametrize("config", [PLAIN, NESTED, GPT2], ids=["plain", "nested", "gpt2"])
def test_context_vocabulary_and_layers_are_read_wherever_they_are(config: Mapping[str, Any]) -> None:
    """A nested text_config and GPT-2's own keys say the same as a plain config."""
    assert model_folder.context_length(config) == 128
    assert model_folder.vocab_size(config) == 64
    assert model_folder.layer_count(config) == 2


def test_the_language_models_settings_come_before_the_outer_ones() -> None:
    """Of a model of pictures and text, what is nested is the text's; what is missing there is the outer one's."""
    config = {"vocab_size": 1, "max_position_embeddings": 99, "text_config": {"vocab_size": 64}}

    assert model_folder.vocab_size(config) == 64
    assert model_folder.context_length(config) == 99


def test_what_a_config_does_not_say_is_zero_or_empty() -> None:
    """No number is guessed, and a null is no number."""
    config = {"max_position_embeddings": None, "text_config": None}

    assert (model_folder.context_length(config), model_folder.vocab_size(config)) == (0, 0)
    assert model_folder.quantization(config) == {}
    assert model_folder.ties_head(config) is None


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"tie_word_embeddings": True}, True),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, False),
    ],
)
def test_a_tied_head_is_read_nested_too_and_the_outer_setting_decides(config: Mapping[str, Any], *, tied: bool) -> None:
    """As transformers ties the weights of the whole model."""
    assert model_folder.ties_head(config) is tied


def test_quantization_and_dtype_are_read_nested_too(tmp_path: Path) -> None:
    """quantization_config, compression_config of older files, dtype and torch_dtype; a type of our four only."""
    tensors: dict[str, Any] = {"a": np.zeros(3, np.float32), "b": np.zeros(4, np.float16), "c": np.zeros(9, np.int8)}
    save_file(tensors, tmp_path / "model.safetensors")

    def dtype(config: Mapping[str, Any]) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return model_folder.stored_dtype(tmp_path)

    inner = {"quantization_config": {"quant_method": "gptq"}, "torch_dtype": "float16"}

    assert model_folder.quantization({"text_config": inner}) == {"quant_method": "gptq"}
    assert model_folder.quantization({"compression_config": {"format": "packed"}}) == {"format": "packed"}
    assert dtype({"text_config": inner}) == "float16"
    assert dtype({"dtype": "bfloat16", "text_config": inner}) == "bfloat16"
    assert dtype({"dtype": "float8_e4m3fn"}) == "float32"
    assert dtype({}) == "float16"  # most of the stored numbers


def test_shards_are_one_model(tmp_path: Path) -> None:
    """Files come in the index's order, their tensors and metadata together; files of no shard are left out."""
    save_file({"a": np.zeros((2, 3), np.float16)}, tmp_path / "model-1.safetensors", {"format": "pt"})
    save_file({"b": np.zeros(4, np.float32)}, tmp_path / "model-2.safetensors", {"kind": "extra"})
    save_file({"c": np.zeros(5, np.float32)}, tmp_path / "adapter.safetensors")
    weight_map = {"b": "model-2.safetensors", "a": "model-1.safetensors"}
    (tmp_path / model_folder.INDEX).write_text(json.dumps({"weight_map": weight_map}))

    header = model_folder.read_headers(tmp_path)

    assert [file.name for file in model_folder.weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    assert {name: (t.dtype, t.shape, t.size) for name, t in header.tensors.items()} == {
        "a": ("F16", (2, 3), 12),
        "b": ("F32", (4,), 16),
    }
    assert header.metadata == {"format": "pt", "kind": "extra"}


@pytest.mark.parametrize("head", ["of its own", "a copy", "none"])
def test_a_head_that_the_config_does_not_mention_is_as_class_and_tensors_say(tmp_path: Path, head: str) -> None:
    """GPT-2's class ties it: a copy beside the embedding is the embedding, another matrix is a head of its own."""
    random = np.random.default_rng(0)
    embedding, other = (random.standard_normal((64, 8)).astype(np.float16) for _ in range(2))
    stored = {"of its own": {"lm_head.weight": other}, "a copy": {"lm_head.weight": embedding}}.get(head, {})
    layer = {"h.0.mlp.c_fc.weight": np.zeros((8, 32), np.float16), "wte.weight": embedding}
    buffers = {"h.0.attn.bias": np.zeros((1, 1, 128, 128), np.float16)}  # a mask, in files of older versions
    save_file({**layer, **buffers, **stored}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**GPT2, "n_embd": 8, "n_head": 2}))
    tied = head != "of its own"

    described, counted = formats.read_architecture(tmp_path), formats.parameters(tmp_path)

    assert described is not None
    assert described.tied_head is formats.audit(tmp_path, None).tied_head is tied
    assert set(formats.source(tmp_path).linears) == {"h.0.mlp.c_fc", *(() if tied else ("lm_head",))}
    assert (described.layers, described.hidden, described.head_dim) == (2, 8, 4)
    assert counted.linear + counted.rest == 8 * 32 + 64 * 8 * (1 if tied else 2)
    assert counted.stored_bytes == 2 * (counted.linear + counted.rest)
    assert formats.audit(tmp_path, None).parameters == counted.linear + counted.rest


def _described(config: Mapping[str, Any], **shapes: tuple[int, int]) -> Architecture:
    described = architecture.of_config(config, shapes)
    assert described is not None
    return described


def test_what_a_config_leaves_out_is_as_its_class_has_it() -> None:
    """Tied heads, widths of heads, groups of keys, windows and whole sizes: by transformers' own defaults."""
    sizes = {"vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    gemma, falcon = _described({**sizes, "model_type": "gemma"}), _described({**sizes, "model_type": "falcon"})
    mistral = _described({**sizes, "model_type": "mistral", "num_attention_heads": 16})
    qwen = _described({**sizes, "model_type": "qwen2", "sliding_window": 32})
    llama = _described({**sizes, "model_type": "llama"})

    assert (gemma.tied_head, gemma.head_dim, gemma.kv_heads) == (True, 256, 16)
    assert (falcon.tied_head, falcon.kv_heads) == (True, 1)
    assert (mistral.tied_head, mistral.kv_heads, mistral.window) == (False, 8, 4096)
    assert (qwen.window, _described({**sizes, "model_type": "qwen2", "use_sliding_window": True}).window) == (0, 4096)
    assert (llama.tied_head, llama.head_dim, llama.kv_heads, llama.window) == (False, 12, 4, 0)
    assert _described({"model_type": "gpt2"}).vocab_size == 50257
    assert architecture.of_config({**sizes, "model_type": "mixtral"}) is None  # whose class has eight experts
    assert model_folder.context_length({"model_type": "falcon"}) == 2048


def test_what_neither_config_nor_class_says_is_as_the_tensors_show() -> None:
    """Of a class that is not known here: heads of keys, and their width, by the rows of the projections."""
    sizes = {"vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    apart = _described(sizes, q_proj=(64, 48), k_proj=(32, 48))
    fused = _described(sizes, query_key_value=((4 + 2 * 2) * 12, 48))

    assert (apart.head_dim, apart.kv_heads) == (16, 2)
    assert (fused.head_dim, fused.kv_heads) == (12, 2)
    assert (_described(sizes).head_dim, _described(sizes).kv_heads) == (12, 4)


@pytest.mark.parametrize("value", [10**400, -4, True, "48", [48], 1.5, None])
def test_a_size_that_is_none_is_not_guessed(value: object) -> None:
    """Huge, negative, or of another type: unknown, and arithmetic on it cannot overflow."""
    assert model_folder.hidden_size({"hidden_size": value}) == 0
    assert architecture.of_config({**PLAIN, "hidden_size": value, "num_attention_heads": 4}) is None


@pytest.mark.engine
def test_the_table_of_classes_is_what_transformers_says(hf_python: Path) -> None:
    """Printed anew by the library in the hf environment, it is the file beside the reader, byte for byte."""
    argv = [str(hf_python), "-m", "tests.formats.transformers_classes"]
    done = subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == (_ROOT / "bench/formats/transformers_classes.json").read_text()


def test_an_engine_is_told_what_a_folder_lacks(tmp_path: Path) -> None:
    """No config.json, no weights, pickled weights: a sentence each, and nothing where all is there."""
    with pytest.raises(UserError, match=r"no config\.json"):
        model_folder.require_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no weights"):
        model_folder.require_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="pickle"):
        model_folder.require_weights(tmp_path)
    save_file({"a": np.zeros(1, np.float16)}, tmp_path / "model.safetensors")
    model_folder.require_weights(tmp_path)


@pytest.mark.parametrize("config", [PLAIN, NESTED, GPT2], ids=["plain", "nested", "gpt2"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("awq", {}),
        ("distill", {}),
        ("gguf", {"type": "q4_k_m", "imatrix": True}),
        ("gptq", {}),
        ("llmcompressor", {}),
        ("qat", {}),
        ("sparsegpt", {}),
        ("torchao", {"scheme": "int8-static"}),
        ("wanda", {}),
    ],
)
def test_methods_refuse_samples_longer_than_the_context(
    name: str, options: dict[str, Any], config: Mapping[str, Any]
) -> None:
    """Each method that reads text knows the context of nested and of GPT-2's configs."""
    method = plugins.load(plugins.METHODS, name)

    reason = method.unsupported(method.Options(**options, length=129), Source("hf", {}, config), _CPU)

    assert reason
    assert "129 tokens are longer than the model's context of 128" in reason


@pytest.mark.parametrize("config", [{"hidden_size": 80}, {"text_config": {"hidden_size": 80}}, {"n_embd": 80}])
def test_the_onnx_method_knows_the_hidden_size_of_any_config(config: Mapping[str, Any]) -> None:
    """Blocks that do not divide it are refused before the model builder runs; of an unknown size nothing is."""
    method = plugins.load(plugins.METHODS, "onnx")
    options = method.Options(precision="int4", block_size=32)

    assert "hidden size of 80" in (method.unsupported(options, Source("hf", {}, config), _CPU) or "")
    assert method.unsupported(options, Source("hf", {}, {}), _CPU) is None


def test_a_worker_imports_the_reader_with_the_standard_library_alone() -> None:
    """No package of ours that needs another, and no library, comes with it."""
    program = "import sys; import bench.formats.folder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True)

    assert not {"numpy", "onnx", "gguf", "yaml", "pydantic"} & set(done.stdout.split())
