"""The columns of artifacts and loads, each declared once with the groups it is in; a task declares its own.

Groups are queries over the columns, in the order in which these stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from bench.contract import plugins
from bench.contract.columns import ADJUSTED, RECOVERY, SCORE_CHANGE, TESTED, Column, Group, csv_only
from bench.contract.errors import UserError
from bench.measure.seeds import SeedSpread
from bench.measure.stats import Spread
from bench.publish.tables.model import CellSummary

MIB, GIB = 2.0**20, 2.0**30
BOUND, CEILING = "bound", "ceiling"  # texts of a cell
GAINED, AT_ROOFLINE = "tpot_gain", "tpot_gain_at_roofline"  # changes against the baseline
# Of an engine that speculates: its speed over the same without it; drafts by accepted tokens; whether its output is
# the same as without.
GAIN, ACCEPTED, GREEDY = "speculation_gain", "accepted_histogram", "greedy"
CURRENCY = "price_currency"  # a text of a cell that has a price
DASH = "\N{EN DASH}"  # between the ends of a range; alone: there is no figure
LEVEL = 0.05
_HTTP, _AXIS, _TAIL = Group.ONLINE | Group.CURVE, Group.X_AXIS, Group.TAIL | Group.CSV_ONLY
_THROUGHPUT = Group.SERVING | Group.SEARCH | Group.SCALING | _HTTP | _AXIS


def _ms(key: str, header: str, groups: Group = _TAIL, axis_min: float = 0.0) -> Column:
    return Column(key, header, "ms", 1e3, better="lower", groups=groups, axis_min=axis_min)


def _mib(key: str, header: str, groups: Group = Group.MEMORY, *, better: bool = True) -> Column:
    return Column(key, header, "MiB", 1 / MIB, better="lower" if better else None, groups=groups)


def _energy(key: str, header: str, unit: str, groups: Group = Group.ENERGY) -> Column:
    return Column(key, header, unit, better="lower", groups=groups)


def _price(key: str, header: str) -> Column:
    return Column(key, header, "per M tokens", better="lower", groups=Group.PRICE | Group.MONEY)


COLUMNS = (
    Column("slo_rate_per_s", "rate in SLO", "/s", better="higher", groups=Group.SEARCH),
    Column("slo_rate_high_per_s", "not shown at", "/s", groups=Group.SEARCH),
    _ms("ttft_s", "TTFT", Group.TAIL | Group.SERVING | Group.DISTRIBUTION | Group.CATEGORY | _HTTP | _AXIS),
    _ms("ttft_p90_s", "TTFT p90"),
    _ms("ttft_p95_s", "TTFT p95", Group.TAIL | Group.SEARCH | Group.SCALING | _HTTP | _AXIS),
    _ms("ttft_p99_s", "TTFT p99"),
    _ms("itl_s", "ITL", Group.DISTRIBUTION, axis_min=0.01),  # chunks that were read together
    _ms("tpot_s", "TPOT", Group.TAIL | Group.SERVING | Group.DISTRIBUTION | Group.CATEGORY | _HTTP | _AXIS),
    _ms("tpot_p90_s", "TPOT p90"),
    _ms("tpot_p95_s", "TPOT p95", Group.TAIL | Group.SEARCH | Group.SCALING | Group.CURVE | _AXIS),
    _ms("tpot_p99_s", "TPOT p99"),
    *(_ms(f"e2el_{tail}s", f"E2EL {tail[:-1]}".strip()) for tail in ("", "p90_", "p95_", "p99_")),
    *(_ms(f"itl_{tail}_s", f"ITL {tail}") for tail in ("p50", "p90", "p95")),
    _ms("itl_p99_s", "ITL p99", Group.TAIL | Group.ONLINE),
    Column("output_tok_per_s", "output", "tok/s", better="higher", groups=_THROUGHPUT),
    Column("request_per_s", "requests", "/s", better="higher", groups=_HTTP),
    Column("goodput_per_s", "goodput", "/s", better="higher", groups=_HTTP),
    Column("concurrency", "in flight", groups=Group.ONLINE),
    Column("failed_requests", "failed", better="lower", groups=Group.ONLINE),
    _ms("ttft_cold_s", "TTFT cold", Group.ONLINE | Group.CONTENT),
    _ms("ttft_warm_s", "TTFT warm", Group.ONLINE | Group.CONTENT),
    Column("prefix_asked_fraction", "prefix asked", "%", 100.0, groups=Group.ONLINE | Group.CONTENT),
    Column("prefix_hit_fraction", "prefix hits", "%", 100.0, groups=Group.ONLINE | Group.CONTENT),
    _ms("answer_ttft_s", "first of answer", Group.ONLINE | Group.CONTENT | Group.CATEGORY),
    *(_ms(f"answer_ttft_p{q}_s", f"first of answer p{q}", Group.CONTENT | Group.CSV_ONLY) for q in (90, 95, 99)),
    Column("reasoning_tokens_mean", "reasoning", "tokens", groups=Group.ONLINE | Group.CONTENT | Group.CATEGORY),
    Column("answered_fraction", "answered", "%", 100.0, better="higher", groups=Group.ONLINE | Group.CONTENT),
    Column("requests", "prompts", groups=Group.CATEGORY),
    Column("prompt_tokens_mean", "prompt", "tokens", groups=Group.ONLINE | Group.CONTENT | Group.CATEGORY),
    Column("answer_tokens_mean", "answer", "tokens", groups=Group.ONLINE | Group.CONTENT | Group.CATEGORY),
    _mib("peak_memory_bytes", "peak memory", Group.SERVING | _AXIS),
    Column("bits_per_weight", "bits/weight", better="lower", groups=Group.SIZE | _AXIS),
    _mib("total_bytes", "size", Group.SIZE | _AXIS),
    Column("zero_fraction", "zero", "%", 100.0, groups=Group.MORE_SIZE),
    Column("predicted_kl", "predicted KL", digits=2, groups=Group.MORE_SIZE | Group.LOG_AXIS),
    Column("made_s", "made in", "s", better="lower", groups=Group.MORE_SIZE),
    _mib("made_peak_bytes", "made with", Group.MORE_SIZE),
    *csv_only("two_of_four_fraction", groups=Group.MORE_SIZE),
    _mib("weights_bytes", "weights"),
    _mib("kv_needed_bytes", "KV needed"),
    _mib("kv_bytes", "KV pool", better=False),
    Column("kv_token_bytes", "KV/token", "B", better="lower", groups=Group.MEMORY | _AXIS),
    _mib("workspace_bytes", "workspace"),
    _mib("context_bytes", "context"),
    _mib("nvml_process_peak_bytes", "NVML"),
    _mib("memory_budget_bytes", "budget", better=False),
    Column("kv_tokens_fit", "KV tokens that fit", better="higher", groups=Group.MEMORY),
    Column("mbu_fraction", "MBU", "%", 100.0, better="higher", groups=Group.ROOFLINE),
    Column("mfu_fraction", "MFU of prefill", "%", 100.0, better="higher", groups=Group.ROOFLINE),
    Column(BOUND, "decoding bound by", groups=Group.ROOFLINE),
    Column("roofline_s", "least TPOT by the roofline", "ms", 1e3, groups=Group.ROOFLINE | Group.CURVE),
    Column(GAINED, "gained", "x", better="higher", groups=Group.ROOFLINE),
    Column(AT_ROOFLINE, "gain at the roofline", "x", groups=Group.ROOFLINE),
    Column("acceptance_length", "acceptance length", better="higher", groups=Group.SPECULATION),
    Column("acceptance_rate", "accepted", "%", 100.0, better="higher", groups=Group.SPECULATION),
    Column("tokens_per_pass", "tokens a pass", better="higher", groups=Group.SPECULATION | Group.CATEGORY),
    Column(GAIN, "speed-up", "x", better="higher", groups=Group.SPECULATION | Group.CATEGORY),
    Column(ACCEPTED, "drafts by accepted tokens", groups=Group.SPECULATION),
    Column(GREEDY, "greedy output", groups=Group.SPECULATION),
    _energy("energy_gross_j_per_output_token", "gross", "J/output token"),
    _energy("energy_gross_j_per_input_token", "gross", "J/input token"),
    _energy("energy_net_j_per_output_token", "net", "J/output token", Group.ENERGY | _AXIS),
    _energy("energy_net_j_per_total_token", "net", "J/token"),
    Column("power_mean_w", "power", "W", groups=Group.ENERGY),
    Column("idle_power_w", "idle", "W", groups=Group.ENERGY),
    Column("energy_sm_clock_mean_mhz", "SM clock", "MHz", groups=Group.ENERGY),
    Column("energy_valid", "valid", digits=1, groups=Group.ENERGY),
    *csv_only(
        "energy_gross_j",
        "energy_gross_j_per_total_token",
        "energy_net_j",
        "energy_net_j_per_input_token",
        "power_limit_w",
        "energy_window_s",
        "energy_sm_clock_min_mhz",
        "energy_sm_clock_max_mhz",
        "energy_temperature_max_c",
        "energy_throttled_fraction",
        groups=Group.ENERGY,
    ),
    _price("price_per_million_output_tokens", "output price"),
    _price("price_per_million_input_tokens", "input price"),
    _price("slo_price_per_million_output_tokens", "output price in SLO"),
    _price("slo_price_per_million_input_tokens", "input price in SLO"),
    Column("slo_price_level", "in SLO at", groups=Group.PRICE),
    Column("break_even_tok_per_s", "break-even output", "tok/s", better="lower", groups=Group.PRICE),
    Column("break_even_fraction", "break-even share", "%", 100.0, better="lower", groups=Group.PRICE),
    *csv_only(CURRENCY, "price_given", "api_price_given", groups=Group.PRICE),
    Column(
        "price_per_correct_answer",
        "price",
        "per 1000 correct answers",
        1e3,
        better="lower",
        groups=Group.ANSWER | Group.MONEY,
    ),
    Column("energy_net_j_per_correct_answer", "net", "J/correct answer", better="lower", groups=Group.ANSWER),
    # Shown in no table; a document may quote them.
    Column("input_tok_per_s", "input", "tok/s", better="higher"),
    Column("prefill_tok_per_s", "prefill", "tok/s", better="higher"),
    Column("cold_start_s", "cold start", "s", better="lower"),
    Column("load_s", "load", "s", better="lower"),
    Column("ceiling_bytes_per_s", "ceiling", "GB/s", 1e-9),
    Column("ceiling_flop_per_s", "ceiling", "GFLOP/s", 1e-9),
    Column("parameters", "parameters", "million", 1e-6),
)
_BY_KEY: Mapping[str, Column] = {column.key: column for column in COLUMNS}


@cache
def group(groups: Group, *, csv: bool = False) -> tuple[Column, ...]:
    """The columns in any of the groups; `csv` adds those that only a spreadsheet has."""
    return tuple(c for c in COLUMNS if groups & c.groups and (csv or Group.CSV_ONLY not in c.groups))


def _axes(axes: Group) -> tuple[Column, ...]:
    """The axes of a chart, those that are better when higher first."""
    return tuple(sorted(group(axes), key=lambda column: column.better != "higher"))


SIZE, MORE_SIZE = group(Group.SIZE), group(Group.MORE_SIZE)
SERVING, ONLINE, SEARCH, CURVE = (group(g) for g in (Group.SERVING, Group.ONLINE, Group.SEARCH, Group.CURVE))
CONTENT, BY_CATEGORY, ANSWER = group(Group.CONTENT), group(Group.CATEGORY), group(Group.ANSWER)
# Sections of their own below a load's, each shown where a cell has one of its figures.
MORE: Mapping[str, Group] = {
    "speculation": Group.SPECULATION,
    "memory": Group.MEMORY,
    "roofline": Group.ROOFLINE,
    "energy": Group.ENERGY,
    "price": Group.PRICE,
}
X_AXES, SCALING, DISTRIBUTIONS = _axes(Group.X_AXIS), _axes(Group.SCALING), _axes(Group.DISTRIBUTION)
MBU = _BY_KEY["mbu_fraction"]
DEPTH = tuple(_BY_KEY[key] for key in ("tpot_s", "roofline_s", "ttft_s"))  # of a chart against depth
# By what a recommendation is made, by the names that its objectives and limits have.
RECOMMENDED_BY: Mapping[str, Column] = {
    "tok_per_s": _BY_KEY["output_tok_per_s"],
    "recovery": RECOVERY,
    "ttft_p95_s": _BY_KEY["ttft_p95_s"],
    "memory": _BY_KEY["peak_memory_bytes"],
    "energy": _BY_KEY["energy_net_j_per_output_token"],
    "price": _BY_KEY["price_per_million_output_tokens"],
}


def task_columns(kind: str) -> tuple[Column, ...]:
    """The columns that a task declares; none for a task that no longer exists."""
    try:
        columns: tuple[Column, ...] = plugins.load(plugins.TASKS, kind).COLUMNS
    except UserError:
        return ()
    return columns


def part_columns(kind: str) -> tuple[Column, ...]:
    """The columns of a task's parts; none for a task that no longer exists."""
    try:
        columns: tuple[Column, ...] = plugins.load(plugins.TASKS, kind).PART_COLUMNS
    except UserError:
        return ()
    return columns


