"""The columns of every table, declared once: a figure's name, the unit it is shown in, the better side.

Records hold seconds and bytes; milliseconds, MiB and percent exist here only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.measure.stats import Spread
from bench.publish.tables.model import ADJUSTED, TESTED

MIB = 2.0**20
BOUND, CEILING = "bound", "ceiling"  # words of an entry
GAINED, AT_ROOFLINE = "tpot_gain", "tpot_gain_at_roofline"  # changes against the baseline
DASH = "\N{EN DASH}"  # between the ends of a range; alone: there is nothing to tell


@dataclass(frozen=True)
class Column:
    """`key` is a metric, or a field of the audit. A shown figure is the stored one times `scale`, in `unit`.

    `digits` are significant ones; whole numbers keep all of theirs. {title} in a header is the task's.
    `interval` are the metrics that hold the ends of the figure's 95 % interval, where it has one.
    """

    key: str
    header: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    better: Literal["lower", "higher"] | None = None
    interval: tuple[str, str] | None = None

    @property
    def word(self) -> str:
        """The metric's own name."""
        return self.header.partition(" ")[0]

    @property
    def named(self) -> str:
        """The header with its unit, as a sentence has it."""
        return f"{self.header} {self.unit}".strip()

    def heading(self, title: str = "") -> str:
        """The header with its unit and an arrow to the better side."""
        arrow = {"lower": " ↓", "higher": " ↑", None: ""}[self.better]
        return f"{self.header.format(title=title).strip()}{f' {self.unit}' if self.unit else ''}{arrow}"


