"""Why models with experts have another bound: what 8 bits cost where routers choose anew, and where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.conformance import verdict
from bench.models import architectures
from tests.quantize import in_environment

_ROUND = """
import copy
import json
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from quantize import random_weights

Path("config").mkdir()
Path("config/config.json").write_text(sys.argv[1])
random_weights.main(Path("config"), Path("model"))
model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32).eval()
rounded = copy.deepcopy(model)
with torch.no_grad():
    for name, weight in rounded.named_parameters():
        if name.endswith("_proj.weight") or weight.dim() == 3:
            scale = weight.abs().amax(-1, keepdim=True) / 127
            weight.copy_((weight / scale).round() * scale)
ids = torch.randint(5, 4000, (8, 128), generator=torch.Generator().manual_seed(0))
chosen, moved, forces = {}, [], False


def route(module, _, output):
    logits, _, experts = output
    name = names[module]
    if name not in chosen:
        chosen[name] = experts
        return output
    if not forces:
        moved.append((experts.sort(-1).values != chosen[name].sort(-1).values).any(-1))
        return output
    scores = logits.float().softmax(-1).gather(-1, chosen[name])
    return logits, scores / scores.sum(-1, keepdim=True), chosen[name]


names = {m: n for each in (model, rounded) for n, m in each.named_modules() if type(m).__name__.endswith("TopKRouter")}
for module in names:
    module.register_forward_hook(route)
with torch.no_grad():
    expected, free = (each(ids).logits.double().log_softmax(-1) for each in (model, rounded))
    forces = True
    forced = rounded(ids).logits.double().log_softmax(-1)
kl = [(expected.exp() * (expected - other)).sum(-1) for other in (free, forced)]
print("RESULT" + json.dumps({
    "free": float(kl[0].mean()), "median": float(kl[0].median()), "forced": float(kl[1].mean()),
    "moved": float(torch.stack(moved).float().mean()),
}))
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
@pytest.mark.needs("hf")
def test_rounding_costs_what_it_does_elsewhere_where_no_expert_is_exchanged(name: str, tmp_path: Path) -> None:
    """Routed as the baseline, 8 bits stay well within the bound of all models; by themselves, within the other."""
    answer = json.loads(in_environment.run("hf", tmp_path, _ROUND, json.dumps(architectures.settings(name))))
    bound = dict(verdict.KL_BY_BITS)[8.0]

    assert 0 < answer["moved"] < 0.1
    assert answer["forced"] < bound / 2
    assert 2 * answer["forced"] < answer["free"] < bound + verdict.KL_OF_EXPERTS
