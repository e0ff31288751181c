"""A document's numbers come from records: its passages are written, its claims held, its mistakes named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.measure.seeds import over_seeds
from bench.measure.stats import Spread
from bench.publish.document import document
from bench.publish.records import Records
from bench.publish.tables.model import CellSummary, Row, Table

_LOAD, _TASK = "offline-b1-p8-n4", "perplexity-stdlib-hf-64"


def _row(recipe: str, tpot: tuple[float, float, float], ppl: float, change: float) -> Row:
    load = CellSummary("ok", rounds=3, figures={"tpot_s": Spread(tpot[1], tpot[0], tpot[2], 0.1, 3)}, marks=("varies",))
    changes = {"perplexity_change_fraction": change} if recipe != "baseline" else {}
    figures = {"perplexity": Spread(ppl, ppl, ppl, 0.0, 1)}
    task = CellSummary("ok", rounds=1, figures=figures, change=changes, kind="perplexity")
    return Row("dev", "s", "m", recipe, "hf", recipe == "baseline", None, {_TASK: task}, {_LOAD: load})


def _records() -> Records:
    tasks, loads = {_TASK: CellSummary("unsupported", "no | GPU")}, {_LOAD: CellSummary("missing")}
    failed = Row("dev", "s", "m", "fp8", "hf", baseline=False, audit=None, tasks=tasks, workloads=loads)
    rows = (_row("baseline", (0.003, 0.004, 0.005), 8, 0), _row("nf4", (0.001, 0.002, 0.0025), 8.4, 0.05), failed)
    return Records({("dev", "s"): Table(rows, (_TASK,), (_LOAD,))}, {("dev", "s"): ()})


def _filled(tmp_path: Path, text: str) -> str:
    path = tmp_path / "REPORT.md"
    path.write_text(text)
    return document.filled(path, _records())


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("value s/nf4/hf/offline-b1* tpot_s", "2.00 ms"),
        ("figure s/nf4/hf/offline-b1* tpot_s", "2.00 (1.00\N{EN DASH}2.50) ms"),
        ("value s/nf4/hf/perplexity* perplexity_change_fraction", "+5.00 %"),
        ("value ratio s/baseline/hf/offline* s/nf4/hf/offline* tpot_s", "2.00"),
        ("value high s/nf4/hf/offline* tpot_s", "2.50 ms"),
        ("value middle s/baseline,nf?/hf/offline* tpot_s", "3.00 ms"),
        ("value count s/*/*/* unsupported", "1"),
        ("reasons s", "- fp8 on hf: unsupported: no \\| GPU"),
    ],
)
def test_a_passage_is_what_its_command_gives(tmp_path: Path, command: str, text: str) -> None:
    """The old text goes, the prose around it stays, and a second filling changes nothing."""
    once = _filled(tmp_path, f"It took <!-- bench: {command} -->9 s<!-- /bench -->, we saw.\n")

    assert once == f"It took <!-- bench: {command} -->{text}<!-- /bench -->, we saw.\n"
    assert _filled(tmp_path, once) == once


def test_a_table_stands_on_lines_of_its_own(tmp_path: Path) -> None:
    """In the order asked for, with marks and a footnote for what could not run."""
    text = _filled(
        tmp_path, "<!-- bench: table s/*/* tpot_s@o* perplexity@p* perplexity_change_fraction@p* -->\n<!-- /bench -->"
    )

    assert text.splitlines()[1:-1] == [
        "| recipe | engine | TPOT ms ↓ | ppl stdlib-hf-64 ↓ | vs baseline % ↓ | marks |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        "| baseline | hf | 4.00 (3.00\N{EN DASH}5.00) | 8.000 | baseline | varies |",
        "| nf4 | hf | 2.00 (1.00\N{EN DASH}2.50) | 8.400 | +5.00 | varies |",
        "| fp8 | hf | not run yet | unsupported¹ | ¹ |  |",
        "",
        "¹ no \\| GPU  ",
        "varies: the coefficient of variation over rounds is above 5 %",
    ]


def test_rows_can_be_put_in_the_order_of_a_figure(tmp_path: Path) -> None:
    """Rows without it come last."""
    text = _filled(tmp_path, "<!-- bench: table s/*/* tpot_s@* by=tpot_s@* -->\n<!-- /bench -->")

    assert [line.split(" | ")[0] for line in text.splitlines()[3:6]] == ["| nf4", "| baseline", "| fp8"]


def test_two_models_order_their_recipes_by_rank_correlation(tmp_path: Path) -> None:
    """Spearman's over the recipes and engines that both have: one swap of four neighbours is 0.8."""
    losses = {"s": (1.0, 2.0, 3.0, 4.0, 9.0), "t": (10.0, 30.0, 20.0, 40.0)}
    rows = {
        suite: tuple(replace(_row(f"r{i}", (1, 1, 1), loss, 0), suite=suite) for i, loss in enumerate(its))
        for suite, its in losses.items()
    }
    tables = {("dev", suite): Table(its, (_TASK,), (_LOAD,)) for suite, its in rows.items()}
    path = tmp_path / "REPORT.md"
    path.write_text(
        "<!-- bench: value rank s/*/*/p* t/*/*/p* perplexity -->?<!-- /bench --> of "
        "<!-- bench: value pairs s/*/*/p* t/*/*/p* perplexity -->?<!-- /bench -->"
    )

    text = document.filled(path, Records(tables, dict.fromkeys(tables, ())))

    assert "-->0.800<!--" in text
    assert "-->4<!--" in text
    twice = replace(
        rows["s"][0], tasks={_TASK: rows["s"][0].tasks[_TASK], "perplexity-other": rows["s"][1].tasks[_TASK]}
    )
    ambiguous = Records({**tables, ("dev", "s"): Table((twice,), (_TASK, "perplexity-other"), ())}, {})
    with pytest.raises(UserError, match="matches several cells of r0 on hf"):
        document.filled(path, ambiguous)


