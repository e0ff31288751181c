"""What a record of the conformance suite comes to: works, unsupported or fails, with its reason in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.contract import plugins
from bench.contract.record import Result
from bench.contract.spec import Recipe
from bench.formats import folder as model_folder
from bench.run.planned import PlannedRound

Status = Literal["works", "unsupported", "fails", "not run"]
# Nats per token, by the bits of a linear weight: what rounding costs a model of random weights, which has no outliers
# and no redundancy. Another rotary base, a window left out or a norm forgotten costs one to ten.
KL_BY_BITS = ((16.0, 0.01), (8.0, 0.05), (0.0, 1.5))
KL_OF_16_BITS = 0.03  # more, where activations are rounded to bfloat16 or float16
GAP_NATS = 0.5  # between the generated token and the likeliest one, where two are nearly as likely
# A router takes the likeliest experts: where two are nearly as likely, rounding exchanges them, and the token's output
# jumps. docs/architectures.md has what was measured of it.
KL_OF_EXPERTS = 0.1  # more in a model with experts, where weights or activations are rounded
GAPS_OF_EXPERTS = 0.25  # of its generated tokens may be further from the likeliest
_ROUNDED = ("bfloat16", "float16")
_FLOATS = 16.0  # bits


@dataclass(frozen=True)
class Verdict:
    """Of one architecture, recipe and engine. `kl`: from Transformers' logits of the baseline, nats per token.

    `quantized_fraction`: of the linear weights, by the audit, where the recipe quantizes.
    """

    architecture: str
    recipe: str
    engine: str
    status: Status
    reason: str = ""
    kl: float | None = None
    quantized_fraction: float | None = None


def of(architecture: str, item: PlannedRound, record: Result | None) -> Verdict:
    """The verdict on a planned round by the plan's reason against it, else by its record, if there is one."""
    recipe, engine = item.cell.recipe.name, item.cell.engine.title
    if item.reason:
        return Verdict(architecture, recipe, engine, "unsupported", item.reason)
    if record is None:
        return Verdict(architecture, recipe, engine, "not run")
    if record.status != "ok":
        status: Status = "unsupported" if record.status == "unsupported" else "fails"
        return Verdict(architecture, recipe, engine, status, record.reason)
    has_experts = model_folder.expert_count(item.artifact.resolved.source.config) > 0
    reason, kl = _fault(record, has_experts=has_experts), record.metrics["conformance_kl"]
    quantized = record.artifact.audit.quantized_fraction if record.artifact else 0.0
    return Verdict(architecture, recipe, engine, "fails" if reason else "works", reason, kl, quantized or None)


def _fault(record: Result, *, has_experts: bool) -> str:
    """What is wrong with a round that ran to its end."""
    kl, gaps = record.metrics["conformance_kl"], sorted(record.facts["greedy_gaps"])
    most = most_kl(record.cell.recipe, record.receipts.get("compute_dtype", ""), has_experts=has_experts)
    gap = gaps[math.ceil(len(gaps) * (1 - GAPS_OF_EXPERTS if has_experts else 1)) - 1]
    if most is not None and kl > most:
        return f"its logits are not the baseline's: KL {kl:.2g} nats per token, at most {most:g} at these bits"
    if gap > GAP_NATS:
        return f"it generates tokens that are {gap:.2g} nats less likely than the likeliest by its own logits"
    return ""


def most_kl(recipe: Recipe, compute_dtype: str, *, has_experts: bool = False) -> float | None:
    """The most that the recipe's rounding explains; None where it changes the model itself."""
    methods = [plugins.method_of(step) for step in recipe.steps]
    bits = [_FLOATS if method.is_lossless(options) else method.weight_bits(options) for method, options in methods]
    if any(width is None for width in bits):
        return None
    least = min((width for width in bits if width is not None), default=_FLOATS)
    bound = next(most for width, most in KL_BY_BITS if least >= width)
    is_rounded = compute_dtype in _ROUNDED
    bound += KL_OF_EXPERTS if has_experts and (is_rounded or least < _FLOATS) else 0.0
    return bound + (KL_OF_16_BITS if is_rounded else 0.0)
