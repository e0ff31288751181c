"""The llamacpp engine: its KV cache's types as options, in the library's log, and on the demo model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.workload import Closed, Offline, Workload
from bench.engines import llamacpp
from bench.engines.llamacpp import Options
from bench.store import Store
from tests.run import fake_runs

_HARDWARE = Hardware("cpu", "s", "n", 2**34, "c", 2, 2**34, (), "float32", "Linux")
# Of llama-cpp-python 0.3.36: a model of 5 layers, then one with a window in some of its layers.
_LOG = """\
llama_kv_cache:        CPU KV buffer size =     1.95 MiB
llama_kv_cache: size =    1.95 MiB (   512 cells,   5 layers,  2/2 seqs), K (q8_0):    0.66 MiB, V (f16):    1.25 MiB
llama_kv_cache: attn_rot_k = 1, n_embd_head_k_all = 64
llama_kv_cache: attn_rot_v = 0, n_embd_head_k_all = 64
"""
_WINDOWED = """\
llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells
llama_kv_cache:        CPU KV buffer size =    24.00 MiB
llama_kv_cache: size =   24.00 MiB (  4096 cells,   3 layers,  1/1 seqs), K (f16):   12.00 MiB, V (f16):   12.00 MiB
llama_kv_cache_iswa: creating     SWA KV cache, size = 1024 cells
llama_kv_cache:        CPU KV buffer size =    30.00 MiB
llama_kv_cache: size =   30.00 MiB (  1024 cells,  15 layers,  1/1 seqs), K (f16):   15.00 MiB, V (f16):   15.00 MiB
"""
_DRAFTED = """\
llama_model_loader: - type  f16:   36 tensors
load_tensors:   CPU_Mapped model buffer size =     9.51 MiB
llama_kv_cache:        CPU KV buffer size =    21.25 MiB
llama_kv_cache: size =   21.25 MiB (  1024 cells,   5 layers, 16/16 seqs), K (q8_0):   10.62 MiB, V (q8_0):   10.62 MiB
common_speculative_init_result: loading draft model 'q8_0/model.gguf'
llama_model_loader: - type q8_0:   36 tensors
load_tensors:   CPU_Mapped model buffer size =     5.06 MiB
llama_kv_cache:        CPU KV buffer size =    40.00 MiB
llama_kv_cache: size =   40.00 MiB (  1024 cells,   5 layers, 16/16 seqs), K (f16):   20.00 MiB, V (f16):   20.00 MiB
"""


def _refusal(load: Workload | None = None, device: str = "cpu", **options: Any) -> str | None:
    engine = EngineSpec("llamacpp", asdict(Options(**options)))
    return llamacpp.unsupported(Cell(Model("m"), Recipe("r"), engine, device, workload=load), "gguf", _HARDWARE)


def test_each_pair_of_types_is_written_in_one_way() -> None:
    """So that one cache has one digest, and the options of older records stay as they are."""
    same = [Options(kv_dtype="q8_0"), Options(kv_dtype_k="q8_0", kv_dtype_v="q8_0")]
    apart = [Options(kv_dtype_k="q8_0"), Options(kv_dtype="q8_0", kv_dtype_v="f16")]

    assert same[0] == same[1]
    assert apart[0] == apart[1]
    assert (apart[0].kv_dtype, apart[0].kv_dtype_k, apart[0].kv_dtype_v) == ("f16", "q8_0", "")
    assert (apart[0].key_type, apart[0].value_type) == ("q8_0", "f16")
    assert Options(kv_dtype_k="f16", kv_dtype_v="f16") == Options()


def test_values_in_blocks_need_flash_attention() -> None:
    """Off with them is one sentence that says what to set; keys in blocks are read without it."""
    sentence = _refusal(kv_dtype_v="q4_0", flash_attention="off")

    assert sentence == (
        "llama.cpp reads values in q4_0 by flash attention alone: leave flash_attention on, or set kv_dtype_v: f16"
    )
    assert _refusal(kv_dtype_v="q4_0") is None
    assert _refusal(kv_dtype_k="q4_0", flash_attention="off") is None
    assert _refusal(kv_dtype="bf16", flash_attention="off") is None


def test_caches_that_a_gpu_has_no_kernel_for_are_refused() -> None:
    """Where flash attention is needed or asked for: llama.cpp would run it on the CPU, or refuse to load."""
    sentence = _refusal(device="cuda:0", kv_dtype_k="q5_1", kv_dtype_v="q4_0")

    assert sentence == (
        "llama.cpp's CUDA build has no flash attention for keys in q5_1 with values in q4_0: take one of f32, f16, "
        "bf16, q8_0, q4_0 for both, or q8_0 with q4_0"
    )
    assert "keys in q5_1 with values in q5_1" in (_refusal(device="cuda:0", kv_dtype="q5_1") or "")
    assert "keys in q8_0 with values in f16" in (
        _refusal(device="cuda:0", kv_dtype_k="q8_0", flash_attention="on") or ""
    )
    assert _refusal(device="cuda:0", kv_dtype_k="q8_0") is None
    assert _refusal(device="cuda:0", kv_dtype_k="q8_0", kv_dtype_v="q4_0") is None
    assert _refusal(device="cuda:0", kv_dtype="q4_0") is None
    assert _refusal(kv_dtype_k="q5_1", kv_dtype_v="q4_0") is None


def test_what_no_slot_of_the_server_holds_is_refused_beforehand() -> None:
    """With the option that makes room; a batch in process takes what it needs."""
    deep: dict[str, Any] = {"depth_tokens": 4000, "prompt_tokens": 128, "new_tokens": 64}

    assert "exceed the 4096 of a slot" in (_refusal(Closed(**deep)) or "")
    assert _refusal(Closed(**deep), context=8192) is None
    assert _refusal(Offline(**deep)) is None


def test_the_log_tells_the_types_and_the_bytes_of_a_token() -> None:
    """Cells are of each sequence; where some layers have a window, a token has a cell in both caches."""
    receipts, sizes = llamacpp.read_log(_LOG)
    windowed_receipts, windowed = llamacpp.read_log(_WINDOWED)

    expected = {"kv_dtype": "f16, q8_0", "kv_dtype_k": "q8_0", "kv_dtype_v": "f16", "kv_rotated": "keys"}
    assert {key: receipts[key] for key in expected} == expected
    assert sizes["kv_token_bytes"] == pytest.approx(1.95 * 2**20 / 1024, abs=1)
    assert windowed["kv_token_bytes"] == 24 * 2**20 // 4096 + 30 * 2**20 // 1024
    assert "kv_rotated" not in windowed_receipts


def test_a_cache_too_small_for_the_logs_digits_has_no_bytes_of_a_token() -> None:
    """Hundredths of a MiB are 2 % of half of one."""
    small = _LOG.replace("size =    1.95 MiB", "size =    0.49 MiB").replace("  512 cells", "  128 cells")

    assert "kv_token_bytes" not in llamacpp.read_log(small)[1]


def test_a_draft_has_buffers_of_its_own() -> None:
    """Receipts and weights are the model's alone; a token has cells in both caches."""
    receipts, sizes = llamacpp.read_log(_DRAFTED)

    assert (receipts["kernel"], receipts["kv_dtype"]) == ("f16 x36", "q8_0")
    assert sizes["weights_bytes"] == pytest.approx(9.51 * 2**20, abs=1)
    assert sizes["draft_bytes"] == pytest.approx(5.06 * 2**20, abs=1)
    assert sizes["kv_bytes"] == pytest.approx(61.25 * 2**20, abs=1)
    assert sizes["kv_token_bytes"] == pytest.approx(61.25 * 2**20 / (1024 * 16), abs=1)