@pytest.mark.parametrize(
    "claim",
    [
        "high s/nf4/hf/offline* tpot_s < low s/baseline/hf/offline* tpot_s",
        "ratio s/baseline/hf/p* s/nf4/hf/p* perplexity >= 0.9",
    ],
)
def test_a_claim_that_holds_leaves_its_sentence(tmp_path: Path, claim: str) -> None:
    """Claims are about ranges over rounds as well as about medians."""
    text = f"<!-- bench: holds {claim} -->NF4 is faster.<!-- /bench -->"

    assert _filled(tmp_path, text) == text


def test_a_claim_may_hold_figures(tmp_path: Path) -> None:
    """They are filled like any other, and the claim is still checked."""
    figure = "<!-- bench: value s/nf4/hf/offline* tpot_s -->"
    claim = "<!-- bench: holds s/nf4/hf/offline* tpot_s < 1 -->"
    text = f"{claim}It takes {figure}9 s<!-- /bench -->.<!-- /bench -->"

    assert _filled(tmp_path, text) == text.replace("9 s", "2.00 ms")
    with pytest.raises(UserError, match="is false"):
        _filled(tmp_path, text.replace("< 1", "> 1"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("holds s/nf4/hf/offline* tpot_s > s/baseline/hf/offline* tpot_s", "0.002 > 0.004 is false"),
        ("holds s/nf4/hf/offline* tpot_s", "no comparison"),
        ("value s/nf5/hf/offline* tpot_s", "s has: baseline/hf, nf4/hf, fp8/hf"),
        ("value t/nf4/hf/offline* tpot_s", "the suites are: s"),
        ("value s/nf4/hf/closed* tpot_s", f"no workload or task matches closed*; available: {_LOAD}, {_TASK}"),
        ("value s/*/hf/offline* tpot_s", "matches 3 cells"),
        ("value s/nf4/hf/offline* ttft_s", "no value of ttft_s; available: tpot_s"),
        ("value s/fp8/hf/perplexity* perplexity", "the status is unsupported"),
        ("value s/nf4/hf/offline* tpot", "unknown figure 'tpot': did you mean 'tpot_s'?"),
        ("value", "is not a number"),
        ("value rank s/*/*/p* s/*/*/p* perplexity", "2 recipes are in both: a rank correlation needs 3"),
        ("valeu s/nf4/hf/offline* tpot_s", "unknown command 'valeu': did you mean 'value'?"),
        ("value 'x", "check its quotes"),
        ("table s/*/*", "expected: table"),
        ("pick s offline-b9", "no records of the workload offline-b9"),
        ("pick s offline-b1 min-recovery=high", "invalid min-recovery=high: expected a number"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, command: str, message: str) -> None:
    """One sentence, and nothing is written."""
    with pytest.raises(UserError) as error:
        _filled(tmp_path, f"# Report\n\nSo <!-- bench: {command} -->it is<!-- /bench -->.\n")

    assert f"REPORT.md:3: {command}: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["<!-- bench: machines -->x", "x<!-- /bench -->", "<!-- bench: a --><!-- bench: machines -->x<!-- /bench -->"],
)
def test_a_passage_without_an_end_is_a_mistake(tmp_path: Path, text: str) -> None:
    """Also where the next one begins inside it."""
    with pytest.raises(UserError, match=r"REPORT\.md"):
        _filled(tmp_path, text)


def _with_seeds() -> Records:
    """The records above, with three replicates of nf4."""
    (key, table), *_ = _records().tables.items()
    spreads = {
        "perplexity": over_seeds([8.4, 8.6, 8.5]),
        "perplexity_change_fraction": over_seeds([0.05, 0.075, 0.0625]),
    }
    rows = [
        replace(row, tasks={_TASK: replace(row.tasks[_TASK], seeds={k: s for k, s in spreads.items() if s})})
        if row.recipe == "nf4"
        else row
        for row in table.rows
    ]
    return Records({key: replace(table, rows=tuple(rows))}, {key: ()})


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("figure s/nf4/hf/perplexity* perplexity", "8.400 (over 3 seeds 8.500 ± 0.248)"),
        ("figure s/nf4/hf/perplexity* perplexity_change_fraction", "+5.00 ± 3.11 %"),
        ("figure s/baseline/hf/perplexity* perplexity", "8.000"),
        ("value seeds s/nf4/hf/perplexity* perplexity", "0.2484"),
        ("value seeds s/nf4/hf/perplexity* perplexity_change_fraction", "3.11 %"),
    ],
)
def test_a_figure_has_its_spread_over_seeds_beside_it(tmp_path: Path, command: str, text: str) -> None:
    """Half of Student's interval of three replicates, 4.303 x 0.1 / sqrt(3); a change has the larger of both."""
    path = tmp_path / "REPORT.md"
    path.write_text(f"<!-- bench: {command} --><!-- /bench -->")

    assert document.filled(path, _with_seeds()) == f"<!-- bench: {command} -->{text}<!-- /bench -->"


