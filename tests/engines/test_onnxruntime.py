"""What is particular to ONNX Runtime: whether a model fell back, how it is configured, what it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.engines import onnxruntime
from bench.engines.onnxruntime import receipts
from bench.engines.onnxruntime.receipts import Node

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_HARDWARE = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")


def _nodes(provider: str) -> list[Node]:
    """A layer on `provider`, and the lengths of the batch on the CPU."""
    layer = "/model/layers.0"
    return [
        Node("/model/attn_mask/Shape", "Shape", _CPU),
        Node("/model/attn_mask/Gather", "Gather", _CPU, "int64"),
        Node("/model/embed_tokens/Gather", "Gather", provider, "float16"),
        Node(f"{layer}/attn/qkv_proj/MatMul_Q4", "MatMulNBits", provider, "float16"),
        Node(f"{layer}/attn/GroupQueryAttention", "GroupQueryAttention", provider, "float16"),
        Node(f"{layer}/mlp/Mul", "Mul", provider, "float16"),
    ]


def test_the_arithmetic_of_lengths_may_stay_on_the_cpu() -> None:
    """ONNX Runtime keeps it there by itself; the layers are where they were asked for."""
    receipts.check_provider(_nodes(_CUDA), _CUDA)
    receipts.check_provider(_nodes(_CPU), _CPU)

    assert receipts.nodes_by_provider(_nodes(_CUDA)) == f"{_CUDA} 4 of 6 nodes, {_CPU} 2 of 6 nodes"


@pytest.mark.parametrize("fallen", range(2, 6))
def test_any_part_of_the_model_on_the_cpu_is_a_fall_back(fallen: int) -> None:
    """Embedding, product, attention or activation: the sentence names the node."""
    nodes = _nodes(_CUDA)
    nodes[fallen] = _nodes(_CPU)[fallen]

    with pytest.raises(UserError, match=rf"fell back from {_CUDA}.*{re.escape(nodes[fallen].name)}"):
        receipts.check_provider(nodes, _CUDA)


def test_a_whole_model_elsewhere_and_no_proof_are_refused() -> None:
    """No profile proves nothing; a GPU that nobody asked for is not what was asked for either."""
    with pytest.raises(UserError, match="CPUExecutionProvider 6 of 6 nodes, first Gather"):
        receipts.check_provider(_nodes(_CPU), _CUDA)
    with pytest.raises(UserError, match="fell back from CPUExecutionProvider"):
        receipts.check_provider(_nodes(_CUDA), _CPU)
    with pytest.raises(UserError, match="no proof"):
        receipts.check_provider([], _CPU)


def test_receipts_are_counted_from_what_ran() -> None:
    """Products, attention and the type of what goes into them."""
    assert receipts.of_nodes(_nodes(_CUDA)) == {
        "kernel": "MatMulNBits x1",
        "attention": "GroupQueryAttention x1",
        "compute_dtype": "float16",
        "execution_provider": f"{_CUDA} 4 of 6 nodes, {_CPU} 2 of 6 nodes",
    }


def test_a_model_is_run_greedily_and_without_an_end(tmp_path: Path) -> None:
    """The checkpoint's end tokens and sampling are left out; threads, provider and device are the cell's."""
    session = {"provider_options": [{"cuda": {"enable_cuda_graph": "0"}}]}
    model = {"eos_token_id": [2, 7], "pad_token_id": 2, "decoder": {"session_options": session}}
    search = {"do_sample": True, "repetition_penalty": 1.3, "past_present_share_buffer": True}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": model, "search": search}))
    config = onnxruntime._genai_config(tmp_path, onnxruntime.Options(threads=3), "cuda:1")
    decoder = config["model"]["decoder"]["session_options"]

    assert "eos_token_id" not in config["model"]
    assert (config["search"]["do_sample"], config["search"]["repetition_penalty"]) == (False, 1.0)
    assert config["search"]["past_present_share_buffer"]
    assert decoder["provider_options"] == [{"cuda": {"enable_cuda_graph": "0", "device_id": "1"}}]
    assert decoder["intra_op_num_threads"] == 3
    on_cpu = onnxruntime._genai_config(tmp_path, onnxruntime.Options(), "cpu")
    assert on_cpu["model"]["decoder"]["session_options"]["provider_options"] == []


def test_the_size_of_the_thread_pool_is_read_from_the_log() -> None:
    """The library's own words; 0, and not what was asked for, where it does not say."""
    message = "[I:onnxruntime] intra_op_param:OrtThreadPoolParams { thread_pool_size: 3 auto_set_affinity: 0 }"

    assert receipts.pool_threads(message) == 3
    assert receipts.pool_threads("nothing") == 0