def metric_columns(kind: str) -> tuple[Column, ...]:
    """A task's own metrics, those that tables show wherever it was measured."""
    return tuple(c for c in task_columns(kind) if not c.groups & (Group.CHANGE | Group.CSV_ONLY | Group.ANY_TOKENS))


def over_seeds(column: Column) -> Column:
    """The column that stands behind a metric's where recipes have replicates: their mean with its interval."""
    header = "over seeds" if column.word == "{title}" else f"{column.word} over seeds {{title}}"
    return replace(column, header=header, better=None, groups=Group.SEEDS, interval=None, change=None, floor="")


def quality_axes() -> tuple[Column, ...]:
    """Every task's metrics, scores on items last as in tables, and the recovery over all tasks."""
    columns = [c for kind in plugins.names(plugins.TASKS) for c in metric_columns(kind)]
    return (*sorted(columns, key=lambda c: Group.PAIRED in c.groups), RECOVERY)


def quotable(key: str) -> Column:
    """The column of a figure; UserError for a key that no column has."""
    if key in _BY_KEY:
        return _BY_KEY[key]
    declared = {c.key: c for kind in reversed(plugins.names(plugins.TASKS)) for c in task_columns(kind)}
    if key not in declared:
        raise UserError(plugins.unknown("figure", key, (*_BY_KEY, *declared)))
    return declared[key]


