"""torchao on the demo model: made, audited, and loaded again to the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import formats
from bench.contract import plugins
from bench.contract.record import Gpu, Hardware
from tests.conftest import ROOT, json_of

DEMO = ROOT / "models" / "demo"
RECIPES: dict[str, dict[str, Any]] = {
    "int8wo": {"scheme": "int8-weight-only"},
    "int8dyn": {"scheme": "int8-dynamic"},
    "int8static": {"scheme": "int8-static", "samples": 12, "length": 64},
    "fp8wo": {"scheme": "fp8-weight-only"},
    "intx4": {"scheme": "intx-weight-only"},
    "8da4w": {"scheme": "int8-dynamic-intx"},
    "intx3row": {"scheme": "intx-weight-only", "bits": 3, "group_size": -1},
    "intx4g96": {"scheme": "intx-weight-only", "group_size": 96},
}
# 8 bits, and 40 of scale and zero per row of 256 or 768; fp8 has no zero; static adds 32 a layer; groups of
# 64 have 40 bits each. 96 divides the 768 inputs of down_proj alone: a quarter has 8 5/12, the rest 32 bits.
BITS = {
    "int8wo": 8.13,
    "int8dyn": 8.13,
    "int8static": 8.13,
    "fp8wo": 8.104,
    "intx4": 8.625,
    "8da4w": 8.625,
    "intx3row": 8.13,
    "intx4g96": 26.104,
}
WEIGHTS = {
    "int8wo": "Int8Tensor",
    "int8dyn": "Int8Tensor",
    "int8static": "Int8Tensor",
    "fp8wo": "Float8Tensor",
    "intx4": "IntxUnpackedToInt8Tensor int4",
    "8da4w": "IntxUnpackedToInt8Tensor int4",
    "intx3row": "IntxUnpackedToInt8Tensor int3",
}
ACTIVATIONS = {
    "int8dyn": "int8 per token, dynamic x35",
    "int8static": "int8 per layer, static x35",
    "8da4w": "int8 asymmetric per token, dynamic x35",
}
# RMS error of the logits over the baseline's standard deviation: a quarter above what was seen.
ERROR = {
    "int8wo": 0.02,
    "int8dyn": 0.05,
    "int8static": 0.1,
    "fp8wo": 0.08,
    "intx4": 0.3,
    "8da4w": 0.3,
    "intx3row": 1.0,
    "intx4g96": 0.3,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchao")


@pytest.fixture(scope="module")
def outputs(home: Path, hf_python: Path) -> dict[str, Any]:
    """What torchao_checks.py saw in the hf environment."""
    return dict(json_of(hf_python, "quantize/torchao_checks.py", DEMO, home, json.dumps(RECIPES), cwd=home))


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_loads_to_the_logits_it_had_when_it_was_made(outputs: dict[str, Any], recipe: str) -> None:
    """Bit for bit, in the engine; and in Transformers alone, which forgets static scales and says so."""
    result = outputs[recipe]

    assert result["equal"]
    assert result["plain"] == ("refused" if recipe == "int8static" else "equal")
    assert 0.001 < result["error"] < ERROR[recipe]
    assert len(result["tokens"]) == 4


@pytest.mark.engine
@pytest.mark.parametrize("recipe", WEIGHTS)
def test_receipts_tell_the_tensors_and_the_activations(outputs: dict[str, Any], recipe: str) -> None:
    """The class of each weight and its inner dtype, and how activations are quantized."""
    receipts = outputs[recipe]["receipts"]

    assert receipts["kernel"] == f"Linear[{WEIGHTS[recipe]}] x35, Linear x1"
    assert receipts.get("activations") == ACTIVATIONS.get(recipe)
    shares = dict(part.split() for part in receipts["weight_dtype"].split(", "))
    assert set(shares) == {"float32", "float8_e4m3fn" if recipe == "fp8wo" else "int8"}
    assert receipts["compute_dtype"] == "float32"


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_audit_counts_what_is_stored(outputs: dict[str, Any], home: Path, recipe: str) -> None:
    """With the source's shapes and without; weights in memory are those of the file."""
    audit, derived = formats.audit(home / recipe, formats.source(DEMO).linears), formats.audit(home / recipe, None)

    assert audit.format == "torchao"
    assert audit.bits_per_weight == pytest.approx(BITS[recipe], abs=0.001)
    assert audit.quantized_fraction == (0.25 if recipe == "intx4g96" else 1.0)
    assert (derived.linear_parameters, derived.bits_per_weight, derived.notes) == (
        audit.linear_parameters,
        audit.bits_per_weight,
        audit.notes,
    )
    assert outputs[recipe]["memory"]["weights_bytes"] == pytest.approx(audit.weight_bytes, rel=1e-3)
    narrow = {"intx4": 4, "8da4w": 4, "intx3row": 3}
    if recipe in narrow:
        assert audit.notes == (f"{narrow[recipe]}-bit values stored in 8 bits each, scales apart: 35 layers",)