@pytest.mark.parametrize(
    ("options", "device", "stored", "reason"),
    [
        ({}, "cpu", "gguf", "loads onnx, not gguf"),
        ({"provider": "cuda"}, "cpu", "onnx", "provider cuda needs an NVIDIA GPU"),
        ({"provider": "NvTensorRtRtx"}, "cpu", "onnx", "needs an NVIDIA GPU"),
        ({"provider": "cpu"}, "cuda:0", "onnx", "leaves the GPU unused"),
        ({}, "cpu", "onnx", ""),
    ],
)
def test_what_cannot_run_is_said_beforehand(options: dict[str, str], device: str, stored: str, reason: str) -> None:
    """Formats, providers and devices that do not fit each other."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("onnxruntime", options), device)
    refusal = onnxruntime.unsupported(cell, stored, _HARDWARE)

    assert reason in (refusal or "")
    assert bool(refusal) == bool(reason)


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    """A bare export has no genai_config.json to run by."""
    with pytest.raises(UserError, match=r"no readable genai_config\.json"):
        onnxruntime._genai_config(tmp_path, onnxruntime.Options(), "cpu")


@pytest.mark.parametrize(
    ("part", "settings", "name"),
    [
        ("decoder", {"session_options": {"custom_ops_library": "own.so"}}, "custom_ops_library"),
        ("decoder", {"session_options": {"enable_profiling": "profile"}}, "enable_profiling"),
        ("decoder", {"session_options": {"provider_options": [{"QNN": {"backend_path": "own.so"}}]}}, "backend_path"),
        ("decoder", {"session_options": {"provider_options": [{"cuda": {"gpu_external_alloc": "1"}}]}}, "gpu_external"),
        ("decoder", {"session_options": {}, "pipeline": [{"a": {"session_options": {"x": "own.so"}}}]}, "'x'"),
        ("vision", {"session_options": {"custom_ops_library": "own.so"}}, "custom_ops_library"),
        ("encoder", {"run_options": {"enable_profiling": "1"}}, "enable_profiling"),
    ],
)
def test_settings_that_may_load_a_library_are_refused(
    part: str, settings: dict[str, object], name: str, tmp_path: Path
) -> None:
    """Any part of the model may name one: ONNX Runtime opens it, and its code runs, before the graph is read."""
    model = {"decoder": {"session_options": {"log_id": "a", "ep.cuda.fpa_intb_gemm": "1"}}}
    file = tmp_path / "genai_config.json"
    file.write_text(json.dumps({"model": model}))
    onnxruntime._genai_config(tmp_path, onnxruntime.Options(), "cuda:0")

    file.write_text(json.dumps({"model": {**model, part: settings}}))
    with pytest.raises(UserError, match=rf"{name}.* among its \w+_options"):
        onnxruntime._genai_config(tmp_path, onnxruntime.Options(), "cuda:0")


def test_settings_nested_too_deep_are_refused(tmp_path: Path) -> None:
    """As any other file that is no settings."""
    (tmp_path / "genai_config.json").write_text("[" * 100_000)

    with pytest.raises(UserError, match=r"no readable genai_config\.json"):
        onnxruntime._genai_config(tmp_path, onnxruntime.Options(), "cpu")
