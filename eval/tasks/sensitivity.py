"""What each layer's quantization costs: KL divergence from the baseline with that layer alone quantized.

The quantized layers of an artifact are put into the unquantized model one at a time (or all of a kind, or all of a
block), and its predictions are compared with its own: KL(baseline || this) over the full vocabulary, in nats a token.
Blocks before the first that changes are computed once, and their output is what the later ones begin with. The sum
over the layers is what they would cost together if their errors added up; all of them at once is measured beside it.

Weights are those of the artifact: GPTQ made each of them after those before it. Activations are rounded only where the
layer's own module rounds them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.contract.columns import Column, Group, Part, csv_only
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from bench.contract.session import LayerSession
from eval.layers import measure, network, units
from eval.stats import paired
from eval.text import windows

VERSION = 1
REFERENCE = True
LAYERS = True
PART_COLUMNS = (
    Column(
        "kl_mean",
        "KL of one layer",
        digits=2,
        better="lower",
        groups=Group.LOG_AXIS | Group.HEAT_MAP,
        interval=("kl_mean_low", "kl_mean_high"),
        text_unit="nats",
        axis_min=1e-7,
    ),
)
COLUMNS = (
    Column(
        "kl_sum",
        "KL summed over layers {title}",
        digits=2,
        better="lower",
        groups=Group.LOG_AXIS,
        interval=("kl_sum_low", "kl_sum_high"),
        change=Column("kl_sum_change", "change", interval=("kl_sum_change_low", "kl_sum_change_high")),
        text_unit="nats",
        axis_min=1e-4,
    ),
    Column(
        "kl_all",
        "of all at once",
        digits=2,
        better="lower",
        groups=Group.LOG_AXIS,
        interval=("kl_all_low", "kl_all_high"),
        text_unit="nats",
        axis_min=1e-4,
    ),
    Column("sum_over_all", "sum / all"),
    *csv_only(
        "layers_quantized", "kl_sum_low", "kl_sum_high", "kl_all_low", "kl_all_high", "kl_most", "block_passes_fraction"
    ),
)
_SAME = ("sha256", "context", "convention", "tokens", "windows", "window_tokens", "reference")
_OVER_BASELINE = "sensitivity compares with a baseline: run it from a suite, or by python -m quantize sensitivity"


@dataclass(frozen=True)
class Options(windows.Scope):
    """As of windows.Scope, of which a small text is enough. `by`: what is quantized at a time."""

    context: int = 256
    tokens: int = 2048
    by: units.By = "layer"


def title(options: Options) -> str:
    return f"sensitivity-{options.title}{'' if options.by == 'layer' else f'-{options.by}'}"


def prepare(session: Session, options: Options, folder: Path, out: Path) -> Mapping[str, Any]:
    """Where the unquantized model is, and the digest of the windows."""
    del out
    return {"items_sha256": windows.cut(session, options, folder).items, "folder": str(folder)}


def evaluate_resumably(
    session: Session, options: Options, folder: Path, reference: Path | None, work: Path
) -> Mapping[str, Any]:
    """Of each unit the sums of KL by window (nats). `work` has those that were measured before an interruption.

    In memory are the unquantized model beside the artifact, and of the text the hidden states before one block.
    """
    if reference is None:
        raise UserError(_OVER_BASELINE)
    if not isinstance(session, LayerSession):
        raise UserError("this engine gives no single layers of a model: use hf, or llamacpp for a GGUF file")
    began = time.perf_counter()
    stored = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    text = windows.cut(session, options, folder)
    if text.items != stored["items_sha256"]:
        raise UserError(
            "this artifact's tokenizer splits the text into other tokens than the baseline's: compare bits per byte "
            "by perplexity instead"
        )
    model = network.load(_folder(stored), session.device)
    layers = session.layers(model)
    units.require_same_rest(model, session.other_parameters(model))
    net = network.Network(model, [window.ids for window in text.windows])
    its = units.units(net, layers, options.by)
    facts = _measured(net, its, layers, text, work, f"{text.items}/{options.by}")
    return {
        **text.facts(options),
        "convention": options.convention,
        "by": options.by,
        **facts,
        "reference": {key: stored[key] for key in ("digest", "engine", "artifact")},
        "sensitivity_s": time.perf_counter() - began,
    }


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """Nats per token. `sum_over_all`: how far errors add up, 1 where they do."""
    tokens, units_kl = facts["window_tokens"], facts["unit_window_kl"]
    means = [math.fsum(sums) / sum(tokens) for sums in units_kl]
    total, together = math.fsum(facts["window_kl_sum"]), math.fsum(facts["window_kl_all"])
    return {
        **_mean("kl_sum", facts["window_kl_sum"], tokens),
        **_mean("kl_all", facts["window_kl_all"], tokens),
        **({"sum_over_all": total / together} if together > 0 else {}),
        "kl_most": max(means, default=0.0),
        "layers_quantized": float(facts["layers_quantized"]),
        "block_passes_fraction": facts["block_passes"] / max(1, facts["block_passes_whole"]),
        "scored_tokens": float(sum(tokens)),
    }


def parts(facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Sequence[Part]:
    """A table of blocks by kinds of layers."""
    del baseline
    tokens = facts["window_tokens"]
    rows = zip(facts["unit_blocks"], facts["unit_kinds"], facts["unit_window_kl"], strict=True)
    its = [Part({"block": block, "kind": kind}, _mean("kl_mean", sums, tokens)) for block, kind, sums in rows]
    return sorted(its, key=lambda part: _order(part.labels["block"]))


def compare_by_reference(facts: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, float]:
    """How much more the layers cost here than in another artifact, summed, by paired windows."""
    paired.require_same_items(facts, other, _SAME, ("window_kl_sum",))
    return {f"kl_sum_change{end}": v for end, v in paired.window_changes(facts, other, "window_kl_sum").items()}


def _measured(
    net: network.Network, its: Sequence[units.Unit], layers: Mapping[str, Any], text: windows.Cut, work: Path, key: str
) -> dict[str, Any]:
    done, resumed = dict[str, list[float]](), 0
    if its:
        meter = measure.Meter(net, text.windows, work)
        done, resumed = measure.one_at_a_time(meter, [units.whole(its), *its], partial(units.of, layers), key)
        meter.close()
    none = [0.0] * len(text.windows)
    sums = [done[unit.name] for unit in its]
    blocks = len(net.blocks)
    return {
        "units": [unit.name for unit in its],
        "unit_blocks": [unit.block for unit in its],
        "unit_kinds": [unit.kind for unit in its],
        "unit_parameters": [unit.parameters for unit in its],
        "unit_window_kl": sums,
        "window_kl_sum": [math.fsum(column) for column in zip(*sums, strict=True)] or none,
        "window_kl_all": done.get(units.ALL, none),
        "layers_quantized": len({name for unit in its for name in unit.layers}),
        "units_resumed": resumed,
        "block_passes": sum(blocks - unit.start for unit in its) + blocks * (1 if its else 0),
        "block_passes_whole": blocks * len(its),
    }


def _folder(stored: Mapping[str, Any]) -> Path:
    folder = Path(stored["folder"])
    if not folder.exists():
        raise UserError("the baseline's weights are no longer where they were: run the suite again, which makes them")
    return folder


def _order(block: str) -> tuple[int, str]:
    """Blocks by their number; what is no block behind them."""
    return (int(block), "") if block.isdecimal() else (1 << 30, block)


def _mean(name: str, sums: Sequence[float], counts: Sequence[int]) -> dict[str, float]:
    """A mean over tokens with its interval over windows, which ends at 0."""
    value, half = paired.per_token(sums, counts)
    mean = {name: value}
    if len(sums) > 1:
        mean |= {f"{name}_low": max(0.0, value - half), f"{name}_high": value + half}
    return mean