_NAMES = {
    "f16": {},
    "q8_0": {"kv_dtype": "q8_0"},
    "q4_0-keys": {"kv_dtype_k": "q4_0"},
    "q4_0": {"kv_dtype_k": "q4_0", "kv_dtype_v": "q4_0"},
    "refused": {"kv_dtype_v": "q4_0", "flash_attention": "off"},
}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Result]:
    """One artifact with several caches: a load at a depth, in process and behind a server, and its divergence."""
    suite = fake_runs.suite(
        recipes=["gguf-f16"],
        engines=[{"name": "llamacpp", "label": label, "threads": 1, **options} for label, options in _NAMES.items()],
        workloads=[
            {"batch": 4, "depth_tokens": 900, "prompt_tokens": 4, "new_tokens": 8, "repeats": 2},
            {
                "kind": "sweep",
                "over": "depth",
                "depth_tokens": 100,
                "most": 300,
                "concurrency": 2,
                "requests": 6,
                "prompt_tokens": 4,
                "new_tokens": 8,
            },
        ],
        tasks=[{"task": "divergence", "context": 512, "tokens": 2048}],
        rounds=1,
    )
    results = fake_runs.run(suite, Store(tmp_path_factory.mktemp("caches")))
    return {(r.cell.engine.title, r.cell.workload.kind if r.cell.workload else "task"): r for r in results}


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_caches_are_of_the_types_that_were_asked_for(caches: dict[tuple[str, str], Result]) -> None:
    """In process, behind the server and for scores alike, the default too; the demo model's heads of 64 are rotated."""
    expected = {
        "f16": ("f16", "f16", None),
        "q8_0": ("q8_0", "q8_0", "keys, values"),
        "q4_0-keys": ("q4_0", "f16", "keys"),
        "q4_0": ("q4_0", "q4_0", "keys, values"),
    }
    for (label, kind), result in caches.items():
        assert result.status == ("unsupported" if label == "refused" else "ok"), (label, kind, result.reason)
        if label == "refused":
            continue
        receipts = [result.receipts.get(key) for key in ("kv_dtype_k", "kv_dtype_v", "kv_rotated")]
        assert tuple(receipts) == expected[label], (label, kind)


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_a_token_takes_what_its_types_take(caches: dict[tuple[str, str], Result]) -> None:
    """5 layers of 2 x 64 keys and values: 16, 8.5 and 4.5 bits each, in process and behind the server."""
    for label, bits in {"f16": 16, "q8_0": 8.5, "q4_0-keys": (4.5 + 16) / 2, "q4_0": 4.5}.items():
        expected = 5 * 2 * 2 * 64 * bits / 8
        for kind in ("offline", "sweep"):
            assert caches[label, kind].metrics["kv_token_bytes"] == pytest.approx(expected, rel=0.01), (label, kind)


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_fewer_bits_of_the_cache_diverge_more(caches: dict[tuple[str, str], Result]) -> None:
    """The scored tokens attend to what the cache gives back; f16 is the reference itself."""
    losses = [caches[label, "task"].metrics["kl_mean"] for label in ("f16", "q8_0", "q4_0-keys", "q4_0")]

    assert losses == sorted(losses)
    assert losses[0] < 1e-6 < losses[1] < losses[2] / 3


@pytest.mark.engine
@pytest.mark.needs("llamacpp", "llamacpp-tools")
def test_a_load_at_a_depth_reads_its_prompt_alone(caches: dict[tuple[str, str], Result]) -> None:
    """The server had just the context of each request in its cache, at every depth."""
    offline, online = caches["f16", "offline"], caches["f16", "sweep"]

    assert offline.facts["depth_tokens"] == 900
    assert [stage["level"] for stage in online.facts["stages"]] == [100, 200, 300]
    assert online.facts["depth_tokens"] == 300
    assert online.facts["cached_tokens"] == 300 * 6
    assert online.metrics["failed_requests"] == 0


def test_every_cache_has_a_name() -> None:
    """Two engines of one name without labels are refused, with what to give them."""
    with pytest.raises(UserError, match="two engines are called 'llamacpp'; give one of them another name or label"):
        fake_runs.suite(engines=["llamacpp", {"name": "llamacpp", "kv_dtype": "q8_0"}], workloads=[{"batch": 1}])
