"""Where a cell's memory went: parts that add up, and the tokens that the rest has room for."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from bench.contract.record import Architecture, Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.contract.workload import Closed, Offline, Open, Workload
from bench.measure import sanity
from bench.measure.memory import kv_metrics, memory_metrics, widths_bytes

_ARCHITECTURE = asdict(Architecture(2, 32, 4, 4, 8, 64, tied_head=True))
_TOKEN = 2 * 2 * 4 * 8 * 2  # keys and values x layers x heads x size x 2 bytes
_LOAD = Offline(batch=3, prompt_tokens=10, new_tokens=6)


def test_cpu_peak_is_the_larger_of_sampled_tree_and_kernel_mark() -> None:
    """Sampling misses a spike of the worker, the kernel's mark misses the children: the larger stands."""
    assert memory_metrics({"peak_rss_bytes": 10, "hwm_bytes": 12}, "cpu") == {"peak_memory_bytes": 12.0}
    assert memory_metrics({"peak_rss_bytes": 20, "hwm_bytes": 12}, "cpu") == {"peak_memory_bytes": 20.0}
    assert memory_metrics({"peak_bytes": 5}, "cpu") == {}


def test_cuda_peak_is_the_allocators_beside_nvmls() -> None:
    """The parts add up to the allocator's peak; NVML's larger figure stands beside, not in place."""
    facts = {"peak_device_bytes": 100, "nvml_process_peak_bytes": 600, "weights_bytes": 70, "kv_bytes": 20}
    metrics = memory_metrics({**facts, "hwm_bytes": 9}, "cuda:0")
    assert metrics["peak_memory_bytes"] == 100
    assert metrics["workspace_bytes"] == 10
    assert metrics["nvml_process_peak_bytes"] == 600
    assert metrics["context_bytes"] == 500
    assert memory_metrics({**facts, "reserved_bytes": 130}, "cuda:0")["context_bytes"] == 470


def test_cuda_without_an_allocators_word() -> None:
    """NVML's figure is better than a blank, and no split is made up from it."""
    metrics = memory_metrics({"nvml_process_peak_bytes": 600, "weights_bytes": 70}, "cuda:0")
    assert metrics["peak_memory_bytes"] == 600
    assert "workspace_bytes" not in metrics


def test_a_cpus_workspace_is_the_rest_of_its_rss() -> None:
    """Interpreter and libraries included; where RSS is less than the parts it is not known."""
    facts = {"hwm_bytes": 100, "weights_bytes": 60, "kv_bytes": 10}
    assert memory_metrics(facts, "cpu") == {
        "peak_memory_bytes": 100,
        "weights_bytes": 60,
        "kv_bytes": 10,
        "workspace_bytes": 30,
    }
    assert "workspace_bytes" not in memory_metrics({**facts, "weights_bytes": 99}, "cpu")


def test_nothing_is_not_zero() -> None:
    """A server's log that names no buffers makes no weights of 0 bytes."""
    assert memory_metrics({"hwm_bytes": 100, "weights_bytes": 0, "kv_bytes": 0}, "cpu") == {"peak_memory_bytes": 100}


def _result(
    load: Workload | None,
    device: str = "cuda:0",
    memory: int = 100_000,
    kv: str = "float16",
    options: dict[str, Any] | None = None,
    **facts: Any,
) -> Result:
    hardware = Hardware(device, "s", "n", memory, "c", 2, memory, (), "float16", "Linux")
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("e", options or {}), device, workload=load)
    facts = {"architecture": _ARCHITECTURE, **facts}
    return Result("d", "s", cell, 0, "ok", hardware, receipts={"kv_dtype": kv}, facts=facts)


@pytest.mark.parametrize(
    ("load", "kv", "needed"),
    [
        (_LOAD, "float16", 3 * 16 * _TOKEN),
        (_LOAD, "float32 90%, int64 10%", 3 * 16 * _TOKEN * 2),
        (_LOAD, "q8_0", 3 * 16 * _TOKEN * 34 / 64),
        (Closed(concurrency=5, prompt_tokens=10, new_tokens=6), "bf16", 5 * 16 * _TOKEN),
        (Open(rate_per_s=1.0), "float16", None),
        (None, "float16", None),
        (_LOAD, "none yet", None),
        (_LOAD, "auto", None),
    ],
)
def test_what_the_workloads_keys_and_values_take(load: Workload | None, kv: str, needed: float | None) -> None:
    """By the architecture and the type the engine says it keeps them in; unknown where either is."""
    assert kv_metrics(_result(load, kv=kv)).get("kv_needed_bytes") == needed


