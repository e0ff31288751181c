"""The tensorrt_llm engine, as far as it can be tested without a GPU.

Nothing here is measured: the package was never installed. The log lines have the shape in which its source
(tensorrt_llm/_torch/pyexecutor/_util.py, cpp/.../kvCacheManager.cpp) and published logs of 1.2 print them.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit, Gpu, Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.engines import _logits, tensorrt_llm
from bench.engines._receipts import captured_output

_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
# In the shape the library prints; the numbers are made up.
_LOG = """\
[TensorRT-LLM] TensorRT LLM version: 1.2.1
[11/20/2026-10:00:00] [TRT-LLM] [I] Using LLM with PyTorch backend
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).
[11/20/2026-10:00:10] [TRT-LLM] [I] max_seq_len=8224, max_num_requests=64, max_num_tokens=8192, \
max_batch_size=64
[11/20/2026-10:00:48] [TRT-LLM] [I] Memory used after loading model weights (inside torch) in memory usage \
profiling: 63.52 GiB
[11/20/2026-10:00:50] [TRT-LLM] [I] Memory used after loading model weights (outside torch) in memory usage \
profiling: 49.78 GiB
[11/20/2026-10:00:51] [TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 113.65 \
GiB, available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.9, kv size is 73728.
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (86656).
[11/20/2026-10:00:52] [TRT-LLM] [I] max_seq_len=4096, max_num_requests=64, max_num_tokens=8192, \
max_batch_size=64
"""


def _hardware(capability: str = "") -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    dtype = "bfloat16" if gpus else "float32"
    return Hardware("cuda:0" if gpus else "cpu", "s", "n", 1, "c", 2, 1, (), dtype, "Linux", gpus)


def _folder(tmp_path: Path, config: str = '{"max_position_embeddings": 1024}') -> Path:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("stored", "hardware", "options", "reason"),
    [
        ("hf", _hardware(), {}, "needs an NVIDIA GPU of compute capability 8.0 or newer"),
        ("hf", _hardware("7.5"), {}, "8.0 or newer, this one has 7.5"),
        ("hf", _hardware("8.0"), {}, None),
        ("hf", _hardware("10.0"), {"dtype": "float16"}, None),
        ("hf", _hardware("9.0"), {"dtype": "float32"}, "ask for bfloat16 or float16"),
        ("gptq", _hardware("9.0"), {}, "loads no gptq"),
        ("compressed-tensors", _hardware("9.0"), {}, "loads no compressed-tensors"),
    ],
)
def test_what_cannot_run_is_known_beforehand(
    stored: str, hardware: Hardware, options: dict[str, str], reason: str | None
) -> None:
    """Without a GPU, on too old a one, in 32 bits, and for formats its backend would misread."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("tensorrt_llm", options), hardware.device)

    refusal = tensorrt_llm.unsupported(cell, stored, hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


def test_the_server_reads_its_settings_from_a_file_it_writes_itself(tmp_path: Path) -> None:
    """Loopback, no reuse of blocks, prompts whole, a token an event; flags by its source, not measured."""
    options = tensorrt_llm.Options(dtype="bfloat16", context=512, gpu_memory_fraction=0.5, sequences=64)
    launch = tensorrt_llm.serve(_folder(tmp_path), _ARTIFACT, options, "/env/bin/python", 8123, "cuda:0")

    assert launch.argv[:2] == ("/env/bin/python", "-c")
    assert launch.argv[4:6] == ("serve", str(tmp_path))
    assert launch.model == tmp_path.name
    assert {"--host": "127.0.0.1", "--port": "8123", "--backend": "pytorch"}.items() <= dict(
        pairwise(launch.argv)
    ).items()
    assert dict(pairwise(launch.argv))["--extra_llm_api_options"] in launch.argv[2]
    assert json.loads(launch.argv[3]) == {
        "dtype": "bfloat16",
        "max_batch_size": 64,
        "max_num_tokens": 8192,
        "max_seq_len": 512,
        "kv_cache_config": {"enable_block_reuse": False, "free_gpu_memory_fraction": 0.5},
        "enable_chunked_prefill": False,
        "stream_interval": 1,
        "tensor_parallel_size": 1,
        "trust_remote_code": False,
    }


def test_a_pass_is_as_long_as_the_context(tmp_path: Path) -> None:
    """A prompt longer than a pass would be refused by the library, which is told not to cut it."""
    folder = _folder(tmp_path, '{"max_position_embeddings": 131072}')

    assert tensorrt_llm._settings(folder, tensorrt_llm.Options())["max_num_tokens"] == 131072


def test_the_log_is_read() -> None:
    """Of what is said twice the last counts: the first KV cache is a trial. Not from a run of ours."""
    receipts, sizes = tensorrt_llm.read_log(_LOG)

    assert receipts == {
        "tensorrt_llm": "1.2.1",
        "backend": "PyTorch",
        "context": "4096",
        "batched_tokens": "8192",
        "sequences": "64",
        "kv_block_tokens": "32",
        "kv_tokens": "86656",
    }
    assert {key: round(size / 2**30, 2) for key, size in sizes.items()} == {
        "weights_bytes": 63.52,
        "kv_bytes": 5.95,
        "peak_bytes": 113.65,
    }


def test_a_log_without_facts_has_none() -> None:
    """A key is there only where the log has its line."""
    assert tensorrt_llm.read_log("[TensorRT-LLM][INFO] nothing of note\n") == ({}, {})


def test_logits_cover_every_position_or_are_refused() -> None:
    """Blocks of at most 64 MiB in float32; a library that left positions out is not scored."""
    given = np.ones((600, 65_536), np.float16)

    result = list(_logits.blocks("TensorRT-LLM", given, 600))

    assert [(block.start, len(block.logits)) for block in result] == [(0, 256), (256, 256), (512, 88)]
    assert {str(block.logits.dtype) for block in result} == {"float32"}
    assert max(block.logits.nbytes for block in result) == 64 << 20
    with pytest.raises(UserError, match="logits for 600 of 601 positions"):
        list(_logits.blocks("TensorRT-LLM", given, 601))
    with pytest.raises(UserError, match="logits for 0 of 2 positions"):
        list(_logits.blocks("TensorRT-LLM", None, 2))


def test_what_the_library_writes_past_python_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    """Its receipts are lines of its C++ part: caught by file descriptor, and shown on stderr afterwards."""
    with captured_output(1, 2) as log:
        os.write(1, b"[TensorRT-LLM][INFO] out\n")
        os.write(2, b"[TensorRT-LLM][INFO] error\n")

    assert log == ["[TensorRT-LLM][INFO] out\n[TensorRT-LLM][INFO] error\n"]
    assert capfd.readouterr().err == log[0]


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Before the library would look elsewhere, and where a context is not to be had."""
    with pytest.raises(UserError, match=r"no config\.json"):
        tensorrt_llm.serve(tmp_path, _ARTIFACT, tensorrt_llm.Options(), "python", 1, "cuda:0")
    with pytest.raises(UserError, match="names no context"):
        tensorrt_llm._settings(_folder(tmp_path, "{}"), tensorrt_llm.Options())