def task_name(title: str) -> str:
    """A task's title without its kind, as a column head that names the metric has it."""
    kind = next((k for k in plugins.names(plugins.TASKS) if title.startswith(f"{k}-")), "")
    return title.removeprefix(f"{kind}-")


def number(value: float, digits: int, *, like: float | None = None) -> str:
    """`digits` significant ones, decimals as `like` gets; an exponent from ten million on and below 0.0001."""
    measure = abs(value if like is None else like)
    if 0 < measure < 1e-4:
        return f"{value:.1e}".replace("e-0", "e-")
    if not math.isfinite(value) or abs(value) >= 1e7:
        return f"{value:.2e}" if math.isfinite(value) else "not finite"
    decimals = digits - 1 - math.floor(math.log10(measure)) if measure else 0
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def format_value(column: Column, value: float | None, digits: int = 0) -> str:
    """A value as its column shows it, to `digits` significant digits instead of the column's if given."""
    return DASH if value is None else number(value * column.scale, digits or column.digits)


def in_currency(column: Column, text: str, currency: str) -> str:
    """The text of a value, behind the currency of its cell, if it has one, where the column is one of money."""
    return f"{currency} {text}" if currency and Group.MONEY in column.groups and text != DASH else text


def format_figure(column: Column, figure: Spread) -> str:
    """The median, and in brackets the smallest and largest round where they differ as shown."""
    scaled = figure.median * column.scale
    median = number(scaled, column.digits)
    if figure.low == figure.high:
        return median
    low, high = (number(value * column.scale, column.digits, like=scaled) for value in (figure.low, figure.high))
    return median if low == high else f"{median} ({low}{DASH}{high})"


