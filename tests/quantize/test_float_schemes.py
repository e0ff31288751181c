"""Floats of 4 and 8 bits in blocks: by llm-compressor, as Transformers unpacks them, and by llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from bench import formats
from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.envs import environment
from bench.suite import config
from quantize.methods import gguf, llmcompressor
from tests.conftest import ROOT, json_of

DEMO = ROOT / "models" / "demo"
CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")
# Bits with scales: of 8 bits for 16 or 32 weights, of 16 for 128 x 128; NVFP4 has 32 or 64 more for a layer.
CASES: dict[str, tuple[float, float, str, str]] = {  # bits, most error, what was unpacked, activations
    "nvfp4a16-rtn": (4.5, 0.20, "nvfp4-pack-quantized", "not rounded"),
    "nvfp4a16": (4.5, 0.20, "nvfp4-pack-quantized", "not rounded"),
    "nvfp4-rtn": (4.5, 0.35, "nvfp4-pack-quantized", "float4_e2m1 per 16 inputs, dynamic, global scale static"),
    "mxfp4": (4.25, 0.45, "mxfp4-pack-quantized", "float4_e2m1 per 32 inputs, dynamic"),
    "mxfp4a16-rtn": (4.25, 0.30, "mxfp4-pack-quantized", "not rounded"),
    "mxfp8-rtn": (8.25, 0.10, "mxfp8-quantized", "float8_e4m3fn per 32 inputs, dynamic"),
    "fp8-block": (8.0, 0.10, "float-quantized", "float8_e4m3fn per 128 inputs, dynamic"),
    "odd": (8.0, 0.30, "float-quantized", "float8_e4m3fn per 128 inputs, dynamic"),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `float_scheme_checks.py` says of each case."""
    ready = environment.ensure("llmcompressor", print)
    home = tmp_path_factory.mktemp("schemes")
    script = "quantize/float_scheme_checks.py"
    return dict(json_of(ready.python, script, DEMO, cwd=home, timeout=3600, variables=ready.variables))


@pytest.mark.engine
@pytest.mark.needs("llmcompressor")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_layer_is_stored_in_the_bits_of_its_scheme(checked: dict[str, Any], case: str) -> None:
    """All layers, no note of one that is no number, and a text where GPTQ or a scale of activations asks for it."""
    facts, bits = checked[case], CASES[case][0]

    assert bits <= facts["bits"] < bits + 0.02
    assert (facts["quantized"], facts["notes"]) == (1.0, [])
    assert facts["layers"] == (14 if case == "odd" else 35)
    reads_text = not case.endswith(("16-rtn", "8-rtn", "odd"))
    assert facts["tokens"] == (8 * 64 if reads_text else 0)


@pytest.mark.engine
@pytest.mark.needs("llmcompressor")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_audit_the_library_and_the_engine_unpack_the_same_numbers(checked: dict[str, Any], case: str) -> None:
    """Bit for bit, in every layer."""
    assert checked[case]["library"] == []
    assert checked[case]["engine"] == []


@pytest.mark.engine
@pytest.mark.needs("llmcompressor")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_record_says_what_was_unpacked_and_how_inputs_are_rounded(checked: dict[str, Any], case: str) -> None:
    """And they are: the logits move where the receipt says so, and nowhere else."""
    facts, (_, most, stored, activations) = checked[case], CASES[case]
    layers = facts["layers"]
    rounds = activations != "not rounded"

    assert facts["receipts"]["unpacked"] == f"{stored} to float32 x{layers}"
    assert facts["receipts"]["activations"] == f"{activations}{', simulated' if rounds else ''} x{layers}"
    assert (facts["rounding"] > 0) == rounds
    assert 0.001 < facts["error"] < most


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scheme": "nvfp4", "group_size": 32}, "nvfp4 has blocks of 16 weights, so that group_size 32 cannot be"),
        ({"scheme": "mxfp8", "group_size": 64}, "mxfp8 has blocks of 32 weights"),
        ({"scheme": "fp8-block", "group_size": 64}, "fp8-block has blocks of 128 weights, so that"),
        ({"scheme": "nvfp4"}, "nvfp4 has blocks of 16 weights, and 16 does not divide the 40 inputs of l.q_proj"),
        ({"scheme": "mxfp4a16"}, "mxfp4a16 has blocks of 32 weights, and 32 does not divide the 40 inputs"),
        ({"scheme": "nvfp4", "algorithm": "rtn", "length": 4096}, "longer than the model's context of 1024"),
        ({"scheme": "mxfp4", "algorithm": "rtn", "first_token_weight": 100}, "would change nothing"),
        ({"scheme": "fp8-block"}, "fp8-block has blocks of 128 weights, and 128 does not divide the 40 inputs"),
        ({"scheme": "fp8-dynamic"}, None),
        ({"scheme": "mxfp8", "length": 4096, "group_size": 128}, "longer than the model's context"),
    ],
)
def test_what_a_scheme_cannot_be_is_said_beforehand(options: dict[str, Any], reason: str | None) -> None:
    """One sentence, which names the block, the layer and what to use."""
    source = Source("hf", {"l.q_proj": (40, 40), "lm_head": (90, 40)}, {"max_position_embeddings": 1024})
    refusal = llmcompressor.unsupported(llmcompressor.Options(**options), source, CPU)

    assert refusal is None if reason is None else reason in str(refusal)
    assert ". " not in str(refusal)