@pytest.mark.engine
def test_a_layer_that_is_left_whole_is_named(outputs: dict[str, Any], home: Path) -> None:
    """Groups of 96 divide the inputs of down_proj alone: facts, config and audit name the others."""
    facts = outputs["intx4g96"]["facts"]
    config = json.loads((home / "intx4g96" / "config.json").read_text())["quantization_config"]
    notes = formats.audit(home / "intx4g96", formats.source(DEMO).linears).notes

    assert facts["modules_quantized"] == 5
    assert len(facts["modules_skipped"]) == 30
    assert config["modules_to_not_convert"] == facts["modules_skipped"]
    assert notes[0].startswith("not quantized: model.layers.0.mlp.gate_proj, ")
    assert notes[0].endswith(" and 26 more")
    assert outputs["intx4g96"]["receipts"]["kernel"] == "Linear x31, Linear[IntxUnpackedToInt8Tensor int4] x5"


@pytest.mark.engine
def test_what_was_calibrated_on_is_on_record(outputs: dict[str, Any], home: Path) -> None:
    """Static scales come from as many tokens as asked; the text's hash is beside the weights."""
    facts = outputs["int8static"]["facts"]

    assert facts["calibration_tokens"] == 12 * 64
    document = json.loads((home / "int8static" / "calibration.json").read_text())
    assert document["sha256"] == facts["calibration_sha256"]
    assert not (home / "int8dyn" / "calibration.json").exists()


@pytest.mark.engine
def test_another_arithmetic_than_the_artifact_s_is_refused(outputs: dict[str, Any]) -> None:
    """Quantized weights unpack to the type they were made in; a kernel would fail at the first token."""
    assert "computes in float32 only, not in bfloat16: set the engine's dtype to float32" in outputs["narrow"]


@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["intx4", "8da4w"])
def test_a_trained_model_becomes_the_same_artifact(outputs: dict[str, Any], home: Path, recipe: str) -> None:
    """Rounded in training as when made; converted and loaded again, its logits are what they were."""
    result, trained = outputs["trained"][recipe], home / f"{recipe}-trained"

    assert (result["as_rounded"], result["learned"], result["kept"]) == (True, True, True)
    assert result["facts"]["settings"] == outputs[recipe]["facts"]["settings"]
    assert formats.audit(trained, None) == formats.audit(home / recipe, None)


def _hardware(capability: str = "") -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    device = "cuda:0" if gpus else "cpu"
    dtype = "bfloat16" if gpus and capability >= "8" else "float16" if gpus else "float32"
    return Hardware(device, "s", "n", 1, "c", 2, 1, (), dtype, "Linux", gpus)


@pytest.mark.parametrize(
    ("options", "capability", "reason"),
    [
        *(({"scheme": scheme}, "", None) for scheme in ("int8-static", "int8-dynamic", "fp8-weight-only")),
        ({"scheme": "intx-weight-only", "bits": 2}, "", None),
        ({"scheme": "int4-weight-only"}, "", "can only be pickled"),
        ({"scheme": "int4-weight-only"}, "9.0", None),
        ({"scheme": "int4-weight-only"}, "7.5", "needs a GPU of compute capability 8.0"),
        ({"scheme": "int4-weight-only", "dtype": "float16"}, "9.0", "in bfloat16 only, not in float16"),
        ({"scheme": "int4-weight-only", "group_size": 16}, "9.0", "groups of 32, 64, 128 or 256, not of 16"),
        ({"scheme": "int4-weight-only", "group_size": -1}, "9.0", "group_size -1 is not at least 1"),
        ({"scheme": "fp8-dynamic"}, "", "takes a GPU of compute capability 8.9"),
        ({"scheme": "fp8-dynamic"}, "8.6", "needs a GPU of compute capability 8.9"),
        ({"scheme": "fp8-dynamic"}, "8.9", None),
        ({"scheme": "intx-weight-only", "group_size": 0}, "", "group_size 0 is not at least 1"),
        ({"scheme": "intx-weight-only", "group_size": 512}, "", "512 divides the inputs of no linear layer"),
        ({"scheme": "int8-dynamic", "bits": 3}, "", "bits are chosen in intx-weight-only"),
        ({"scheme": "int8-static", "length": 2048}, "", "longer than the model's context of 1024"),
        ({"scheme": "int8-static", "batch_size": 0}, "", "not at least 1"),
    ],
)
def test_what_cannot_be_made_is_said_beforehand(options: dict[str, Any], capability: str, reason: str | None) -> None:
    """By the hardware's capability and arithmetic, and by the model's shapes."""
    method = plugins.load(plugins.METHODS, "torchao")
    refusal = method.unsupported(method.Options(**options), formats.source(DEMO), _hardware(capability))

    assert (refusal is None) if reason is None else (reason in (refusal or ""))