def format_interval(column: Column, figures: Mapping[str, Spread]) -> str:
    """The figure with half its interval, where it has one: "0.0123 ± 0.0004"; a dash for no figure."""
    if column.key not in figures:
        return DASH
    text = format_figure(column, figures[column.key])
    ends = [figures[key].median for key in column.interval or () if key in figures]
    half = (ends[-1] - ends[0]) / 2 * column.scale if ends else 0.0
    if half <= 0:
        return text
    return f"{text} ± {number(half, column.digits, like=figures[column.key].median * column.scale)}"


def format_seeds(column: Column, cell: CellSummary) -> str:
    """The mean over a recipe's replicates, half its interval, and how many they are: "0.0123 ± 0.0009 (3)"."""
    spread = cell.seeds.get(column.key)
    return DASH if spread is None else f"{format_mean(column, spread)} ({spread.n})"


def format_mean(column: Column, spread: SeedSpread) -> str:
    """The mean over replicates with half its interval, where they differ."""
    mean, half = spread.mean * column.scale, spread.half * column.scale
    text = number(mean, column.digits)
    return f"{text} ± {number(half, column.digits, like=mean)}" if half > 0 else text


def wider(value: float, ends: Sequence[float], spread: SeedSpread | None) -> Sequence[float]:
    """The ends of an interval of a value, or what its half over seeds puts around it where that is larger."""
    if spread is None or (len(ends) == 2 and (ends[1] - ends[0]) / 2 >= spread.half):
        return ends
    return value - spread.half, value + spread.half


