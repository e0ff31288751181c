"""Each quantization method on the demo model, in its own environment; then audited and reloaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import formats
from bench.contract import plugins
from bench.contract.record import Audit, Hardware, Source
from bench.contract.spec import Model
from bench.models import resolve

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")

_SMALL = {"samples": 12, "length": 64}  # not a multiple of the batch: a last, smaller one must count too
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", _SMALL),
    "gptq-actorder": ("gptq", {**_SMALL, "desc_act": True}),
    "awq": ("awq", {**_SMALL, "samples": 4}),
    "nf4": ("bnb", {"type": "nf4"}),
    "nf4-dq": ("bnb", {"type": "nf4", "double_quant": True}),
    "fp4": ("bnb", {"type": "fp4"}),
    "int8": ("bnb", {"type": "int8"}),
}
# 4 bits + 16-bit scales and 4-bit zeros per 128 weights = 4.156; GPTQ adds 32 bits per input for the order
# of groups. bitsandbytes: 32-bit scales per 64 weights = 4.5, 8-bit ones = 4.13; int8: 32 per output.
BITS = {
    "gptq": (4.24, 4.26),
    "gptq-actorder": (4.24, 4.26),
    "awq": (4.156, 4.157),
    "nf4": (4.5, 4.52),
    "nf4-dq": (4.13, 4.24),
    "fp4": (4.5, 4.52),
    "int8": (8.0, 8.12),
}
# RMS error of the logits over the baseline's standard deviation; the baseline in disguise reads 0.
# On the demo model that ships, nf4 and fp4 read 0.16 and 0.21 (on an early checkpoint 0.04 and 0.06).
# What a broken one would read was not measured on it: the bounds leave about a quarter above what is.
ERROR = {"gptq": 0.12, "gptq-actorder": 0.12, "awq": 0.12, "nf4": 0.2, "nf4-dq": 0.2, "fp4": 0.26, "int8": 0.05}

_APPLY = """
import importlib, json, sys
from pathlib import Path
name, options, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
method = importlib.import_module(f"quantize.methods.{name}")
facts = method.apply(Path(sys.argv[4]), method.Options(**options), out, "cpu")
(out.parent / f"{out.name}.json").write_text(json.dumps(facts))
"""
_COMPARE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
from quantize import calibration
from pathlib import Path
ids = torch.tensor(calibration.samples(Path(sys.argv[1]), "stdlib", 8, 128, seed=7).ids)
def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layer = model.model.layers[0].self_attn.q_proj
    seen = []
    layer.register_forward_hook(lambda _, given, made: seen.extend([str(given[0].dtype), str(made.dtype)]))
    with torch.no_grad():
        return model(input_ids=ids).logits.float(), type(layer).__name__, sorted(set(seen))
base, found = logits(sys.argv[1])[0], {}
for folder in sys.argv[2:]:
    made, kernel, dtypes = logits(folder)
    error = ((made - base).pow(2).mean() / base.var()).sqrt().item()
    found[Path(folder).name] = {"error": error, "kernel": kernel, "dtypes": dtypes}
print("RESULT" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, hf_python: Path) -> Path:
    """A folder with an artifact, and the facts its method returned, for each of RECIPES."""
    home = tmp_path_factory.mktemp("methods")
    for recipe, (method, options) in RECIPES.items():
        (home / recipe).mkdir()
        _run(hf_python, home, _APPLY, method, json.dumps(options), str(home / recipe), str(DEMO))
    return home


@pytest.fixture(scope="module")
def reloaded(artifacts: Path, hf_python: Path) -> dict[str, dict[str, Any]]:
    """What transformers computes from each artifact, against the unquantized model, in one process."""
    stdout = _run(hf_python, artifacts, _COMPARE, str(DEMO), *(str(artifacts / recipe) for recipe in RECIPES))
    return dict(json.loads(stdout.partition("RESULT")[2]))


def _run(python: Path, home: Path, code: str, *words: str) -> str:
    """As the suite's worker runs: another interpreter, an empty working folder, the checkout on its path."""
    scratch = home / "scratch"
    scratch.mkdir(exist_ok=True)
    search = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    done = subprocess.run(
        [str(python), "-c", code, *words],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "PATH": search, "PYTHONPATH": str(ROOT), "GPTQMODEL_CPU_WORKERS": "2"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def _audit(artifacts: Path, recipe: str) -> Audit:
    return formats.audit(artifacts / recipe, formats.source(DEMO).linears)


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_linear_layer_is_stored_in_so_many_bits(artifacts: Path, recipe: str) -> None:
    """Bits per weight are the method's arithmetic, all block linears quantized, the format as promised."""
    audit = _audit(artifacts, recipe)
    least, most = BITS[recipe]

    assert least <= audit.bits_per_weight <= most
    assert audit.quantized_fraction == 1.0
    assert audit.tied_head
    assert audit.notes == ()
    assert audit.format == plugins.load(plugins.METHODS, RECIPES[recipe][0]).WRITES


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_format_alone_tells_the_same(artifacts: Path, recipe: str) -> None:
    """Without the source's shapes the audit comes to the same parameters and bits."""
    audit, derived = _audit(artifacts, recipe), formats.audit(artifacts / recipe, None)

    assert derived.linear_parameters == audit.linear_parameters
    assert derived.bits_per_weight == audit.bits_per_weight


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_reloaded_model_is_near_the_baseline(reloaded: dict[str, dict[str, Any]], recipe: str) -> None:
    """Plain transformers loads the folder, computes in the type asked for, and errs as rounding does."""
    assert 0.0005 < reloaded[recipe]["error"] < ERROR[recipe]
    assert reloaded[recipe]["dtypes"] == ["torch.float32"]
    assert reloaded[recipe]["kernel"] != "Linear"


@pytest.mark.engine
@pytest.mark.usefixtures("cache")
def test_a_checkpoint_as_older_tools_left_it_computes_the_same(
    artifacts: Path, reloaded: dict[str, dict[str, Any]], hf_python: Path, tmp_path: Path
) -> None:
    """Settings in a file of their own under that tool's names, weights under another name: the same logits."""
    older = {"bits": "w_bit", "group_size": "q_group_size"}
    names: dict[str, tuple[str, dict[str, str]]] = {
        "gptq": ("quantize_config.json", {}),
        "awq": ("quant_config.json", older),
    }
    folders = []
    for recipe, (file, renamed) in names.items():
        shutil.copytree(artifacts / recipe, old := tmp_path / recipe)
        (old / "quantize_config.json").unlink(missing_ok=True)
        config = json.loads((old / "config.json").read_text())
        stated = config.pop("quantization_config")
        settings = {renamed.get(k, k): v for k, v in stated.items() if k in ("bits", "group_size", "desc_act", "sym")}
        (old / file).write_text(json.dumps(settings))
        (old / "config.json").write_text(json.dumps(config))
        (old / "model.safetensors").rename(old / f"{recipe}_model-4bit-128g.safetensors")
        folders.append(resolve.resolve(Model(str(old)), fetch=False).local_folder)
    read = json.loads(_run(hf_python, tmp_path, _COMPARE, str(DEMO), *map(str, folders)).partition("RESULT")[2])

    for recipe in names:
        assert read[recipe]["error"] == pytest.approx(reloaded[recipe]["error"], rel=1e-6)
        assert read[recipe]["kernel"] == reloaded[recipe]["kernel"]


@pytest.mark.engine
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_not_weights_is_the_source_s(artifacts: Path, recipe: str) -> None:
    """Tokenizer files are copied, config.json differs by type and quantization alone."""
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (artifacts / recipe / file).read_bytes() == (DEMO / file).read_bytes()
    config, source = (json.loads((f / "config.json").read_text()) for f in (artifacts / recipe, DEMO))
    changed = {key for key in config if config[key] != source.get(key, "absent")}
    assert changed <= {"quantization_config", "dtype"}
    assert set(config) - set(source) == {"quantization_config"}


@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["gptq", "gptq-actorder", "awq"])
def test_every_calibration_token_is_used_and_on_record(artifacts: Path, recipe: str) -> None:
    """The library saw all samples, none dropped or padded; the text's hash is beside the weights."""
    facts = json.loads((artifacts / f"{recipe}.json").read_text())
    options = RECIPES[recipe][1]
    document = json.loads((artifacts / recipe / "calibration.json").read_text())

    assert facts["calibration_tokens"] == options["samples"] * options["length"]
    assert facts["calibration_tokens_least_seen"] == facts["calibration_tokens"]
    assert facts["modules_quantized"] == 35
    assert facts["modules_by_fallback"] == []
    assert facts["loss_mean"] > 0
    assert document["sha256"] == facts["calibration_sha256"]


