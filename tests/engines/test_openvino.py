"""The openvino engine and method on the demo model, and what both refuse beforehand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench.contract.record import Gpu, Hardware, Source
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.engines import openvino
from bench.envs import environment
from bench.machine import hardware as machine
from bench.models import resolve
from bench.run import artifacts
from bench.run.artifacts import BuiltArtifact
from quantize.methods import openvino as method
from tests.conftest import ROOT, json_of

_DEMO = ROOT / "models/demo"
# int8: 16-bit scales and 8-bit zero points per 256 or 768 weights; int4: per 128, zero points of 4 bits.
_BITS = {
    "float32": (32.0, 32.0),
    "float16": (16.0, 16.0),
    "int8": (8.03, 8.1),
    "int4": (4.156, 4.157),
    "int4-symmetric": (4.124, 4.126),
}
_OPTIONS: dict[str, dict[str, Any]] = {"int4-symmetric": {"type": "int4", "symmetric": True}}


def _quiet(text: str) -> None:
    del text


def _hardware(device: str = "cpu", isa: tuple[str, ...] = ()) -> Hardware:
    gpus = (Gpu(0, "GPU", 1, "9.0", "1"),) if device != "cpu" else ()
    return Hardware(device, "s", "n", 1, "c", 2, 1, isa, "float32", "Linux", gpus)


@pytest.fixture(scope="module")
def built() -> dict[str, BuiltArtifact]:
    """An artifact of each kind, from the cache where it is there."""
    hardware, resolved = machine.detect("cpu"), resolve.resolve(Model(str(_DEMO)), fetch=False)
    results = {}
    for name in _BITS:
        step = Step("openvino", _whole(_OPTIONS.get(name, {"type": name})))
        steps = artifacts.steps_for(Recipe(name, (step,)), hardware, resolved.format)
        results[name] = artifacts.make(steps, resolved, hardware, _quiet)
    return results


def _whole(options: dict[str, Any]) -> dict[str, Any]:
    return dict(vars(method.Options(**options)))


@pytest.fixture(scope="module")
def checks(built: dict[str, BuiltArtifact], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What openvino_checks.py saw in the environment."""
    env = environment.ensure("openvino", _quiet)
    folders, cwd = [built[n].folder for n in ("float32", "int4")], tmp_path_factory.mktemp("checks")
    return json_of(env.python, "engines/openvino_checks.py", _DEMO, *folders, cwd=cwd, variables=env.variables)


@pytest.mark.parametrize(
    ("options", "hardware", "reason"),
    [
        ({}, _hardware(), None),
        ({}, _hardware("cuda:0"), "name the device cpu"),
        ({"dtype": "bfloat16"}, _hardware(), "ask for float32"),
        ({"dtype": "bfloat16"}, _hardware(isa=("avx512_bf16",)), None),
        ({"dtype": "float16"}, _hardware(isa=("avx2",)), "ask for float32"),
    ],
)
def test_what_cannot_run_is_known_beforehand(options: dict[str, str], hardware: Hardware, reason: str | None) -> None:
    """GPUs, and types this CPU would compute in another: the library would fall back without a word."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("openvino", options), hardware.device)

    refusal = openvino.unsupported(cell, "openvino", hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


def test_a_group_that_does_not_divide_is_unsupported() -> None:
    """It would leave the layer in int8, of which nncf tells in a log only."""
    source = Source("hf", {"up": (8, 192), "lm_head": (8, 100)}, {})

    assert "does not divide the 192 inputs of up" in (
        method.unsupported(method.Options(type="int4"), source, _hardware()) or ""
    )
    assert method.unsupported(method.Options(type="int4", group_size=64), source, _hardware()) is None
    assert method.unsupported(method.Options(type="int8"), source, _hardware()) is None


def test_every_type_is_made_from_one_graph() -> None:
    """The export is taken once; a graph that is there already is compressed as it is."""
    (first,) = method.prerequisites(method.Options(type="int4"), "hf")

    assert first.options["type"] == "float32"
    assert method.prerequisites(method.Options(type="float32"), "hf") == ()
    assert method.prerequisites(method.Options(type="int4"), "openvino") == ()


@pytest.mark.engine
@pytest.mark.parametrize("name", _BITS)
@pytest.mark.needs("openvino")
def test_every_linear_layer_is_stored_in_so_many_bits(built: dict[str, BuiltArtifact], name: str) -> None:
    """By the audit of the files, under the names of the model it was made from, the head being tied."""
    audit = built[name].artifact.audit
    least, most = _BITS[name]

    assert least <= audit.bits_per_weight <= most
    assert audit.quantized_fraction == (0.0 if name.startswith("float") else 1.0)
    assert audit.linear_parameters == built["float32"].artifact.audit.linear_parameters == 3932160
    assert audit.tied_head
    assert audit.notes == ()


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_32_bits_score_as_transformers_does(checks: Any) -> None:
    """To 1e-3 of the perplexity on the same ids; int4 is worse, and not by much."""
    assert checks["openvino"] == pytest.approx(checks["hf"], abs=1e-4)
    assert checks["hf"] + 0.01 < checks["int4"] < checks["hf"] + 0.5


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_logits_in_pieces_are_those_of_the_whole(checks: Any) -> None:
    """Each piece sees those before it, through the KV cache in the state."""
    assert checks["pieces"] == [[0, 100], [100, 100], [200, 56]]
    assert checks["difference"] < 1e-3


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_receipts_are_the_compiled_graphs(checks: Any) -> None:
    """Precisions as asked where the library's defaults round; 35 layers and the head, on what is stored."""
    receipts = checks["receipts"]

    expected = {
        "compute_dtype": "f32",
        "kv_dtype": "f32",
        "weight_dtype": "f32 100%",
        "dynamic_quantization_group": "0",
        "attention": "ScaledDotProductAttention x5",
        "threads": "1",
        "device": "cpu",
    }
    assert {key: receipts[key] for key in expected} == expected
    assert sum(int(count) for count in re.findall(r"_f32 on f32 x(\d+)", receipts["kernel"])) == 36
    assert "_f32 on u4 x35" in checks["rounded"]["receipts"]["kernel"]


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_memory_is_the_graphs_constants_and_the_state(checks: Any, built: dict[str, BuiltArtifact]) -> None:
    """Of two sequences, by 5 layers of keys and values of 2 x 64 in 32 bits."""
    weights = built["float32"].artifact.audit.weight_bytes

    assert checks["memory"]["weights_bytes"] == pytest.approx(weights, rel=0.01)
    assert checks["memory"]["kv_bytes"] == 2 * checks["kv_tokens"] * 5 * 2 * 2 * 64 * 4


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_a_kv_cache_in_8_bits_is_asked_for_and_told(checks: Any) -> None:
    """It changes the score of a text fed in pieces, and takes a quarter of the bytes."""
    rounded = checks["rounded"]

    assert (rounded["receipts"]["kv_dtype"], rounded["receipts"]["threads"]) == ("u8", "2")
    assert 0 < rounded["difference"] < 2
    assert rounded["kv_bytes"] == 256 * 5 * 2 * 2 * 64


@pytest.mark.engine
@pytest.mark.needs("openvino")
def test_what_cannot_be_done_is_one_sentence(checks: Any) -> None:
    """A broken graph, a GPU, and a graph in few bits that is to be compressed again."""
    broken, device, twice = checks["refused"]

    assert broken.startswith("OpenVINO cannot read the model")
    assert "runs on the CPU" in device
    assert "compress the unquantized model" in twice