def format_change(column: Column, cell: CellSummary) -> str:
    """A change against the baseline with half its interval; a dash where none is known.

    In percent of the baseline's figure, "+1.23 ± 0.31"; of a score on items in the points that it is shown in, "-3.1 ±
    1.2", or "noise (+0.2 ± 0.9)" where the items show no difference, or the replicates of the recipe do not; else in
    the metric's own unit. The interval is the larger of those over items and over seeds.
    """
    changes, spread = cell.change, cell.seeds.get(column.key)
    if column.key not in changes:
        return DASH
    change = changes[column.key]
    ends = wider(change, [changes[key] for key in column.interval or () if key in changes], spread)
    if Group.RELATIVE in column.groups:
        return format_percent(change, *ends)
    metrics = (c for c in metric_columns(cell.kind) if c.change == column and c.key in cell.figures)
    scale = next((metric.scale for metric in metrics), column.scale)
    if column.key != SCORE_CHANGE.key or TESTED not in changes or len(ends) < 2:
        half = f" ± {number((ends[-1] - ends[0]) / 2 * scale, 2)}" if ends else ""
        return f"{change * scale:+.3g}{half}"
    text = f"{round(change * scale, 1) + 0.0:+.1f} ± {(ends[1] - ends[0]) / 2 * scale:.1f}"  # + 0.0: no negative zero
    shown = changes.get(ADJUSTED, changes[TESTED]) < LEVEL and not (spread and spread.includes_zero)
    return text if shown else f"noise ({text})"


def format_percent(fraction: float, low: float | None = None, high: float | None = None) -> str:
    """A relative change in percent with half its interval: "+1.23 ± 0.31"."""
    decimals = 2 if abs(fraction) < 1 else 0
    text = f"{round(100 * fraction, decimals) + 0.0:+.{decimals}f}"
    return text if low is None or high is None else f"{text} ± {50 * (high - low):.{decimals}f}"
