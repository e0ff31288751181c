"""How far a compressed model's predictions are from the baseline's: KL divergence and top-1 agreement.

At every scored token: KL(baseline || this) over the full vocabulary in nats, in float64 from logits, and whether
the most likely id is the same. Unlike in perplexity, errors cannot cancel. The first engine of the suite that can
score the baseline computes its distributions once; `kl_floor` is the error of storing them
(eval/scoring/logprobs.py). Windows are those of eval/text/windows.py; with `by_position` both are also given by how
many tokens come before (eval/text/positions.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.contract.columns import Column, Group, Part, csv_only
from bench.contract.errors import UserError
from bench.contract.hooks import Session
from eval.scoring import logprobs
from eval.stats import paired
from eval.text import positions, windows

VERSION = 1
REFERENCE = True
OPTIONS_SINCE = frozenset({"by_position"})
PART_COLUMNS = (
    Column(
        "kl_mean",
        "KL {title}",
        digits=2,
        better="lower",
        groups=Group.LOG_AXIS,
        interval=("kl_mean_low", "kl_mean_high"),
        change=Column("kl_change", "change", interval=("kl_change_low", "kl_change_high")),
        floor="kl_floor",
        text_unit="nats",
        axis_min=1e-4,  # such models differ in nothing one could notice
    ),
    Column(
        "top1_agreement_fraction",
        "same top-1",
        "%",
        100.0,
        digits=4,
        better="higher",
        interval=("top1_agreement_low_fraction", "top1_agreement_high_fraction"),
        change=Column(
            "top1_change_fraction", "change", interval=("top1_change_low_fraction", "top1_change_high_fraction")
        ),
    ),
)
COLUMNS = (
    *PART_COLUMNS,
    *csv_only("kl_mean_low", "kl_mean_high", "top1_agreement_low_fraction", "top1_agreement_high_fraction"),
    *csv_only("kl_median", "kl_p99", "kl_max"),
    Column("kl_floor", "noise floor", groups=Group.CSV_ONLY),
    *csv_only("bits_per_byte_change", "bits_per_byte_change_low", "bits_per_byte_change_high"),
)
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_BY_POSITION = ("window_kl", "window_top1")  # of `_rows` the first columns
# Facts that two comparable records share.
_SAME = ("sha256", "context", "convention", "tokens", "windows", "window_tokens", "reference")


@dataclass(frozen=True)
class Options(windows.Scope):
    """As of windows.Scope; a token takes 2 bytes per vocabulary entry. `by_position`: also by the tokens before."""

    convention: windows.Convention = "llama.cpp"
    by_position: bool = False


def title(options: Options) -> str:
    return f"divergence-{options.title}"


def prepare(session: Session, options: Options, folder: Path, out: Path) -> Mapping[str, Any]:
    """Store the baseline's log-probabilities in `out`."""
    text = windows.cut(session, options, folder)
    blocks = (block for window in text.watched() for block in windows.scored(session, window))
    stored = logprobs.store(blocks, sum(window.scored for window in text.windows), out)
    return {"items_sha256": text.items, **asdict(stored)}


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """Per window: sums of KL, agreements and negative log-likelihoods (nats); quantiles of KL per token.

    UserError when the tokenization or vocabulary is not the baseline's, and when logits are not finite.
    """
    import numpy as np

    if reference is None:
        raise UserError("divergence is measured against a baseline: run it from a suite, or by python -m eval compare")
    stored = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    text = windows.cut(session, options, folder)
    if text.items != stored["items_sha256"]:
        raise UserError(
            "this artifact's tokenizer splits the text into other tokens than the baseline's: "
            "KL divergence between them is undefined; compare bits per byte instead"
        )
    tables = _window_tables(session, text, logprobs.load(reference))
    sums = np.array([table.sum(axis=0) for table in tables]).T.tolist()
    kl = np.concatenate(tables)[:, 0]
    return {
        **text.facts(options),
        "convention": options.convention,
        "vocab": stored["vocab"],
        "window_kl": sums[0],
        "window_top1": [round(count) for count in sums[1]],
        "window_nll": sums[2],
        "window_nll_change": sums[3],
        "kl_quantiles": {name: float(np.quantile(kl, q)) for name, q in _QUANTILES.items()},
        "perplexity": _exp(math.fsum(sums[2]) / len(kl)),
        "baseline_perplexity": _exp((math.fsum(sums[2]) - math.fsum(sums[3])) / len(kl)),
        "reference": {key: stored[key] for key in ("digest", "engine", "artifact")},
        "kl_floor_mean": stored["kl_floor_mean"],
        "kl_floor_max": stored["kl_floor_max"],
        **({"by_position": _bins(text, tables, options)} if options.by_position else {}),
    }


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """Means over tokens, each with a 95 % interval over windows where there are two; nats per token."""
    tokens, quantiles = facts["window_tokens"], facts["kl_quantiles"]
    bits = [change / math.log(2) for change in facts["window_nll_change"]]
    return {
        **_mean("kl_mean", "", facts["window_kl"], tokens, 0.0, math.inf),
        "kl_median": quantiles["p50"],
        "kl_p99": quantiles["p99"],
        "kl_max": quantiles["max"],
        "kl_floor": facts["kl_floor_mean"],
        **_mean("top1_agreement", "_fraction", facts["window_top1"], tokens, 0.0, 1.0),
        **_mean("bits_per_byte_change", "", bits, facts["window_bytes"], -math.inf, math.inf),
        "scored_tokens": float(sum(tokens)),
    }


