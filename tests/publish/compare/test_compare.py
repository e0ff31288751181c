"""Two selections of records written by hand have the ratios and p-values that were worked out by hand."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.contract.errors import UserError
from bench.contract.record import Gpu, Result
from bench.contract.spec import Task
from bench.contract.workload import Offline, Workload
from bench.publish.compare.compare import (
    BETTER,
    NO_DIFFERENCE,
    SAME,
    UNTESTED,
    WORSE,
    Comparison,
    MetricComparison,
    compare,
)
from bench.publish.compare.report import as_json, page, require_common_cells
from bench.publish.compare.selectors import Filter, Selection, selections
from bench.store import Store
from tests.conftest import Command
from tests.publish.tables.test_build import CPU, LONG, artifact_of, bad, cell, scored, served
from tests.publish.tables.test_divergence import diverged
from tests.publish.tables.test_scores import _answered, _answers

LOADS = [Offline(name=name) for name in ("one", "two", "three")]


def rounds(
    recipe: str, values: Sequence[float], what: Workload = LOADS[0], engine: str = "hf", key: str = "tpot_s"
) -> list[Result]:
    """A round for each value of the metric, and no other metric."""
    return [replace(served(recipe, 1.0, i, engine, what), metrics={key: value}) for i, value in enumerate(values)]


def selection(kind: str, name: str, records: Sequence[Result]) -> Selection:
    return Selection(name, kind, f"{kind} {name}", tuple(records))


def compared(a: Sequence[Result], b: Sequence[Result], kind: str = "recipe") -> Comparison:
    return compare(selection(kind, "a", a), selection(kind, "b", b))


def metric(comparison: Comparison, key: str) -> MetricComparison:
    (one,) = (metric for metric in comparison.metrics if metric.column.key == key)
    return one


def stored(root: Path, records: Sequence[Result]) -> Path:
    store = Store(root)
    for result in records:
        store.put(result)
    return root


FIRST, SECOND = [1.0, 2.0, 4.0], [8.0, 16.0, 32.0]
# Means of logarithms 3 ln 2 apart, each with the variance (ln 2)^2: t = 3 / sqrt(2 / 3) at 4 degrees, where
# the distribution is elementary: 1 - P(|T| < t) = 1 - x (3 - x^2) / 2 with x = t / sqrt(t^2 + 4).
T = 3 / math.sqrt(2 / 3)
X = T / math.sqrt(T**2 + 4)
P = 1 - X * (3 - X**2) / 2


def test_the_ratio_of_geometric_means_and_its_p() -> None:
    """2 beside 16: eight times as slow, p as worked out above; the better side of a TPOT is down."""
    comparison = metric(compared(rounds("a", FIRST), rounds("b", SECOND)), "tpot_s")

    assert [comparison.baseline, comparison.candidate] == pytest.approx([2.0, 16.0])
    assert comparison.ratio.value == pytest.approx(8.0)
    assert comparison.ratio.p == pytest.approx(P, rel=1e-9)
    assert 0.02 < P < 0.025
    assert comparison.ratio.low is not None
    assert comparison.ratio.low > 1
    assert comparison.verdict == WORSE
    back = compared(rounds("a", SECOND, key="output_tok_per_s"), rounds("b", FIRST, key="output_tok_per_s"))
    assert metric(back, "output_tok_per_s").verdict == WORSE
    assert metric(compared(rounds("a", SECOND), rounds("b", FIRST)), "tpot_s").verdict == BETTER


@pytest.mark.parametrize(("cells", "verdict"), [(2, WORSE), (3, NO_DIFFERENCE)])
def test_p_is_adjusted_over_the_cells_of_one_figure(cells: int, verdict: str) -> None:
    """P of 0.0213 is 0.043 as one of two and 0.064 as one of three; another figure's cells do not count."""
    mine, theirs = (
        [r for load in LOADS[:cells] for r in rounds(name, values, load)]
        + [replace(r, metrics={"ttft_s": r.metrics["tpot_s"]}) for r in rounds(name, values, LONG)]
        for name, values in (("a", FIRST), ("b", SECOND))
    )
    comparison = compared(mine, theirs)

    assert [f.verdict for f in comparison.metrics if f.column.key == "tpot_s"] == [verdict] * cells
    assert metric(comparison, "ttft_s").p_holm == pytest.approx(P)
    total = next(total for total in comparison.totals if total.column.key == "tpot_s")
    assert total.ratio == pytest.approx(8.0)
    assert total.verdicts == {verdict: cells}


