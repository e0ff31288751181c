"""`first_token_weight`: what it changes in each library, and that it changes nothing where it is 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract import plugins
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.run import artifacts
from quantize import calibration
from tests.conftest import ROOT
from tests.quantize import in_environment

DEMO = ROOT / "models" / "demo"
CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")
WEIGHTED = sorted(
    name
    for name in plugins.names(plugins.METHODS)
    if issubclass(plugins.load(plugins.METHODS, name).Options, calibration.WeightedOptions)
)

# Method and options of one library each; the environment is the one these options choose.
_SMALL = {"samples": 8, "length": 64}
LIBRARIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gptqmodel": ("gptq", _SMALL),
    "gptqmodel-awq": ("awq", _SMALL),
    "autoawq": ("awq", {**_SMALL, "backend": "autoawq"}),
    "llm-compressor": ("llmcompressor", _SMALL),
    "llm-compressor-sparsegpt": ("sparsegpt", _SMALL),
    "wanda": ("wanda", _SMALL),
}
_ENVS = {"autoawq": ("autoawq", "hf"), "llm-compressor": ("llmcompressor",)}  # that make it, and that read it
_ENVS["llm-compressor-sparsegpt"] = ("llmcompressor", "hf")
_DECLARED = [pytest.param(name, marks=pytest.mark.needs(*_ENVS.get(name, ("hf",)))) for name in LIBRARIES]
# AWQ searches for clipping next, where all tokens count alike, which hides what the search for scales has gained.
_UNCLIPPED = """
from gptqmodel.looper.awq_processor import AWQProcessor
AWQProcessor._search_best_clip = lambda *_, **__: []
"""
# Those whose layers' errors are observed while they are made.
OBSERVED = ("gptqmodel", "llm-compressor", "llm-compressor-sparsegpt")
_KINDS = {f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")}
_MAKE = """
import importlib, json, sys
from pathlib import Path
name, options, demo, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
method = importlib.import_module(f"quantize.methods.{name}")
for weight in (1.0, 1000.0):
    folder = out / f"weight-{weight:.0f}"
    folder.mkdir()
    facts = method.apply(demo, method.Options(**options, first_token_weight=weight), folder, "cpu")
    folder.with_suffix(".json").write_text(json.dumps(facts))
"""
# The change of v_proj's outputs in the first layer, relative to them: at first tokens, and at all others.
_ERRORS = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from quantize import calibration
demo, *folders = map(Path, sys.argv[1:])
ids = torch.tensor(calibration.samples(demo, "stdlib", 8, 64, 0).ids)

def outputs(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layer_outputs = []
    layer = model.get_submodule("model.layers.0.self_attn.v_proj")
    layer.register_forward_hook(lambda _, inputs, output: layer_outputs.append(output.detach().float()))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    return layer_outputs[0]

base, errors = outputs(demo), []
for folder in folders:
    change = outputs(folder) - base
    parts = ((change[:, 0], base[:, 0]), (change[:, 1:], base[:, 1:]))
    errors.append([float((c.square().sum() / b.square().sum()).sqrt()) for c, b in parts])
print("RESULT" + json.dumps(errors))
"""
# The importance of one tensor's columns with first tokens that count 1, 3 and a billion times; its tokens.
_IMPORTANCE = """
import json, sys
from pathlib import Path
from quantize import calibration
from quantize.backends import imatrix
from quantize.methods import gguf
demo, out = map(Path, sys.argv[1:])
gguf.apply(demo, gguf.Options(type="f16"), out, "cpu")
ids = calibration.samples(demo, "stdlib", 1, 48, 0).ids
kinds = [imatrix.collect(out / "model.gguf", ids, "cpu", weight)["blk.1.attn_v.weight"] for weight in (1.0, 3.0, 1e9)]
print("RESULT" + json.dumps([kind.tolist() for kind in kinds]))
"""

# Importances by activation: of neurons and heads unweighted, and with first tokens that count 1, 3 and 1e4 times; of
# layers with 1, 2 and 5.
_UNITS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from quantize import calibration, first_token, surgery, transformer
demo = Path(sys.argv[1])
text, model = calibration.samples(demo, "stdlib", 8, 64, 0), transformer.load(demo, "cpu")

def scores(what, weight):
    weights = weight and first_token.Weights(replace(text, first_token_weight=weight))
    return surgery.importance(model, text.ids, "cpu", what, "activation", weights).tolist()

result = {what: [scores(what, weight) for weight in (None, 1.0, 3.0, 1e4)] for what in ("neurons", "heads")}
print("RESULT" + json.dumps({**result, "layers": [scores("layers", weight) for weight in (1.0, 2.0, 5.0)]}))
"""
# What the last block of AutoAWQ's model gets and gives, without and with a weight, against plain transformers.
_CARRIED = """
import json, sys
from pathlib import Path
import torch
from awq.quantize.quantizer import AwqQuantizer
from transformers import AutoModelForCausalLM
from quantize import calibration
from quantize.methods import awq
demo, out = map(Path, sys.argv[1:])
quantize, quantizers = AwqQuantizer.quantize, []
AwqQuantizer.quantize = lambda self: (quantizers.append(self), quantize(self))[1]
for weight in (1.0, 1000.0):
    folder = out / f"weight-{weight:.0f}"
    folder.mkdir()
    options = awq.Options(samples=2, length=32, backend="autoawq", first_token_weight=weight)
    awq.apply(demo, options, folder, "cpu")
