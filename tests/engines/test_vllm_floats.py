"""Floats in blocks in vLLM: which device has a kernel for them, and which one ran."""

from __future__ import annotations

import pytest

from bench.contract.record import Gpu, Hardware, Source
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.engines import vllm

_AVX2 = ("avx2", "f16c")
_AVX512 = ("avx2", "avx512f")


def _hardware(capability: str = "", dtype: str = "float32", isa: tuple[str, ...] = _AVX512) -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    return Hardware("cuda:0" if gpus else "cpu", "s", "n", 1, "c", 2, 1, isa, dtype, "Linux", gpus)


@pytest.mark.parametrize(
    ("scheme", "hardware", "reason"),
    [
        ("nvfp4", _hardware(isa=_AVX512), "no kernel for nvfp4 on a CPU: use hf"),
        ("nvfp4a16", _hardware(isa=("neon",)), "no kernel for nvfp4a16 on a CPU"),
        ("mxfp4a16", _hardware(isa=_AVX2), "no kernel for mxfp4a16 on a CPU"),
        ("mxfp8", _hardware(isa=(*_AVX512, "amx_tile")), "no kernel for mxfp8 on a CPU"),
        ("fp8-block", _hardware(isa=_AVX512), "CPU kernel for fp8-block needs AMX: use hf"),
        ("fp8-block", _hardware(isa=(*_AVX512, "amx_tile")), None),
        ("fp8-block", _hardware("7.5", "float16"), None),
        ("nvfp4", _hardware("7.5", "float16"), None),
        ("nvfp4", _hardware("7.0", "float16"), "7.5 or newer"),
        ("mxfp4", _hardware("7.5", "float16"), "8.0 or newer for mxfp4"),
        ("mxfp4", _hardware("8.0", "bfloat16"), None),
        ("mxfp8", _hardware("9.0", "bfloat16"), None),
    ],
)
def test_floats_in_blocks_need_a_gpu_or_amx(scheme: str, hardware: Hardware, reason: str | None) -> None:
    """By the kernels that vLLM 0.32 lists for each device, and by what its schemes ask of a GPU."""
    recipe = Recipe("r", (Step("llmcompressor", {"scheme": scheme}),))
    cell = Cell(Model("m"), recipe, EngineSpec("vllm", {}), hardware.device)
    refusal = vllm.unsupported(cell, "compressed-tensors", hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


@pytest.mark.parametrize(("outputs", "scheme"), [(576, "fp8-block"), (640, "fp8-block"), (576, "fp8-dynamic")])
def test_blocks_that_two_joined_layers_would_share_are_refused(outputs: int, scheme: str) -> None:
    """Queries are joined with keys and values, whose blocks begin anew; the last of those joined may be odd."""
    linears = {"l.q_proj": (outputs, 576), "l.k_proj": (128, 576), "l.v_proj": (192, 576), "l.o_proj": (576, 576)}
    cell = Cell(Model("m"), Recipe("r", (Step("llmcompressor", {"scheme": scheme}),)), EngineSpec("vllm"), "cuda:0")
    hardware = _hardware("9.0", "bfloat16")
    refusal = vllm.unsupported_model(Source("hf", linears, {}), cell, "compressed-tensors", hardware)

    assert ("its 576 outputs" in (refusal or "")) == (outputs == 576 and scheme == "fp8-block")


def test_the_kernel_of_floats_in_blocks_is_in_the_log() -> None:
    """Which says what is multiplied: Marlin takes the weights alone, whatever the scheme says of activations."""
    line = "INFO [nvfp4.py:95] Using MarlinNvFp4LinearKernel for NVFP4 GEMM\n"

    assert vllm.read_log(line)[0]["kernel"] == "MarlinNvFp4LinearKernel for NVFP4"