def test_what_rounds_cannot_tell_is_not_tested() -> None:
    """One round; rounds without spread; the same figure in every round; zeros in all rounds are no figure."""
    single = compared(rounds("a", [1.0]), rounds("b", SECOND))
    flat = compared(rounds("a", [1.0, 1.0]), rounds("b", [2.0, 2.0]))
    same = compared(rounds("a", [3.0, 3.0]), rounds("b", [3.0, 3.0]))
    zero = compared(rounds("a", [0.0], key="failed_requests"), rounds("b", [0.0], key="failed_requests"))

    for result, verdict, text in ((single, UNTESTED, "n=1"), (flat, UNTESTED, "equal"), (same, SAME, "equal")):
        one = metric(result, "tpot_s")
        assert (one.verdict, one.p_holm, one.ratio.low) == (verdict, None, None)
        assert text in page(result, 120)
    assert [f for f in zero.metrics if f.cell.kind == "load"] == []


@pytest.mark.slow
def test_records_against_themselves_are_called_different_one_time_in_twenty() -> None:
    """1,000 A/A comparisons at 3 rounds: 2.5 to 6.5 % have a verdict; of ten cells each, as many any."""
    random, alarms, any_of_ten = np.random.default_rng(3), 0, 0
    loads = [Offline(name=str(i)) for i in range(10)]
    for trial in range(1000):
        mine, theirs = random.lognormal(1.0, 0.03, (2, 3)).tolist()
        comparison = compared(rounds("a", mine), rounds("b", theirs))
        alarms += metric(comparison, "tpot_s").verdict != NO_DIFFERENCE
        if trial < 200:
            many = [
                [r for load in loads for r in rounds(name, random.lognormal(1.0, 0.03, 3).tolist(), load)]
                for name in ("a", "b")
            ]
            called = {f.verdict for f in compared(many[0], many[1]).metrics if f.column.key == "tpot_s"}
            any_of_ten += called != {NO_DIFFERENCE}

    assert 25 <= alarms <= 65
    assert any_of_ten <= 18


def test_joules_that_do_not_hold_are_no_figure() -> None:
    """Rounds whose energy is not valid are left out; where none is valid there are no joules."""
    key = "energy_net_j_per_output_token"

    def measured(recipe: str, joules: Sequence[float], valid: Sequence[float]) -> list[Result]:
        both = zip(rounds(recipe, joules), joules, valid, strict=True)
        return [replace(r, metrics={key: j, "energy_valid": v}) for r, j, v in both]

    mine, theirs = measured("a", [1, 9, 4], [1, 0, 1]), measured("b", [4, 16, 99], [1, 1, 0])
    comparison = metric(compared(mine, theirs), key)
    assert comparison.rounds == (2, 2)
    assert [comparison.baseline, comparison.candidate] == pytest.approx([2.0, 8.0])
    none = compared(mine, measured("b", [4, 16], [0, 0]))
    assert key not in {f.column.key for f in none.metrics}


def test_tasks_are_paired_by_their_items() -> None:
    """Ten items lost of a thousand, none won: McNemar's 2 / 2^10; the change is -1 point."""
    comparison = compared([_answered("a", _answers(600))], [_answered("b", _answers(600, 10))])
    one = metric(comparison, "accuracy_fraction")

    assert one.ratio.p == pytest.approx(2 / 2**10)
    assert one.ratio.value == pytest.approx(590 / 600)
    assert one.difference is not None
    assert one.difference.change == pytest.approx(-0.01)
    assert (one.verdict, one.ratio.rule) == (WORSE, "McNemar")
    assert "points)" in page(comparison, 120)
    separate = [_answered("a", _answers(600)), _answered("b", _answers(600), texts_sha256="u")]
    assert metric(compared(separate[:1], separate[1:]), "accuracy_fraction").verdict == UNTESTED