plain, weighted = (quantizer.inps for quantizer in quantizers)
model = AutoModelForCausalLM.from_pretrained(demo, torch_dtype=torch.float32).eval()
outputs = []
model.model.layers[-1].register_forward_hook(lambda _, inputs, output: outputs.append(output))
with torch.no_grad():
    model(input_ids=torch.tensor(calibration.samples(demo, "stdlib", 2, 32, 0).ids), use_cache=False)
expected = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
errors = [float((inps - expected).abs().max() / expected.abs().max()) for inps in (plain, weighted)]
print("RESULT" + json.dumps(errors))
"""
# Whether AWQ's search for clipping gets a layer's inputs as they are, for each layer, with a weight.
_CLIPPED = """
import importlib, json, sys
from pathlib import Path
from quantize.methods import awq
demo, out, backend, module, name = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
owner = getattr(importlib.import_module(module), name)
search, compute, inputs, unchanged = owner._search_best_clip, owner._compute_best_clip, [], []

def searching(self, layer, named, features):
    inputs[:] = features.values()
    return search(self, layer, named, features)

def computing(self, weight, features, *rest):
    unchanged.append(any(features is given for given in inputs))
    return compute(self, weight, features, *rest)

owner._search_best_clip, owner._compute_best_clip = searching, computing
awq.apply(demo, awq.Options(samples=2, length=32, backend=backend, first_token_weight=1000.0), out, "cpu")
print("RESULT" + json.dumps(unchanged))
"""
# Wanda with a weight, on a model whose linear layers get tokens one by one, as experts do.
_FLATTENED = """
import sys
from pathlib import Path
from torch.nn import Linear
from quantize.methods import wanda
demo, out = map(Path, sys.argv[1:])
call = Linear.__call__
Linear.__call__ = lambda self, x: call(self, x.flatten(0, -2)).unflatten(0, x.shape[:-1])
wanda.apply(demo, wanda.Options(samples=2, length=32), out, "cpu")
try:
    wanda.apply(demo, wanda.Options(samples=2, length=32, first_token_weight=100.0), out, "cpu")
except RuntimeError as error:
    print(f"RESULT{error}")
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("library", _DECLARED)
def test_a_token_that_counts_more_is_changed_less(tmp_path: Path, library: str) -> None:
    """With weight 1000 the first tokens' outputs are nearer to the unquantized ones than with 1, in every library.

    What is recorded of all layers, where it is, says the same of each kind.
    """
    method, options = LIBRARIES[library]
    env, words = plugins.step_env(Step(method, options)), (method, json.dumps(options), str(DEMO), str(tmp_path))
    in_environment.run(env, tmp_path, (_UNCLIPPED if library == "gptqmodel-awq" else "") + _MAKE, *words)
    folders = [tmp_path / "weight-1", tmp_path / "weight-1000"]
    reader = "llmcompressor" if method == "llmcompressor" else "hf"
    (plain, plain_others), (weighted, others) = json.loads(
        in_environment.run(reader, tmp_path, _ERRORS, str(DEMO), *map(str, folders))
    )

    assert weighted < plain
    assert weighted / others < plain / plain_others

    one, many = (json.loads(folder.with_suffix(".json").read_text()) for folder in folders)
    assert (one.get("first_token_weight"), many["first_token_weight"]) == (None, 1000)
    for facts in (one, many):
        assert set(facts.get("output_errors_by_kind", {})) == (_KINDS if library in OBSERVED else set())
    for kind, (first, _) in one.get("output_errors_by_kind", {}).items():
        assert many["output_errors_by_kind"][kind][0] < first


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("autoawq")
def test_autoawq_calibrates_every_block_on_what_the_unquantized_ones_before_it_give(tmp_path: Path) -> None:
    """A weight changes what is compared, not the activations that are carried from block to block."""
    plain, weighted = json.loads(in_environment.run("autoawq", tmp_path, _CARRIED, str(DEMO), str(tmp_path)))

    assert plain < 1e-4
    assert weighted < 1e-4


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "backend", "module", "name"),
    [
        pytest.param(
            *("hf", "gptqmodel", "gptqmodel.looper.awq_processor", "AWQProcessor"), marks=pytest.mark.needs("hf")
        ),
        pytest.param(
            *("autoawq", "autoawq", "awq.quantize.quantizer", "AwqQuantizer"), marks=pytest.mark.needs("autoawq")
        ),
    ],
)
def test_clipping_is_searched_without_a_weight(tmp_path: Path, env: str, backend: str, module: str, name: str) -> None:
    """That search keeps every n-th row of the text, which are all first tokens or none: a weight has no meaning."""
    unchanged = json.loads(in_environment.run(env, tmp_path, _CLIPPED, str(DEMO), str(tmp_path), backend, module, name))

    assert unchanged
    assert all(unchanged)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("hf")
