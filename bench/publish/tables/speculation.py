"""Does speculation pay? An engine that speculates beside the same without it, as a whole and by category of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.contract import answers, speculation
from bench.contract.record import Result
from bench.contract.spec import EngineSpec
from bench.measure.speculation import FACT, distribution
from bench.measure.stats import Spread, spread
from bench.publish.tables.columns import ACCEPTED, DASH, GAIN, GREEDY, number
from bench.publish.tables.model import CellSummary, Row, Section

_TPOT, _PER_PASS, _OF = "tpot_s", "tokens_per_pass", "/"  # tpot_s/CATEGORY
_NOTE = (
    "speculation: acceptance length is 1 + accepted tokens / drafts, by the engine's own counters; tokens a pass: "
    "of passes without a draft too; speed-up: the TPOT without speculation over that with it"
)


def is_plain(engine: EngineSpec, other: EngineSpec) -> bool:
    """Whether `other` is the same engine as the speculating `engine`, but for its speculation."""
    return (
        engine.name == other.name
        and speculation.method_of(engine.options) != "off"
        and speculation.method_of(other.options) == "off"
        and speculation.without(engine.options) == speculation.without(other.options)
    )


def beside(entry: CellSummary, rounds: Sequence[Result], plain: Sequence[Result]) -> CellSummary:
    """The entry with what speculation gained over the plain engine's finished rounds, and how its answers differ."""
    figures, words, without = dict(entry.figures), dict(entry.words), _by_category(plain)
    if text := _accepted(rounds):
        words[ACCEPTED] = text
    if others := [r.metrics[_TPOT] for r in plain if _TPOT in r.metrics]:
        without[_TPOT] = spread(others)
    for key, figure in entry.figures.items():
        if key.startswith(_TPOT) and key in without and figure.low:
            figures[GAIN + key.removeprefix(_TPOT)] = _ratio(figure, without[key])
    if plain:
        words[GREEDY] = _greedy(rounds, plain)
    return replace(entry, figures=figures, words=words)


def with_categories(entry: CellSummary, rounds: Sequence[Result]) -> CellSummary:
    """The entry with its figures by category of the prompts, where the rounds have them."""
    figures = _by_category(rounds)
    return replace(entry, figures={**entry.figures, **figures}) if figures else entry


def _by_category(rounds: Sequence[Result]) -> dict[str, Spread]:
    """`tpot_s/CATEGORY`, `tokens_per_pass/CATEGORY`."""
    values: dict[str, list[float]] = {}
    for result in rounds:
        for category, its in (result.facts.get("by_category") or {}).items():
            for key in (_TPOT, _PER_PASS):
                if key in its:
                    values.setdefault(f"{key}{_OF}{category}", []).append(its[key])
    return {key: spread(its) for key, its in values.items()}


def _ratio(with_it: Spread, without: Spread) -> Spread:
    """The ratio of two medians, with the ends that the rounds leave open."""
    low, high = without.low / with_it.high, without.high / with_it.low
    return Spread(without.median / with_it.median, low, high, float("nan"), min(with_it.n, without.n))


def _accepted(rounds: Sequence[Result]) -> str:
    """Of all rounds together."""
    histograms = [(r.facts.get(FACT) or {}).get("accepted_histogram") or [] for r in rounds]
    longest = max(map(len, histograms), default=0)
    return distribution([sum(h[n] for h in histograms if n < len(h)) for n in range(longest)])


def _greedy(rounds: Sequence[Result], plain: Sequence[Result]) -> str:
    """How the answers of the same round with and without speculation differ."""
    for mine in rounds:
        for other in plain:
            if mine.round != other.round or not (mine.facts.get("answers") and other.facts.get("answers")):
                continue
            try:
                packed = (str(each.facts["answers"]) for each in (mine, other))
                found = answers.differences(*map(answers.unpack, packed))
            except ValueError:
                continue
            if found is not None:
                return _sentence(found)
    return "not compared"


def _sentence(found: answers.Differences) -> str:
    if not found.differing:
        return f"same, {found.compared} prompts"
    return f"{found.differing} of {found.compared} differ, first at {found.unit} {found.position}"


def categories(rows: Sequence[Row], title: str) -> list[Section]:
    """A workload's TPOT and tokens a pass by category of its prompts, where an engine speculates over several."""
    cells = [(row, row.workloads[title].figures) for row in rows]
    names = list(dict.fromkeys(key.partition(_OF)[2] for _, its in cells for key in its if _OF in key))
    if len(names) < 2 or not any(GAIN in its for _, its in cells):
        return []
    lines = [
        (row.recipe, row.engine, name, *_figures(its, name))
        for row, its in cells
        for name in names
        if f"{_TPOT}{_OF}{name}" in its
    ]
    heads = ("recipe", "engine", "category", "TPOT ms ↓", "tokens a pass ↑", "speed-up x ↑", "pays?")
    return [Section(f"{title}: speculation by category", heads, tuple(lines), below=True)]


def _figures(figures: Mapping[str, Spread], name: str) -> tuple[str, ...]:
    tpot, per_pass, gain = (figures.get(f"{key}{_OF}{name}") for key in (_TPOT, _PER_PASS, GAIN))
    texts = (DASH if its is None else number(its.median * scale, 3) for its, scale in ((tpot, 1e3), (per_pass, 1)))
    return (*texts, DASH if gain is None else number(gain.median, 3), DASH if gain is None else verdict(gain))


def verdict(gain: Spread) -> str:
    """Whether every round with speculation was faster than every one without it; between single rounds by 5 %."""
    slack = 1.05 if gain.n < 2 else 1.0
    if gain.low > slack:
        return "pays"
    return "costs" if gain.high * slack < 1 else "no difference"


def note(cells: Sequence[CellSummary]) -> str:
    return _NOTE if any("acceptance_length" in cell.figures or GAIN in cell.figures for cell in cells) else ""