def test_perplexity_and_divergence_are_paired_by_windows() -> None:
    """E to the power of the mean change per token; equal windows are the same; KL needs windows too."""
    comparison = metric(compared([scored("a", [1000.0, 1010.0])], [scored("b", [1002.0, 1011.0])]), "perplexity")
    kl = compared([diverged("a", 0.1, 0.9)], [diverged("b", 0.2, 0.8)])

    assert comparison.ratio.value == pytest.approx(math.exp(3 / 1022))
    # Changes of 2 and 1 in 511 tokens each, 0.5 off their mean: the error is sqrt(2 * 0.5) / 1022, t = 3.
    assert comparison.ratio.p == pytest.approx(2 * math.atan(1 / 3) / math.pi, rel=1e-6)
    assert comparison.verdict == NO_DIFFERENCE
    equal = metric(compared([scored("a", [9.0, 8.0])], [scored("b", [9.0, 8.0])]), "perplexity")
    assert (equal.verdict, equal.ratio.value) == (SAME, 1.0)
    assert metric(kl, "kl_mean").ratio.value == pytest.approx(2.0)
    assert (metric(kl, "kl_mean").verdict, metric(kl, "kl_mean").ratio.rule) == (UNTESTED, "other items")


def test_artifacts_are_compared_once_and_exactly() -> None:
    """16 and 4.25 bits: better, without a p; a second suite with the same two artifacts adds no line."""
    mine, theirs = rounds("baseline", FIRST), rounds("gptq-4", SECOND)
    twice = [[*its, *(replace(r, suite="more") for r in its)] for its in (mine, theirs)]
    comparison = metric(compared(twice[0], twice[1]), "bits_per_weight")

    assert (comparison.ratio.value, comparison.verdict, comparison.p_holm) == (4.25 / 16, BETTER, None)


def test_cells_of_one_selection_alone_are_listed() -> None:
    """A cell that B never ran, one that failed there with its reason, and figures of both that stay."""
    failed = replace(bad("b", "failed", "out of\x1b[2J memory"), cell=cell("b", what=LOADS[1]))
    a = [*rounds("a", FIRST), *rounds("a", FIRST, LOADS[1]), *rounds("a", FIRST, LOADS[2])]
    comparison = compared(a, [*rounds("b", SECOND), failed])
    text = page(comparison, 120)

    assert "only A has 1 cell: demo/demo/hf/three" in text
    assert "A ran 1 cell that B could not: failed: out of [2J memory (1 cell)" in text
    assert "1 cells" not in text
    assert "\x1b" not in text
    assert [p["what"] for p in as_json(comparison)["only_a"]] == ["two", "three"]


def test_what_else_differs_is_said_below() -> None:
    """Driver, versions, an instruction set, a load of one name with other options, and clocks 2 % apart."""
    gpu = Gpu(0, "L4", 2**34, "8.9", "550.1")
    one, two = ({"energy_sm_clock_mean_mhz": clock} for clock in (1500.0, 1530.0))
    mine = [
        replace(r, hardware=replace(CPU, gpus=(gpu,)), environment={"vllm": "0.9"}, metrics={**r.metrics, **one})
        for r in rounds("a", FIRST)
    ]
    other = replace(CPU, gpus=(replace(gpu, driver="560.2"),), isa=("avx2",))
    changed = replace(cell("b"), workload=replace(LOADS[0], repeats=9))
    theirs = [
        replace(r, hardware=other, environment={"vllm": "0.10"}, metrics={**r.metrics, **two}, cell=changed)
        for r in rounds("b", SECOND)
    ]
    text = page(compared(mine, theirs), 120)

    stated = (
        "driver: 550.1 / 560.2",
        "vllm: 0.9 / 0.10",
        "load repeats: 5 / 9",
        "instruction sets: \N{EN DASH} / avx2",
    )
    for line in (*stated, "mean SM clock, MHz: 1500 to 1500 / 1530 to 1530"):
        assert f"{line} (1 of 1 cells)" in text
    assert "What else is not the same" not in page(compared(rounds("a", FIRST), rounds("b", SECOND)), 120)