def test_a_table_has_a_column_over_seeds_where_a_recipe_has_replicates(tmp_path: Path) -> None:
    """Behind the metric, with what it means below; a metric without replicates stands alone."""
    path = tmp_path / "REPORT.md"
    path.write_text(
        "<!-- bench: table s/*/* tpot_s@o* perplexity@p* perplexity_change_fraction@p* -->\n<!-- /bench -->"
    )
    lines = document.filled(path, _with_seeds()).splitlines()

    assert lines[1].startswith("| recipe | engine | TPOT ms ↓ | ppl stdlib-hf-64 ↓ | ppl over seeds stdlib-hf-64 |")
    assert "| 8.400 | 8.500 ± 0.248 (3) | +5.00 ± 3.11 |" in lines[4]
    assert "| 8.000 | \N{EN DASH} | baseline |" in lines[3]
    assert any(line.startswith("over seeds: ") for line in lines)


def test_a_spread_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    """A recipe without replicates has none: one sentence that says so."""
    path = tmp_path / "REPORT.md"
    path.write_text("<!-- bench: value seeds s/baseline/hf/perplexity* perplexity --><!-- /bench -->")

    with pytest.raises(UserError, match="no spread of perplexity over seeds: give baseline replicates"):
        document.filled(path, _with_seeds())