@pytest.mark.engine
def test_gptq_is_the_paper_s_unless_asked(artifacts: Path) -> None:
    """The library's own reordering is off, and act-order is what the option says."""
    plain, ordered = (json.loads((artifacts / f"{r}.json").read_text())["settings"] for r in ("gptq", "gptq-actorder"))

    assert (plain["act_group_aware"], plain["desc_act"]) == (False, False)
    assert (ordered["act_group_aware"], ordered["desc_act"]) == (False, True)


@pytest.mark.parametrize("name", ["awq", "bnb", "gptq", "none"])
def test_a_method_is_a_plugin(name: str) -> None:
    """Each module has what the protocol asks for, and takes the demo model as it is."""
    method = plugins.load(plugins.METHODS, name)

    assert ("core" if name == "none" else "hf") == method.ENV
    assert isinstance(method.VERSION, int)
    assert {"hf"} == method.READS
    assert method.unsupported(method.Options(), formats.source(DEMO), CPU) is None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("gptq", {"group_size": 512}, r"group_size 512 does not divide the 768 inputs of model\.layers\.0"),
        ("gptq", {"group_size": -1}, "no CPU kernel runs 4 bits in groups of 768"),
        ("awq", {"group_size": 16}, "no CPU kernel runs 4 bits in groups of 16"),
        ("gptq", {"length": 2048}, "2048 tokens are longer than the model's context of 1024"),
        ("gptq", {"desc_act": True, "act_group_aware": True}, "choose one"),
        ("gptq", {"damp_percent": 0.0}, "not between 0 and 1"),
        ("gptq", {"batch_size": 0}, "not at least 1"),
        ("awq", {"batch_size": 0}, "not at least 1"),
        ("awq", {"length": 2048}, "context of 1024"),
        ("bnb", {"type": "int8", "double_quant": True}, "double_quant is for"),
    ],
)
def test_what_cannot_work_is_said_beforehand(name: str, options: dict[str, Any], reason: str) -> None:
    """Options that this model has no room for are refused with the layer and the number."""
    method = plugins.load(plugins.METHODS, name)
    refusal = method.unsupported(method.Options(**options), formats.source(DEMO), CPU)

    assert refusal is not None
    assert re.search(reason, refusal)


