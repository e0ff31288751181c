"""Does speculation pay? An engine that speculates beside the same without it, as a whole and by category of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.contract import speculation
from bench.contract.record import Result
from bench.contract.spec import EngineSpec
from bench.contract.speculation import answers
from bench.measure.speculation import FACT, distribution
from bench.measure.stats import Spread
from bench.publish.tables.columns import ACCEPTED, GAIN, GREEDY, number
from bench.publish.tables.model import CellSummary, Row

_TPOT, _PER_PASS = "tpot_s", "tokens_per_pass"
_BEYOND = "gains more than its tokens a pass allow, so that something else slowed the rounds without it"
VERDICTS = ("pays", "costs", "makes no difference", _BEYOND)
_SLACK = 1.05  # of single rounds, whose noise is unknown
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


def speedup(entry: CellSummary, rounds: Sequence[Result], plain: CellSummary, others: Sequence[Result]) -> CellSummary:
    """The entry with what speculation gained over the `plain` engine, whose finished rounds are `others`."""
    words = {**entry.words, ACCEPTED: _accepted(rounds)}
    if others:
        words[GREEDY] = _greedy(rounds, others)
    without = {each.name: each.figures for each in plain.categories}
    categories = [replace(each, figures=_gained(each.figures, without.get(each.name, {}))) for each in entry.categories]
    figures = _gained(entry.figures, plain.figures)
    return replace(entry, figures=figures, words=words, categories=tuple(categories))


def _gained(figures: Mapping[str, Spread], plain: Mapping[str, Spread]) -> dict[str, Spread]:
    """The figures with the speed-up over the plain ones, where both have a TPOT."""
    if not all(its.get(_TPOT) and its[_TPOT].low for its in (figures, plain)):
        return dict(figures)
    return {**figures, GAIN: _ratio(figures[_TPOT], plain[_TPOT])}


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
                differences = answers.differences(*map(answers.unpack, packed))
            except ValueError:
                continue
            if differences is not None:
                return _sentence(differences)
    return "not compared"


def _sentence(differences: answers.Differences) -> str:
    if not differences.differing:
        return f"same, {differences.compared} prompts"
    share = f"{differences.differing} of {differences.compared} differ"
    return f"{share}, first at {differences.unit} {differences.position}"


def verdict(gain: Spread, per_pass: Spread | None = None) -> str:
    """Whether every round with speculation was faster than every one without it; between single rounds by 5 %.

    A pass is no faster for the tokens that it checks: what gains more than its tokens a pass was measured beside
    something else.
    """
    slack = _SLACK if gain.n < 2 else 1.0
    if per_pass is not None and gain.low > _SLACK * per_pass.high:
        return _BEYOND
    if gain.low > slack:
        return "pays"
    return "costs" if gain.high * slack < 1 else "makes no difference"


def notes(rows: Sequence[Row], title: str) -> list[str]:
    """What the columns mean, and where each engine's speculation pays and where it costs."""
    cells = [(row, row.workloads[title]) for row in rows]
    speculating = [(row, cell) for row, cell in cells if "drafts" in cell.figures]
    return [*([_NOTE] if speculating else []), *(_where(row, title, cell) for row, cell in speculating)]


def _where(row: Row, title: str, cell: CellSummary) -> str:
    figures = {each.name: each.figures for each in cell.categories if GAIN in each.figures}
    figures = figures or ({"all prompts": cell.figures} if GAIN in cell.figures else {})
    by_verdict: dict[str, list[str]] = {}
    for name, its in figures.items():
        word, gain = verdict(its[GAIN], its.get(_PER_PASS)), number(its[GAIN].median, 3)
        by_verdict.setdefault(word, []).append(f"{name} ({gain} x)")
    parts = [f"{word} for {', '.join(by_verdict[word])}" for word in VERDICTS if word in by_verdict]
    return f"{title}: speculation of {row.engine} on {row.recipe} {'; '.join(parts)}" if parts else ""