def test_keys_and_values_may_have_a_type_each() -> None:
    """q8_0 and q4_0 are 8.5 and 4.5 bits; what the engine tells of a token stands beside what follows from them."""
    result = _result(_LOAD, kv="q4_0, q8_0", kv_token_bytes=999)
    metrics = kv_metrics(replace(result, receipts={"kv_dtype_k": "q8_0", "kv_dtype_v": "q4_0"}))

    assert metrics["kv_needed_bytes"] == 3 * 16 * _TOKEN * (8.5 + 4.5) / 32
    assert metrics["kv_token_bytes"] == 999
    assert kv_metrics(_result(_LOAD, kv="none", kv_token_bytes=999)) == {"kv_token_bytes": 999}


def test_a_window_bounds_what_is_kept() -> None:
    """Tokens out of its reach are not."""
    metrics = kv_metrics(_result(_LOAD, architecture={**_ARCHITECTURE, "window": 4}))
    assert metrics["kv_needed_bytes"] == 3 * 4 * _TOKEN


def test_tokens_that_fit_are_what_the_budget_has_left() -> None:
    """0.9 of the device, or the share that the engine was given, less weights, workspace and context."""
    facts: dict[str, Any] = {
        "weights_bytes": 40_000,
        "kv_bytes": 5_000,
        "peak_bytes": 50_000,
        "reserved_bytes": 52_000,
        "nvml_process_peak_bytes": 60_000,
    }
    metrics = kv_metrics(_result(_LOAD, **facts))
    assert metrics["memory_budget_bytes"] == 90_000
    assert metrics["kv_tokens_fit"] == (90_000 - 40_000 - 5_000 - 8_000) // _TOKEN
    half = kv_metrics(_result(_LOAD, options={"gpu_memory_utilization": 0.55}, **facts))
    assert half["memory_budget_bytes"] == pytest.approx(55_000)
    assert half["kv_tokens_fit"] == 2_000 // _TOKEN


def test_without_an_allocators_word_all_but_the_pool_is_taken() -> None:
    """A server tells its pool, and NVML what the process holds."""
    metrics = kv_metrics(_result(_LOAD, weights_bytes=40_000, kv_bytes=30_000, nvml_process_peak_bytes=80_000))
    assert metrics["kv_tokens_fit"] == 40_000 // _TOKEN
    assert "kv_tokens_fit" not in kv_metrics(_result(_LOAD, weights_bytes=40_000))


def test_words_for_types() -> None:
    """As engines say them; what is no type of numbers is left out."""
    assert widths_bytes("bfloat16, float32") == [2.0, 4.0]
    assert widths_bytes("float32 activations") == [4.0]
    assert widths_bytes("fp8_e4m3") == [1.0]
    assert widths_bytes("none yet") == []


@pytest.mark.parametrize(
    ("loaded", "dtype", "marked"),
    [
        (600 + 2 * 800, "float16", False),
        (600 + 4 * 800, "float32", False),
        (2 * 1000 + 2 * 800, "float16", True),
        (4 * 1000 + 4 * 800, "float32", True),
        (4 * 1000 + 4 * 800, "", True),
    ],
)
def test_weights_that_were_unpacked_are_marked(loaded: int, dtype: str, *, marked: bool) -> None:
    """An embedding in the type that is computed in is no unpacking; quantized layers in it are."""
    audit = Audit("bnb", 9, 2200, 1800, 1000, 600, 4.8, 1.0, tied_head=True, vocab_size=9, context=9)
    result = _result(_LOAD, weights_bytes=loaded)
    artifact = Artifact("d", "bnb", "s", (Step("bnb"),), audit)
    result = Result(**{**vars(result), "artifact": artifact, "receipts": {"compute_dtype": dtype}, "metrics": {}})
    assert (sanity.WIDE in sanity.marks([result])) is marked