SIZE = (
    Column("bits_per_weight", "bits/weight", better="lower"),
    Column("total_bytes", "size", "MiB", 1 / MIB, better="lower"),
)
# Shown where there is something to show: weights that were pruned, artifacts whose making was timed whole.
MORE_SIZE = (Column("zero_fraction", "zero", "%", 100.0), Column("made_s", "made in", "s", better="lower"))
QUALITY = (Column("perplexity", "ppl {title}", digits=4, better="lower"),)
CHANGE = Column("perplexity_change_fraction", "vs baseline", "%", 100.0, better="lower")
CHANGE_ENDS = ("perplexity_change_low_fraction", "perplexity_change_high_fraction")
DIVERGENCE = (
    Column("kl_mean", "KL {title}", digits=2, better="lower", interval=("kl_mean_low", "kl_mean_high")),
    Column(
        "top1_agreement_fraction",
        "same top-1",
        "%",
        100.0,
        digits=4,
        better="higher",
        interval=("top1_agreement_low_fraction", "top1_agreement_high_fraction"),
    ),
)
SCORES = (
    Column(
        "accuracy_fraction",
        "{title}",
        "%",
        100.0,
        digits=3,
        better="higher",
        interval=("accuracy_low_fraction", "accuracy_high_fraction"),
    ),
    Column("score", "{title}", digits=4, interval=("score_low", "score_high")),
)
SCORE_CHANGE = Column("score_change", "vs baseline, points", better="higher")
RECOVERY = Column("score_recovery_fraction", "recovery", "%", 100.0, better="higher")
SCORE_ENDS = ("score_change_low", "score_change_high")
SCORE_CHANGES = (
    "score_change",
    *SCORE_ENDS,
    "score_recovery_fraction",
    "flips_worse",
    "flips_better",
    TESTED,
    ADJUSTED,
)
LEVEL = 0.05
FLOOR = "kl_floor"
DIVERGENCE_MORE = (
    *(key for column in DIVERGENCE for key in column.interval or ()),
    "kl_median",
    "kl_p99",
    "kl_max",
    FLOOR,
    "bits_per_byte_change",
    "bits_per_byte_change_low",
    "bits_per_byte_change_high",
)
_TTFT = Column("ttft_s", "TTFT", "ms", 1e3, better="lower")
_TTFT_P95 = Column("ttft_p95_s", "TTFT p95", "ms", 1e3, better="lower")
_TPOT = Column("tpot_s", "TPOT", "ms", 1e3, better="lower")
_TPOT_P95 = Column("tpot_p95_s", "TPOT p95", "ms", 1e3, better="lower")
_OUTPUT = Column("output_tok_per_s", "output", "tok/s", better="higher")
_REQUESTS = Column("request_per_s", "requests", "/s", better="higher")
_GOODPUT = Column("goodput_per_s", "goodput", "/s", better="higher")
_PEAK = Column("peak_memory_bytes", "peak memory", "MiB", 1 / MIB, better="lower")
SERVING = (_TTFT, _TPOT, _OUTPUT, _PEAK)
# What a recommendation is judged by, and what is foretold of a cell: by the names they have there.
JUDGED: Mapping[str, Column] = {
    "tok_per_s": _OUTPUT,
    "recovery": RECOVERY,
    "ttft_p95_s": _TTFT_P95,
    "memory": _PEAK,
    "energy": Column("energy_net_j_per_output_token", "net", "J/output token", better="lower"),
}
FORETOLD: Mapping[str, Column] = {
    "need": Column("total_bytes", "needs", "GiB", 1 / 2.0**30),
    "ttft": _TTFT,
    "tpot": _TPOT,
    "rate": _OUTPUT,
    "bound": Column("output_tok_per_s", "at most", "tok/s"),
}
ONLINE = (
    _TTFT,
    _TTFT_P95,
    _TPOT,
    Column("itl_p99_s", "ITL p99", "ms", 1e3, better="lower"),
    _OUTPUT,
    _REQUESTS,
    _GOODPUT,
    Column("concurrency", "in flight"),
    Column("failed_requests", "failed", better="lower"),
)
CURVE = (_TTFT, _TTFT_P95, _TPOT, _TPOT_P95, _OUTPUT, _REQUESTS, _GOODPUT)
SEARCH = (
    Column("slo_rate_per_s", "rate in SLO", "/s", better="higher"),
    Column("slo_rate_high_per_s", "not shown at", "/s"),
    _TTFT_P95,
    _TPOT_P95,
    _OUTPUT,
)
# One figure of a round: of a task, of a load whose rate is its answer, of one whose rate was given.
TASK_FIGURES = (replace(DIVERGENCE[0], unit="nats"), *QUALITY, *SCORES)
RATE_FIGURES = (replace(SEARCH[0], header="within SLO"), _OUTPUT)
LATENCY_FIGURES = (_TTFT_P95, _TTFT)
# Sections of their own below a workload's, each shown where an entry has one of its figures.
MORE: Mapping[str, tuple[Column, ...]] = {
    "memory": (
        Column("weights_bytes", "weights", "MiB", 1 / MIB, better="lower"),
        Column("kv_needed_bytes", "KV needed", "MiB", 1 / MIB, better="lower"),
        Column("kv_bytes", "KV pool", "MiB", 1 / MIB),
        Column("workspace_bytes", "workspace", "MiB", 1 / MIB, better="lower"),
        Column("context_bytes", "context", "MiB", 1 / MIB, better="lower"),
        Column("nvml_process_peak_bytes", "NVML", "MiB", 1 / MIB, better="lower"),
        Column("memory_budget_bytes", "budget", "MiB", 1 / MIB),
        Column("kv_tokens_fit", "KV tokens that fit", better="higher"),
    ),
    "roofline": (
        Column("mbu_fraction", "MBU", "%", 100.0, better="higher"),
        Column("mfu_fraction", "MFU of prefill", "%", 100.0, better="higher"),
        Column(BOUND, "decoding bound by"),
        Column("roofline_s", "least TPOT by the roofline", "ms", 1e3),
        Column(GAINED, "gained", "x", better="higher"),
        Column(AT_ROOFLINE, "gain at the roofline", "x"),
    ),
    "energy": (
        Column("energy_gross_j_per_output_token", "gross", "J/output token", better="lower"),
        Column("energy_gross_j_per_input_token", "gross", "J/input token", better="lower"),
        Column("energy_net_j_per_output_token", "net", "J/output token", better="lower"),
        Column("energy_net_j_per_total_token", "net", "J/token", better="lower"),
        Column("power_mean_w", "power", "W"),
        Column("idle_power_w", "idle", "W"),
        Column("energy_sm_clock_mean_mhz", "SM clock", "MHz"),
        Column("energy_valid", "valid", digits=1),
    ),
}
# Axes of charts: what a choice wins, and what it keeps of the quality.
WON = (_OUTPUT, _TTFT, _TTFT_P95, _TPOT, _TPOT_P95, _PEAK, *SIZE, JUDGED["energy"])
KEPT = (*DIVERGENCE, *QUALITY, *SCORES, RECOVERY)
SPREAD_OVER = (_TTFT, Column("itl_s", "ITL", "ms", 1e3, better="lower"), _TPOT)  # latency distributions
SCALED = (_OUTPUT, _TTFT_P95, _TPOT_P95)  # against requests in flight, or per second
UTILISED = Column("mbu_fraction", "MBU", "%", 100.0, better="higher")
# Every metric of a window of energy, for a spreadsheet.
ENERGY = (
    *(
        f"energy_{word}_j{of}"
        for word in ("gross", "net")
        for of in ("", "_per_input_token", "_per_output_token", "_per_total_token")
    ),
    "power_mean_w",
    "idle_power_w",
    "power_limit_w",
    "energy_window_s",
    "energy_valid",
    *(f"energy_sm_clock_{which}_mhz" for which in ("min", "mean", "max")),
    "energy_temperature_max_c",
    "energy_throttled_fraction",
)
TAILS = (
    *(f"{name}_{tail}s" for name in ("ttft", "tpot", "e2el") for tail in ("", "p90_", "p95_", "p99_")),
    *(f"itl_{tail}_s" for tail in ("p50", "p90", "p95", "p99")),
)