def test_pruning_says_where_a_weight_had_no_effect(tmp_path: Path) -> None:
    """Where no layer gets whole windows, a weight is refused; without one the model is pruned."""
    reason = in_environment.run("hf", tmp_path, _FLATTENED, str(DEMO), str(tmp_path / "out"))

    assert "first_token_weight had no effect" in reason


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("llamacpp")
def test_an_importance_matrix_counts_first_tokens_as_often_as_asked(tmp_path: Path) -> None:
    """Of one window of 48 tokens: the mean with the first three times, as large as others at most, of its parts."""
    every, thrice, first = json.loads(in_environment.run("llamacpp", tmp_path, _IMPORTANCE, str(DEMO), str(tmp_path)))

    others = [(48 * a - b) / 47 for a, b in zip(every, first, strict=True)]
    times = 3 * min(1.0, sum(others) / sum(first))
    expected = [(47 * a + times * b) / (47 + times) for a, b in zip(others, first, strict=True)]
    assert thrice == pytest.approx(expected, rel=1e-3)
    assert first != pytest.approx(every, rel=0.1)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weight_of_one_is_the_artifact_of_before(name: str) -> None:
    """Naming the option at its default leaves an artifact's digest, and no other weight has it."""
    one, named, other = (
        artifacts.digests("model", (Step(name, options),))
        for options in ({}, {"first_token_weight": 1.0}, {"first_token_weight": 100.0})
    )
    assert one == named
    assert other != one


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_weighs_nothing_is_refused(name: str, weight: float) -> None:
    """Zero, negative and infinite weights are refused before anything is made."""
    method = plugins.load(plugins.METHODS, name)
    options = {"imatrix": True} if name == "gguf" else {}
    reason = method.unsupported(method.Options(**options, first_token_weight=weight), Source("hf", {}, {}), CPU)

    assert reason is not None
    assert "first_token_weight" in reason


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("gguf", {"type": "q4_0"}, "no text is read without imatrix: true"),
        ("llmcompressor", {"algorithm": "rtn"}, "algorithm: gptq"),
        ("llmcompressor", {"scheme": "w8a8", "algorithm": "rtn"}, "SmoothQuant's maxima"),
        ("llmcompressor", {"scheme": "fp8-dynamic"}, "weigh no token's error"),
        ("structured", {"importance": "loss"}, "importance: activation has a weight"),
    ],
)
def test_a_weight_that_would_change_nothing_is_refused(name: str, options: dict[str, Any], why: str) -> None:
    """Before anything is made, with what to do; without a weight the same options are not."""
    method = plugins.load(plugins.METHODS, name)
    reason = method.unsupported(method.Options(**options, first_token_weight=100.0), Source("hf", {}, {}), CPU)

    assert reason is not None
    assert reason.startswith("first_token_weight 100 would change nothing: ")
    assert why in reason
    assert method.unsupported(method.Options(**options), Source("hf", {}, {}), CPU) is None


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.needs("hf")
def test_importances_count_first_tokens_as_often_as_asked(tmp_path: Path) -> None:
    """Squared scores of neurons, and the sum of what a layer changes, grow by the first tokens' part alone."""
    scores = json.loads(in_environment.run("hf", tmp_path, _UNITS, str(DEMO)))

    unweighted, one, _, many = scores["heads"]
    assert one == unweighted != many
    unweighted, one, three, many = ([[value**2 for value in row] for row in its] for its in scores["neurons"])
    assert one == unweighted
    for first, second, last in zip(one, three, many, strict=True):
        grown = [(b - a, c - a) for a, b, c in zip(first, second, last, strict=True) if abs(b - a) > a / 1000]
        assert len(grown) > len(first) / 2
        assert [c * grown[0][0] for _, c in grown] == pytest.approx([b * grown[0][1] for b, _ in grown], rel=2e-2)
    tokens = {weight: 8 * 64 + (weight - 1) * 8 for weight in (1, 2, 5)}
    one, two, five = (
        [value * tokens[w] for value in row[0]] for w, row in zip((1, 2, 5), scores["layers"], strict=True)
    )
    grown = [(b - a, c - a) for a, b, c in zip(one, two, five, strict=True)]
    assert [c for _, c in grown] == pytest.approx([4 * b for b, _ in grown], rel=1e-3)
    assert all(b > 0 for b, _ in grown)


def test_methods_that_count_errors_over_text_have_it() -> None:
    """Those that minimize an error over calibration text, or rank by sums over it, and no others."""
    assert WEIGHTED == ["awq", "gguf", "gptq", "llmcompressor", "sparsegpt", "structured", "wanda"]
