"""What pruning and training leave of the demo model, as one JSON object; started in the hf environment.

`python pruning_checks.py MODEL OUT`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.contract import plugins
from quantize import calibration, pruning, surgery, training, transformer
from quantize.methods import distill, wanda

SMALL = {"samples": 8, "length": 128}
LAYER = "model.layers.0.self_attn.q_proj"
TRAINED = distill.Options(tokens=8 * 4 * 64, length=64, batch=4, learning_rate=3e-4)


def main(demo: Path, out: Path) -> dict[str, Any]:
    """`perplexity` of each artifact, and the facts the tests name."""
    output: dict[str, Path] = {"demo": demo}
    for name, method, options in (
        ("magnitude", "magnitude", {}),
        ("global", "magnitude", {"scope": "global"}),
        ("magnitude-2of4", "magnitude", {"pattern": "2:4"}),
        ("wanda", "wanda", SMALL),
        ("wanda-2of4", "wanda", {**SMALL, "pattern": "2:4"}),
        ("heads", "structured", {**SMALL, "what": "heads", "share": 0.5}),
        ("neurons", "structured", {**SMALL, "importance": "loss"}),
        ("layers", "structured", {**SMALL, "what": "layers"}),
        ("layers-by-loss", "structured", {**SMALL, "what": "layers", "importance": "loss"}),
    ):
        output[name] = out / name
        _applied(method, options, demo, output[name])
    return {
        "perplexity": {name: _perplexity(folder) for name, folder in output.items()},
        "mask": _mask(demo, output["wanda"]),
        "cut": {what: _cut(demo, what, units) for what, units in _UNITS.items()},
        "trained": _trained(demo, output["wanda"], out),
    }


def _applied(method: str, options: Mapping[str, Any], folder: Path, out: Path) -> None:
    out.mkdir()
    module = plugins.load(plugins.METHODS, method)
    (out.parent / f"{out.name}.json").write_text(
        json.dumps(module.apply(folder, module.Options(**options), out, "cpu"))
    )


def _ids(folder: Path, split_seed: int = 7) -> torch.Tensor:
    return torch.tensor(calibration.samples(folder, "stdlib", 16, 256, split_seed).ids)


def _perplexity(folder: Path) -> float:
    """Loaded as anyone would, over text that no method here has seen more of than another."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = _ids(folder)
    with torch.no_grad():
        return math.exp(model(input_ids=ids, labels=ids).loss.item())


def _mask(demo: Path, pruned: Path) -> dict[str, float]:
    """How many of wanda's zeros in the first layer are those of |W| x ||X||, and what else has changed."""
    text = calibration.from_options(demo, wanda.Options(samples=8, length=128))
    model = transformer.load(demo, "cpu")
    given: list[torch.Tensor] = []
    model.get_submodule(LAYER).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor(text.ids))
    weight = model.get_submodule(LAYER).weight.detach()
    norms = torch.cat([x.flatten(0, 1) for x in given]).norm(dim=0)
    order = (weight.abs() * norms).argsort(dim=1)
    zero = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, order[:, : weight.shape[1] // 2], value=True)
    after = transformer.load(pruned, "cpu").get_submodule(LAYER).weight.detach()
    same = (after == 0) == zero
    rest = (after - weight)[~zero & same].abs().max()
    return {"same": same.float().mean().item(), "rest": rest.item()}


_UNITS: dict[surgery.What, list[list[int]]] = {
    "heads": [[1], [0], [1], [1], [0]],
    "neurons": [list(range(i, 768, 3)) for i in (0, 1, 2, 0, 1)],
    "layers": [[0, 1, 3, 4]],
}


def _cut(demo: Path, what: surgery.What, units: Sequence[Sequence[int]]) -> float:
    """The largest difference of a logit between the model cut and the whole one with those units silenced."""
    whole, small = transformer.load(demo, "cpu"), transformer.load(demo, "cpu")
    surgery.cut(small, what, units)
    for i, layer in enumerate(whole.model.layers):
        if what == "layers" and i not in units[0]:
            layer.register_forward_hook(lambda _, given, __: given[0])
        reader = {"heads": layer.self_attn.o_proj, "neurons": layer.mlp.down_proj}.get(what)
        if reader is not None:
            groups = 2 if what == "heads" else 768
            size = reader.weight.shape[1] // groups
            gone = [u * size + j for u in range(groups) if u not in units[i] for j in range(size)]
            reader.weight.data[:, gone] = 0.0
    ids = _ids(demo)[:2]
    with torch.no_grad():
        return float((whole(input_ids=ids).logits - small(input_ids=ids).logits).abs().max())


def _trained(demo: Path, pruned: Path, out: Path) -> dict[str, Any]:
    """Distillation without a break, broken off and resumed, and without a teacher."""
    windows = training.text(pruned, TRAINED)
    guide = transformer.load(demo, "cpu")

    def run(name: str, plan: training.Plan, teacher: Any, stop: int = 0) -> tuple[Any, dict[str, Any]]:
        work = out / f"work-{name}"
        work.mkdir(exist_ok=True)
        student = transformer.load(pruned, "cpu")
        if not stop:
            return student, training.run(student, teacher, plan, windows, "cpu", work)
        try:
            training.run(student, _Breaking(teacher, stop), plan, windows, "cpu", work)
        except _BrokenError:
            return student, {}
        raise AssertionError("it was to be interrupted")

    training._SAVE_EVERY_S, training._SAVE_SHARE = 0.0, 1e9  # after every step
    straight, facts = run("straight", TRAINED, guide)
    run("broken", TRAINED, guide, stop=5)
    resumed, again = run("broken", TRAINED, guide)
    _, tuned = run("tuned", replace(TRAINED, alpha=0.0), None)
    training._LOGITS_BYTES = 1
    _, by_window = run("by-window", TRAINED, guide)
    ids = _ids(demo)[:8]
    with torch.no_grad():
        separate = [float(training._loss(m, guide, ids, TRAINED)) for m in (transformer.load(pruned, "cpu"), straight)]
    return {
        "curve": [loss for _, loss in facts["loss_curve"]],
        "curve_by_window": [loss for _, loss in by_window["loss_curve"]],
        "divergence": separate,
        "steps": facts["train_steps"],
        "sparsity": min(pruning.sparsities(straight).values()),
        "moved": (_flat(straight) - _flat(transformer.load(pruned, "cpu"))).abs().max().item(),
        "resumed_at": again["resumed_at_steps"],
        "apart": (_flat(straight) - _flat(resumed)).abs().max().item(),
        "tuned": [loss for _, loss in tuned["loss_curve"]],
        "scores": list(surgery.importance(guide, windows.ids[:4], "cpu", "neurons", "loss").shape),
    }


def _flat(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class _BrokenError(Exception):
    pass


class _Breaking:
    """A teacher that fails when it is asked for the last time."""

    def __init__(self, teacher: Any, calls: int) -> None:
        self.teacher, self.left = teacher, calls

    def __call__(self, **words: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _BrokenError
        return self.teacher(**words)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