def parts(facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Sequence[Part]:
    """By position, each mean with its interval; how much further than another artifact's that is, by paired windows."""
    its = facts.get("by_position", ())
    if baseline is None or not its:
        return [positions.part(one, _of_bin(one)) for one in its]
    paired.require_same_items(facts, baseline, _SAME, ("by_position",))
    pairs = zip(its, baseline["by_position"], strict=True)
    return [positions.part(one, {**_of_bin(one), **_change_of_bin(one, other)}) for one, other in pairs]


def _bins(text: windows.Cut, tables: Sequence[Any], options: Options) -> list[dict[str, Any]]:
    by_token = {name: [table[:, k] for table in tables] for k, name in enumerate(_BY_POSITION)}
    return positions.bins(text.windows, by_token, options.context)


def _of_bin(its: positions.Bin) -> dict[str, float]:
    return {
        **_mean("kl_mean", "", *positions.sums(its, "window_kl"), 0.0, math.inf),
        **_mean("top1_agreement", "_fraction", *positions.sums(its, "window_top1"), 0.0, 1.0),
    }


def _change_of_bin(its: positions.Bin, other: positions.Bin) -> dict[str, float]:
    return {
        **_mean("kl_change", "", *positions.sums(its, "window_kl", other), -math.inf, math.inf),
        **_mean("top1_change", "_fraction", *positions.sums(its, "window_top1", other), -1.0, 1.0),
    }


def compare_by_reference(facts: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, float]:
    """How much further than another artifact this one is from the reference of both, by paired windows.

    Nats per token and shares of tokens, from two windows on with the 95 % interval of `paired.per_token`.
    UserError where the two were not measured over the same text, or not against the same reference.
    """
    paired.require_same_items(facts, other, _SAME, ("window_kl", "window_top1"))
    change: dict[str, float] = {}
    for name, unit, key in (("kl_change", "", "window_kl"), ("top1_change", "_fraction", "window_top1")):
        change |= {f"{name}{end}{unit}": value for end, value in paired.window_changes(facts, other, key).items()}
    return change


def _mean(name: str, unit: str, sums: list[float], counts: list[int], low: float, high: float) -> dict[str, float]:
    """A mean over tokens, with its interval as far as it lies within what the figure can be."""
    value, half = paired.per_token(sums, counts)
    mean = {f"{name}{unit}": value}
    if len(sums) > 1:
        mean[f"{name}_low{unit}"] = min(value, max(low, value - half))
        mean[f"{name}_high{unit}"] = max(value, min(high, value + half))
    return mean


def _window_tables(session: Session, text: windows.Cut, baseline: logprobs.Baseline) -> list[Any]:
    """For each window a row per scored token: KL, agreement (0 or 1), nll, its change from the baseline's."""
    import numpy as np

    tables, row = [], 0
    for window in text.watched():
        blocks = []
        for logits, targets in windows.scored(session, window):
            blocks.append(_rows(logits, targets, baseline.rows(row, row + len(targets)), window))
            row += len(targets)
        tables.append(np.concatenate(blocks))
    return tables


def _rows(logits: Any, targets: Any, baseline: tuple[Any, Any, Any], window: windows.Window) -> Any:
    import numpy as np

    expected, expected_top, expected_nll = baseline
    if logits.shape[1] != expected.shape[1]:
        raise UserError(
            f"this engine's vocabulary has {logits.shape[1]} entries and the baseline's {expected.shape[1]}: "
            "KL divergence needs the same one"
        )
    actual = logprobs.log_softmax(logits)
    nll = -actual[np.arange(len(targets)), targets]
    kl = logprobs.kl(expected, actual)
    if np.isnan(actual).any() or not np.isfinite(nll).all() or not np.isfinite(kl).all():
        raise UserError(f"logits of the window at token {window.start} are not finite: use a wider compute dtype")
    return np.stack([kl, logits.argmax(axis=1) == expected_top, nll, nll - expected_nll], axis=1)


def _exp(nll: float) -> float:
    return math.exp(min(nll, 700.0))  # a broken model's is huge, but no overflow
