"""What a cell needs, against numbers worked out by hand: never more than it takes, and less by little."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import formats
from bench.contract import plugins
from bench.contract.record import Gpu, Hardware, Parameters
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.contract.workload import Closed, Offline, Workload
from bench.models import resolve
from bench.run import memory_fit
from bench.run.memory_fit import Footprint
from bench.suite import config
from tests.formats.gguf_models import write

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
_GIB = 1 << 30
L4 = Gpu(0, "NVIDIA L4", 24_152_899_584, "8.9", "580.1")


def _gpu(gpu: Gpu = L4) -> Hardware:
    return Hardware("cuda:0", "s", gpu.name, gpu.memory_bytes, "c", 2, 1, (), "bfloat16", "Linux", (gpu,))


def _cpu(memory: int) -> Hardware:
    return Hardware("cpu", "s", "c", memory, "c", 2, memory, (), "float32", "Linux")


def _step(method: str, **options: object) -> Step:
    return Step(method, config.options(plugins.METHODS, method, options, method))


def _llama(folder: Path, layers: int, hidden: int, wide: int, vocab: int) -> Path:
    """The header of a model's weights over a file without their bytes, which takes no room on the disk."""
    folder.mkdir()
    head = {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers, "num_key_value_heads": 8}
    (folder / "config.json").write_text(
        json.dumps({**head, "num_attention_heads": 32, "model_type": "llama", "tie_word_embeddings": False})
    )
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "lm_head.weight": [vocab, hidden]}
    for n in range(layers):
        shapes |= {f"model.layers.{n}.mlp.up_proj.weight": [wide, hidden]}
    at, described = 0, {}
    for name, (rows, columns) in shapes.items():
        size = 2 * rows * columns
        described[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(described).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return folder


def _held(folder: Path, *steps: Step) -> Footprint:
    footprint = memory_fit.footprint_of(steps, resolve.Resolved(folder, "here", "hf"))  # resolving reads every byte
    assert footprint is not None
    return footprint


@pytest.mark.parametrize(
    ("step", "bits"),
    [
        (_step("gptq", bits=4, group_size=128), 4 + 20 / 128),
        (_step("gptq", bits=8, group_size=-1), 8),
        (_step("awq"), 4 + 20 / 128),
        (_step("bnb", type="nf4"), 4.5),
        (_step("bnb", type="int8"), 8),
        (_step("torchao", scheme="int4-weight-only", group_size=64), 4.5),
        (_step("torchao", scheme="intx-weight-only", bits=4), 8),
        (_step("llmcompressor", scheme="fp8-dynamic"), 8),
    ],
)
def test_linear_weights_take_the_bits_their_method_writes(tmp_path: Path, step: Step, bits: float) -> None:
    """Scales included; embedding and head stay in the type that is computed in."""
    footprint = _held(_llama(tmp_path / "m", 2, 1024, 4096, 32000), step)
    linear, rest = 2 * 1024 * 4096, 2 * 32000 * 1024
    estimate = memory_fit.estimate(footprint, {"dtype": "bfloat16"}, None, _gpu(), "bfloat16")

    assert estimate.weights_bytes == int(linear * bits / 8 + rest * 2)


def test_whole_weights_take_the_type_they_are_computed_in(tmp_path: Path) -> None:
    """A CPU computes in 32 bits what is stored in 16."""
    footprint = _held(_llama(tmp_path / "m", 2, 1024, 4096, 32000))
    stored = 2 * (2 * 1024 * 4096 + 2 * 32000 * 1024)

    assert memory_fit.estimate(footprint, {}, None, _cpu(1), "bfloat16").weights_bytes == stored
    assert memory_fit.estimate(footprint, {}, None, _cpu(1), "float32").weights_bytes == 2 * stored
    assert memory_fit.estimate(footprint, {}, None, _cpu(1), "").weights_bytes == stored


def test_the_cache_is_what_the_workload_fills(tmp_path: Path) -> None:
    """2 x layers x KV heads x head size x bytes x batch x tokens; of a server one request, of a task none."""
    footprint = _held(_llama(tmp_path / "m", 4, 1024, 2048, 1000))
    each = 2 * 4 * 8 * (1024 // 32)

    def kv(load: Workload | None, **options: str) -> float:
        return memory_fit.estimate(footprint, options, load, _gpu(), options.get("dtype", "bfloat16")).kv_bytes

    load = Offline(batch=3, prompt_tokens=100, new_tokens=20)
    assert kv(load) == each * 2 * 3 * 120
    assert kv(load, dtype="float32") == each * 4 * 3 * 120
    assert kv(load, kv_dtype="q8_0") == int(each * 34 / 32 * 3 * 120)
    assert kv(load, kv_dtype="f16", kv_dtype_k="q8_0", kv_dtype_v="q4_0") == int(each * 13 / 16 * 3 * 120)
    assert kv(load, kv_cache_dtype="fp8") == each * 3 * 120
    assert kv(load, kv_cache_dtype="auto") == each * 2 * 3 * 120
    assert kv(Closed(concurrency=9, prompt_tokens=100, new_tokens=20)) == each * 2 * 120
    assert kv(None) == 0
    assert footprint.parameters.architecture is not None
    windowed = replace(footprint.parameters, architecture=replace(footprint.parameters.architecture, window=50))
    footprint = replace(footprint, parameters=windowed)
    assert kv(load) == each * 2 * 3 * 50


def _cell(engine: str, load: Workload, **options: object) -> Cell:
    whole = config.options(plugins.ENGINES, engine, options, engine)
    return Cell(Model("m"), Recipe("r"), EngineSpec(engine, whole), "cuda:0", workload=load)


def test_what_cannot_fit_is_told_with_its_numbers(tmp_path: Path) -> None:
    """8 billion parameters in 16 bits fit an L4 with one sequence, and not with 64 of them."""
    footprint = _held(_llama(tmp_path / "m", 32, 4096, 55000, 128256))
    one, many = (Offline(batch=n, prompt_tokens=2048, new_tokens=64) for n in (1, 64))
    dtype = {"dtype": "bfloat16"}

    assert memory_fit.why_too_large(_cell("hf", one, **dtype), footprint, _gpu()) == ""
    assert memory_fit.why_too_large(_cell("hf", many, **dtype), footprint, _gpu()) == (
        "needs about 32.0 GiB (weights 15.4, KV cache 16.5, workspace 0.2), NVIDIA L4 has 22.5"
    )
    half = memory_fit.why_too_large(_cell("vllm", one, **dtype, gpu_memory_utilization=0.5), footprint, _gpu())
    assert half.endswith("NVIDIA L4 has 22.5, of which the engine takes 50%")


def test_a_draft_counts_with_its_weights_and_its_cache(tmp_path: Path) -> None:
    """Of 8 billion parameters and 4, each in 16 bits, an L4 holds one; keys and values are those of both."""
    model, draft = (_held(_llama(tmp_path / str(n), n, 4096, 55000, 128256)) for n in (32, 14))
    cell = _cell("hf", Offline(prompt_tokens=2048, new_tokens=64), dtype="bfloat16")
    alone, both = (memory_fit.estimate(model, {}, cell.workload, _gpu(), "bfloat16", other) for other in (None, draft))
    assert alone.draft_weights_bytes == 0
    assert both.draft_weights_bytes == 2 * (14 * 4096 * 55000 + 2 * 128256 * 4096)
    assert both.kv_bytes == alone.kv_bytes * (32 + 14) / 32
    assert (both.weights_bytes, both.workspace_bytes) == (alone.weights_bytes, alone.workspace_bytes)

    assert memory_fit.why_too_large(cell, model, _gpu()) == ""
    assert memory_fit.why_too_large(cell, model, _gpu(), draft) == (
        "both need about 23.7 GiB (weights 15.4 and 7.8, KV cache 0.4, workspace 0.1), NVIDIA L4 has 22.5"
    )


def test_a_cpu_refuses_only_weights_that_exceed_its_memory(tmp_path: Path) -> None:
    """The rest may be swapped, or run as slowly as it does."""
    footprint = _held(_llama(tmp_path / "m", 32, 4096, 55000, 128256))
    load = Offline(batch=64, prompt_tokens=2048, new_tokens=64)
    cell = _cell("hf", load, dtype="float32")

    assert memory_fit.why_too_large(cell, footprint, _cpu(40 * _GIB)) == ""
    assert "this machine has 24.0 of memory" in memory_fit.why_too_large(cell, footprint, _cpu(24 * _GIB))


def test_weights_that_may_lie_elsewhere_refuse_nothing(tmp_path: Path) -> None:
    """Layers in the host's memory, a server of one's own, the fake."""
    footprint = _held(_llama(tmp_path / "m", 32, 4096, 55000, 128256), _step("gguf", type="q8_0"))
    load, small = Offline(), _gpu(replace(L4, memory_bytes=4 * _GIB))

    assert "weights 7.7" in memory_fit.why_too_large(_cell("llamacpp", load), footprint, small)
    assert memory_fit.why_too_large(_cell("llamacpp", load, n_gpu_layers=8), footprint, small) == ""
    assert memory_fit.why_too_large(_cell("fake", load), footprint, small) == ""


def test_every_estimate_is_below_what_the_demo_model_really_holds() -> None:
    """Of each method that can be planned here: fewer bytes than the unquantized model in 32 bits."""
    whole = _held(DEMO)
    most = memory_fit.estimate(whole, {}, None, _cpu(1), "float32").weights_bytes
    for method in plugins.names(plugins.METHODS):
        footprint = memory_fit.footprint_of((_step(method),), resolve.resolve(Model(str(DEMO)), fetch=False))
        if footprint is not None:
            assert 0 < memory_fit.estimate(footprint, {}, None, _cpu(1), "float32").weights_bytes <= most, method
    stored = formats.audit(DEMO, None)
    assert whole.parameters.linear + whole.parameters.rest == stored.parameters
    assert whole.parameters.stored_bytes == stored.weight_bytes


def test_a_cut_model_is_smaller_and_has_less_to_keep() -> None:
    """By the shapes that are left, and their key-value heads or layers."""
    whole, cut = _held(DEMO), _held(DEMO, _step("structured", what="layers", share=0.5))
    assert cut.parameters.architecture is not None
    assert whole.parameters.architecture is not None
    assert (cut.parameters.architecture.layers, whole.parameters.architecture.layers) == (3, 5)
    assert cut.parameters.linear * 5 == whole.parameters.linear * 3


def test_a_gguf_file_is_what_it_holds(tmp_path: Path) -> None:
    """No more than its tensors: the embedding beside a head of its own stays in the host's memory."""
    file = write(tmp_path / "m.gguf")
    footprint = memory_fit.footprint_of((), resolve.resolve(Model(str(file)), fetch=False))
    assert footprint is not None
    assert footprint.bits is None
    assert 0 < memory_fit.estimate(footprint, {}, None, _cpu(1), "").weights_bytes <= file.stat().st_size


def test_what_is_not_known_refuses_nothing() -> None:
    """A Hub model that is not here yet has no size, nor has one without a plain decoder a cache."""
    assert memory_fit.footprint_of((), resolve.Resolved(None, "hub:owner/name@main", "hf")) is None
    strange = Footprint("hf", Parameters(10, 10, 40, None), None)
    assert memory_fit.estimate(strange, {}, Offline(), _cpu(1), "bfloat16").kv_bytes == 0


def test_an_estimate_costs_little() -> None:
    """5,000 cells on an engine that holds weights: below 0.3 s of CPU."""
    footprint, cell = _held(DEMO), _cell("hf", Offline(), dtype="float32")
    began = time.process_time()
    assert not any(memory_fit.why_too_large(cell, footprint, _gpu()) for _ in range(5000))
    assert time.process_time() - began < 0.3