def test_a_word_is_what_it_is_in_the_records(tmp_path: Path) -> None:
    """Recipes, engines, pairs and devices; none and mixed kinds are a sentence; a prefix decides."""
    root = stored(
        tmp_path / "r",
        [*rounds("nf4", FIRST), *rounds("gguf", SECOND, engine="llamacpp"), *rounds("llamacpp", SECOND, LONG)],
    )

    def kinds(a: str, b: str) -> list[tuple[str, int]]:
        return [(s.kind, len(s.records)) for s in selections(a, b, root, Filter())]

    assert kinds("nf4", "gguf") == [("recipe", 3), ("recipe", 3)]
    assert kinds("hf", "engine:llamacpp") == [("engine", 6), ("engine", 3)]
    assert kinds("nf4@hf", "gguf@llamacpp") == [("recipe@engine", 3), ("recipe@engine", 3)]
    for a, b, sentence in (
        ("nf5", "gguf", "'nf5' is not a recipe, engine, device or model of .*: did you mean nf4"),
        ("recipe:nf5", "gguf", "unknown recipe 'nf5'"),
        ("llamacpp", "hf", "'llamacpp' is a recipe and an engine: write recipe:llamacpp or engine:llamacpp"),
        ("nf4", "hf", "nf4 is a recipe and hf is an engine"),
        ("nf4", "gguf@llamacpp", "write nf4@ENGINE"),
        ("nf4", "recipe:nf4", "both are the recipe nf4"),
        ("commit:HEAD", "nf4", "git cannot read"),
    ):
        with pytest.raises(UserError, match=sentence):
            selections(a, b, root, Filter())
    with pytest.raises(UserError, match="no records in"):
        selections("nf4", "gguf", tmp_path / "empty", Filter())


def test_globs_leave_cells_out(tmp_path: Path) -> None:
    """By suite, load, engine and recipe, as fnmatch has it."""
    records = [*rounds("nf4", FIRST), *rounds("nf4", FIRST, LOADS[1]), *rounds("gguf", FIRST)]
    root = stored(tmp_path, records)

    def kept(filters: Filter) -> list[int]:
        return [len(selected.records) for selected in selections("nf4", "gguf", root, filters)]

    assert kept(Filter()) == [6, 3]
    assert kept(Filter(only="on*")) == [3, 3]
    assert kept(Filter(suites=("de*", "x"))) == [6, 3]
    assert kept(Filter(suites=("x",))) == kept(Filter(engine="v*")) == kept(Filter(device="gpu*")) == [0, 0]
    assert kept(Filter(recipe="g*")) == [0, 3]


def test_engines_that_load_other_recipes_are_compared_as_pairs() -> None:
    """No recipe ran on both: the sentence names those of each and what to write."""
    a, b = rounds("baseline", FIRST), rounds("gguf", SECOND, engine="llamacpp")
    with pytest.raises(UserError, match=r"of a are baseline; those of b gguf; compare .* baseline@a gguf@b"):
        require_common_cells(compared(a, b, "engine"))

    comparison = compared(a, b, "recipe@engine")
    require_common_cells(comparison)
    assert metric(comparison, "tpot_s").ratio.value == pytest.approx(8.0)