# Shown in no table; a document may quote them.
QUOTED = (
    Column("prefill_tok_per_s", "prefill", "tok/s", better="higher"),
    Column("cold_start_s", "cold start", "s", better="lower"),
    Column("load_s", "load", "s", better="lower"),
    Column("ceiling_bytes_per_s", "ceiling", "GB/s", 1e-9),
    Column("ceiling_flop_per_s", "ceiling", "GFLOP/s", 1e-9),
    Column("kl_floor", "noise floor"),
    Column("parameters", "parameters", "million", 1e-6),
    Column(ADJUSTED, "p", digits=2),
)
_EVERY: Mapping[str, Column] = {
    column.key: column
    for column in reversed(
        (
            *SIZE,
            *MORE_SIZE,
            *QUALITY,
            CHANGE,
            *DIVERGENCE,
            *SCORES,
            SCORE_CHANGE,
            RECOVERY,
            *SERVING,
            *CURVE,
            *ONLINE,
            *SEARCH,
            *(column for known in MORE.values() for column in known),
            *QUOTED,
        )
    )
}


def named(key: str) -> Column:
    """The column that shows a figure; UserError for a word that none shows."""
    if key not in _EVERY:
        raise UserError(plugins.unknown("figure", key, tuple(_EVERY)))
    return _EVERY[key]


def task_name(title: str) -> str:
    """A task's title as a column head: the metric is named beside it already."""
    kind = next((k for k in plugins.names(plugins.TASKS) if title.startswith(f"{k}-")), "")
    return title.removeprefix(f"{kind}-")


def number(value: float, digits: int, *, like: float | None = None) -> str:
    """`digits` significant digits, with as many decimals as `like` would get.

    An exponent from ten million on, and below 0.0001.
    """
    measure = abs(value if like is None else like)
    if 0 < measure < 1e-4:
        return f"{value:.1e}".replace("e-0", "e-")
    if not math.isfinite(value) or abs(value) >= 1e7:
        return f"{value:.2e}" if math.isfinite(value) else "not finite"
    decimals = digits - 1 - math.floor(math.log10(measure)) if measure else 0
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def figure(column: Column, found: Spread) -> str:
    """The median, and in brackets the smallest and largest round where they differ as shown."""
    scaled = [value * column.scale for value in (found.median, found.low, found.high)]
    median, low, high = (number(value, column.digits, like=scaled[0]) for value in scaled)
    return median if low == high else f"{median} ({low}{DASH}{high})"


def bounded(column: Column, figures: Mapping[str, Spread]) -> str:
    """The figure with half its interval, where it has one: "0.0123 ± 0.0004"; a dash for no figure."""
    if column.key not in figures:
        return DASH
    text = figure(column, figures[column.key])
    ends = [figures[key].median for key in column.interval or () if key in figures]
    half = (ends[-1] - ends[0]) / 2 * column.scale if ends else 0.0
    if half <= 0:
        return text
    return f"{text} ± {number(half, column.digits, like=figures[column.key].median * column.scale)}"


def score_change(found: Mapping[str, float], *, is_fraction: bool) -> str:
    """In points: "-3.1 ± 1.2", or "noise (+0.2 ± 0.9)" where the items show no difference."""
    if SCORE_CHANGE.key not in found:
        return DASH
    scale = 100.0 if is_fraction else 1.0
    value = found[SCORE_CHANGE.key] * scale
    if TESTED not in found:
        return f"{value:+.3g}"
    half = (found["score_change_high"] - found["score_change_low"]) / 2 * scale
    text = f"{round(value, 1) + 0.0:+.1f} ± {half:.1f}"
    return text if found.get(ADJUSTED, found[TESTED]) < LEVEL else f"noise ({text})"


def told_change(column: Column, found: Mapping[str, float], *, is_fraction: bool) -> str:
    """A change of perplexity or of a score against the baseline, with its interval; a dash where none is."""
    if column.key not in found:
        return DASH
    if column.key == SCORE_CHANGE.key:
        return score_change(found, is_fraction=is_fraction)
    low, high = (found.get(end) for end in CHANGE_ENDS)
    return change(found[column.key], low, high)


def change(fraction: float, low: float | None, high: float | None) -> str:
    """A relative change in percent with half its interval: "+1.23 ± 0.31"."""
    decimals = 2 if abs(fraction) < 1 else 0
    text = f"{round(100 * fraction, decimals) + 0.0:+.{decimals}f}"  # + 0.0: no negative zero
    return text if low is None or high is None else f"{text} ± {50 * (high - low):.{decimals}f}"