def test_a_misspelt_scheme_is_answered_with_those_there_are() -> None:
    """As any option of a fixed set of values."""
    recipes = [{"name": "x", "steps": [{"method": "llmcompressor", "scheme": "nvpf4"}]}]
    with pytest.raises(UserError) as caught:
        config.suite({"name": "s", "model": "m", "engines": ["hf"], "recipes": recipes, "workloads": [{"batch": 1}]})

    assert str(caught.value).startswith("recipes[0].steps[0].scheme: ")
    assert "'nvfp4a16'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "bits", "reads_text", "twin"),
    [
        ({"scheme": "nvfp4"}, 4.5, True, {"scheme": "nvfp4", "algorithm": "rtn"}),
        ({"scheme": "nvfp4", "algorithm": "rtn"}, 4.5, True, None),  # the scale of its activations
        ({"scheme": "nvfp4a16", "algorithm": "rtn"}, 4.5, False, None),
        ({"scheme": "mxfp4a16"}, 4.25, True, {"scheme": "mxfp4a16", "algorithm": "rtn"}),
        ({"scheme": "mxfp8", "algorithm": "rtn"}, 8.25, False, None),
        ({"scheme": "fp8-block", "algorithm": "rtn"}, 8.0, False, None),
    ],
)
def test_what_a_plan_asks_of_a_scheme(
    options: dict[str, Any], *, bits: float, reads_text: bool, twin: dict[str, Any] | None
) -> None:
    """Bits for the memory it takes, whether a text is drawn, and the same grid without one."""
    chosen = llmcompressor.Options(**options)
    same = llmcompressor.without_data(chosen)

    assert llmcompressor.weight_bits(chosen) == bits
    assert llmcompressor.reads_text(chosen) == llmcompressor.is_seeded(chosen) == reads_text
    assert same == (None if twin is None else Step("llmcompressor", twin))


@pytest.mark.engine
def test_llama_cpp_stores_every_layer_as_floats_in_blocks(llamacpp_python: Path, tmp_path: Path) -> None:
    """Embedding in q8_0; the file says what it is; values are within the grid's rounding of those they stand for."""
    results = json_of(llamacpp_python, "quantize/float_gguf_checks.py", DEMO, cwd=tmp_path, timeout=1800)

    for kind, bits, name in (("mxfp4", 4.25, "MXFP4 MoE"), ("nvfp4", 4.5, "NVFP4")):
        facts = results[kind]
        assert facts["bits"] == bits
        assert facts["types"] == {"f32": 11, kind: 35, "q8_0": 1}
        assert (facts["notes"], facts["file_type"]) == ([], name)
        assert 0.05 < facts["weights"] < 0.15
        assert facts["logits"] < 0.02  # of q8_0 activations, beside floats of the same values
        assert 0.1 < facts["error"] < 0.3


@pytest.mark.parametrize(
    ("options", "inputs", "reason"),
    [
        ({"type": "nvfp4"}, 96, "nvfp4 has blocks of 64 weights, and 64 does not divide the 96 inputs of l.q_proj"),
        ({"type": "mxfp4"}, 96, None),
        ({"type": "mxfp4"}, 80, "mxfp4 has blocks of 32 weights, and 32 does not divide the 80 inputs"),
        ({"type": "mxfp4", "imatrix": True}, 64, "does not weigh by an importance matrix where it rounds to mxfp4"),
        ({"type": "q4_k_m"}, 80, None),
    ],
)
def test_what_llama_cpp_cannot_store_in_blocks(options: dict[str, Any], inputs: int, reason: str | None) -> None:
    """Rows that its blocks do not divide, and a text that it would not look at."""
    source = Source("gguf", {"l.q_proj": (64, inputs)}, {"max_position_embeddings": 1024})
    refusal = gguf.unsupported(gguf.Options(**options), source, CPU)

    assert refusal is None if reason is None else reason in str(refusal)


def test_every_scheme_suits_the_demo_model() -> None:
    """All schemes, with the options that are set where none is given."""
    source = formats.source(DEMO)
    for scheme in get_args(llmcompressor._Scheme):
        assert llmcompressor.unsupported(llmcompressor.Options(scheme=scheme), source, CPU) is None