def test_models_of_other_suites_are_compared() -> None:
    """A suite has one model: two of them share no suite, and are matched by recipe, engine and load."""
    mine = rounds("nf4", FIRST)
    theirs = [
        replace(r, suite="other", cell=replace(r.cell, model=replace(r.cell.model, name="big")))
        for r in rounds("nf4", SECOND)
    ]
    assert metric(compared(mine, theirs, "model"), "tpot_s").ratio.value == pytest.approx(8.0)
    with pytest.raises(UserError, match="the loads and tasks of a are one; those of b two"):
        require_common_cells(
            compared(mine, [replace(r, cell=replace(r.cell, workload=LOADS[1])) for r in theirs], "model")
        )
    twice = [*theirs, *(replace(r, suite="third") for r in theirs)]
    with pytest.raises(UserError, match="choose with --suite, of demo, other, third"):
        require_common_cells(compared(mine, twice, "model"))


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.mark.slow
def test_two_commits_are_read_from_git_and_the_checkout_stays(tmp_path: Path, command: Command) -> None:
    """Records of a tag beside HEAD's: the changed cell is compared, the unchanged one said."""
    repo = tmp_path / "repo"
    root = stored(repo / "results", [*rounds("nf4", FIRST), *rounds("nf4", FIRST, LOADS[1])])
    (root / "cpu-x-2c-8gib/r9.json").write_text("{}")
    _git(repo, "init", "-q")
    _git(repo, "add", ".")
    _git(repo, "commit", "-qm", "one")
    _git(repo, "tag", "before")
    stored(root, [replace(r, started="2026-12-01T00:00:00") for r in rounds("nf4", SECOND)])
    _git(repo, "commit", "-qam", "two")
    stored(root, rounds("nf4", [1.0, 1.0, 1.0]))
    done = command("bench", "compare", "before", "HEAD", "--json", "--results", str(root))
    data = json.loads(done.stdout)

    assert done.returncode == 0
    (one,) = data["figures"]
    assert (one["what"], one["metric"], one["verdict"]) == ("one", "tpot_s", "worse")
    assert one["ratio"]["value"] == pytest.approx(8.0)
    assert [cell_["what"] for cell_ in data["same_records"]] == ["two"]
    assert "r9.json is not a record" in done.stderr
    assert str(tmp_path) not in done.stdout
    same = command("bench", "compare", "HEAD", "commit:before~0", "--results", str(root), "--only", "two")
    assert (same.returncode, "very same records of them: 1 cell" in same.stdout) == (0, True)
    wrong = command("bench", "compare", "commit:HEAD~7", "HEAD", "--results", str(root))
    assert (wrong.returncode, "unknown commit 'HEAD~7'" in wrong.stderr) == (2, True)
    mixed = command("bench", "compare", "HEAD", str(root), "--results", str(root))
    assert "better in 1" in mixed.stdout


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_page_keeps_its_width(width: int) -> None:
    """No line is longer than asked; totals come before cells; who is who comes first."""
    a = [*rounds("a", FIRST), *rounds("a", FIRST, LOADS[1]), scored("a", [1000.0, 990.0])]
    b = [*rounds("b", SECOND), *rounds("b", SECOND, LOADS[1]), scored("b", [1001.0, 990.0])]
    text = page(compared(a, b), width)

    assert max(map(len, text.splitlines())) <= width
    assert text.startswith("A: recipe a\nB: recipe b\n3 cells compared")
    assert text.index("over all cells") < text.index("\none\n") < text.index("Welch: ratio")


def test_unquantized_divergences_have_no_ratio() -> None:
    """A KL at the floor of what was kept of the baseline is no unit to measure another by."""
    task = Task("divergence", name="kl")
    facts = {
        "sha256": "t",
        "context": 1,
        "convention": "hf",
        "tokens": 9,
        "windows": 2,
        "window_tokens": [10, 10],
        "reference": "d",
        "window_top1": [9, 8],
    }
    both = [
        replace(
            diverged(name, kl, 0.9),
            cell=cell(name, what=task),
            artifact=artifact_of(name),
            facts={**facts, "window_kl": [10 * kl, 10 * kl * more]},
        )
        for name, kl, more in (("a", 1.6e-9, 1.0), ("b", 0.02, 1.1))
    ]
    comparison = metric(compared(both[:1], both[1:]), "kl_mean")

    assert (comparison.ratio.value, comparison.verdict) == (None, WORSE)
    assert "nats)" in page(compared(both[:1], both[1:]), 120)