def test_a_layer_with_odd_outputs_does_not_fit_the_gemm_layout() -> None:
    """AWQ packs eight outputs in a word; a layer with another number is named."""
    method = plugins.load(plugins.METHODS, "awq")
    source = Source("hf", {"model.layers.0.router": (6, 256)}, {})

    assert "model.layers.0.router has 6" in (method.unsupported(method.Options(), source, CPU) or "")


@pytest.mark.parametrize("name", ["awq", "bnb"])
def test_a_router_of_few_experts_is_no_hindrance(name: str) -> None:
    """Mixtral's and Qwen's gate is left as it is by every library."""
    method = plugins.load(plugins.METHODS, name)
    linears = {"model.layers.0.mlp.gate": (4, 256), "model.layers.0.self_attn.q_proj": (256, 256)}

    assert method.unsupported(method.Options(), Source("hf", linears, {}), replace(CPU, isa=("avx512_bf16",))) is None


def test_four_bits_of_bitsandbytes_are_packed_by_32_outputs_on_some_cpus() -> None:
    """Where the CPU multiplies bfloat16; on others, and in 8 bits, any number of outputs will do."""
    method = plugins.load(plugins.METHODS, "bnb")
    source = Source("hf", {"model.layers.0.x_proj": (48, 256)}, {})
    packing = replace(CPU, isa=("avx512_bf16",))

    assert "x_proj has 48" in (method.unsupported(method.Options(), source, packing) or "")
    assert method.unsupported(method.Options(), source, CPU) is None
    assert method.unsupported(method.Options(type="int8"), source, packing) is None


@pytest.mark.parametrize("name", ["bnb", "torchao"])
def test_mamba_reads_a_weight_that_these_would_pack(name: str) -> None:
    """Not a traceback at the first token."""
    method = plugins.load(plugins.METHODS, name)
    source = Source("hf", {}, {"model_type": "mamba"})

    assert "reads the weight of dt_proj itself" in (method.unsupported(method.Options(), source, CPU) or "")
