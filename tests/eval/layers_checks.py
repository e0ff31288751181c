"""Passes that begin in the middle of a model against whole ones, as one JSON object.

`python layers_checks.py MODEL WORK`, in the hf environment: on the demo model, and on small models of other kinds with
random weights (GPT-2, whose blocks may return tuples and whose layers are Conv1D; Gemma 3, with layers of two kinds).
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.contract.errors import UserError
from bench.engines.hf import layers as hf_layers
from eval.layers import measure, network, units
from eval.text.windows import Window


def main(folder: Path, work: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {"demo": network.load(folder, "cpu"), "gpt2": _gpt2(), "gemma3": _gemma3()}
    compared = {name: _compared(model, work / name) for name, model in models.items()}
    return {
        **compared,
        "interrupted": _interrupted(models["demo"], work / "interrupted"),
        "units": {by: _units(models["demo"], by) for by in ("layer", "kind", "block")},
        "refused": _refused(models["demo"]),
        "in_16_bits": _in_16_bits(models["demo"]),
    }


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=48, n_head=4, vocab_size=300, n_positions=64)).eval()


def _gemma3() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=300,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    return Gemma3ForCausalLM(config).eval()


def _windows(model: Any, count: int = 6, length: int = 40) -> list[Window]:
    ids = torch.randint(model.config.vocab_size, (count, length), generator=torch.Generator().manual_seed(1))
    return [Window(0, row.tolist(), 1 if i % 2 else length // 2, length) for i, row in enumerate(ids)]


def _rounded(model: Any) -> dict[str, Any]:
    """Copies of its matrices, rounded to 15 levels a row."""
    layers = {}
    for name, module in network.matrices(model).items():
        layers[name] = copy.deepcopy(module)
        weight = module.weight.detach()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-6) / 7
        layers[name].weight = torch.nn.Parameter((weight / scale).round() * scale)
    return layers


def _compared(model: Any, work: Path) -> dict[str, Any]:
    """The largest difference from whole passes of one window each, of all layers; and the values' range."""
    windows, layers = _windows(model), _rounded(model)
    net = network.Network(model, [window.ids for window in windows])
    net.batch = 2
    its = units.units(net, layers, "layer")
    meter = measure.Meter(net, windows, work)
    done, _ = measure.one_at_a_time(meter, [units.whole(its), *its], partial(units.of, layers), "k")
    plain = [_logprobs(model, window) for window in windows]
    worst, values = 0.0, []
    for unit in [units.whole(its), *its]:
        own = {name: model.get_submodule(name) for name in unit.layers}
        for name in unit.layers:
            model.set_submodule(name, layers[name])
        for i, window in enumerate(windows):
            changed = _logprobs(model, window)
            kl = float((plain[i].exp() * (plain[i] - changed)).sum())
            worst = max(worst, abs(kl - done[unit.name][i]) / window.scored)
            values.append(kl / window.scored)
        for name, module in own.items():
            model.set_submodule(name, module)
    unchanged = max(meter.measure({}))
    return {
        "worst": worst,
        "least": min(values),
        "most": max(values),
        "units": [unit.name for unit in its],
        "starts": [unit.start for unit in its],
        "unchanged": unchanged,
    }


def _logprobs(model: Any, window: Window) -> Any:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([window.ids]), use_cache=False).logits[0]
    return logits[window.first - 1 : -1].double().log_softmax(-1)


def _interrupted(model: Any, work: Path) -> dict[str, Any]:
    """Ended in the seventh layer, with half a line written; taken up again, it measures the others alone."""
    windows, layers = _windows(model), _rounded(model)
    net = network.Network(model, [window.ids for window in windows])
    its, source = units.units(net, layers, "layer"), partial(units.of, layers)
    whole, _ = measure.one_at_a_time(measure.Meter(net, windows, work / "whole"), its, source, "k")
    net = network.Network(model, [window.ids for window in windows])
    meter, calls = measure.Meter(net, windows, work / "half"), 0
    plain = meter.measure

    def measured(layers: Mapping[str, Any]) -> list[float]:
        nonlocal calls
        if calls == 6:
            raise KeyboardInterrupt
        calls += 1
        return plain(layers)

    meter.measure = measured  # type: ignore[method-assign]
    try:
        measure.one_at_a_time(meter, its, source, "k")
    except KeyboardInterrupt:
        with (work / "half" / "done.jsonl").open("a") as file:
            file.write('{"key": "k", "unit": "mod')
    net = network.Network(model, [window.ids for window in windows])
    again, resumed = measure.one_at_a_time(measure.Meter(net, windows, work / "half"), its, source, "k")
    other = len(measure._read(work / "half" / "done.jsonl", "another"))
    return {"resumed": resumed, "same": again == whole, "units": len(its), "of_another_key": other}


def _units(model: Any, by: Any) -> list[list[Any]]:
    net = network.Network(model, [[1, 2, 3]])
    return [[u.name, u.block, u.kind, u.start, u.parameters] for u in units.units(net, _rounded(model), by)]


def _in_16_bits(model: Any) -> list[str]:
    """The units of a model in bfloat16 with one rounded layer, its layers as a GPU's are given."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    weight = half.model.layers[2].mlp.up_proj.weight
    weight.data = weight.data.round(decimals=1)
    layers = hf_layers.matrices(half, model, "cuda:0")
    return [unit.name for unit in units.units(network.Network(model, [[1, 2, 3]]), layers, "layer")]


def _refused(model: Any) -> list[str]:
    """What is said of a model whose norms were scaled, of a smaller one, and of the same one in 16 bits."""
    norms = {name: p.detach() for name, p in model.named_parameters() if p.ndim == 1}
    sentences = []
    scaled, smaller = {name: 1.5 * t for name, t in norms.items()}, {name: t[:-1] for name, t in norms.items()}
    for changed in (scaled, smaller, {name: t.to(torch.bfloat16) for name, t in norms.items()}):
        try:
            units.require_same_rest(model, changed)
            sentences.append("")
        except UserError as error:
            sentences.append(str(error))
    return sentences


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201
