import csv
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Task
from bench.contract.workload import Offline, Workload
from bench.measure.stats import spread
from bench.publish.tables.build import build
from bench.publish.tables.columns import DASH, SERVING, format_figure, format_percent, number
from bench.publish.tables.model import LEGEND
from bench.publish.tables.render import json_parts, render
from bench.store import Store

CPU = Hardware("cpu", "cpu-x-2c-8gib", "X", 2**33, "X", 2, 2**33, (), "float32", "Linux")
LOAD, LONG = Offline(name="short"), Offline(name="long", new_tokens=256)
PPL = Task("perplexity", name="perplexity-stdlib-hf-512")


def cell(recipe: str, engine: str = "hf", what: Workload | Task = LOAD) -> Cell:
    steps = () if recipe == "baseline" else (Step(recipe.partition("-")[0]),)
    where = {"workload": what} if isinstance(what, Workload) else {"task": what}
    return Cell(Model("demo"), Recipe(recipe, steps), EngineSpec(engine), "cpu", **where)


def artifact_of(recipe: str) -> Artifact:
    bits, kind = (16.0, "hf") if recipe == "baseline" else (4.25, recipe.partition("-")[0])
    audit = Audit(kind, int(bits * 2**20), 900, 100, 90, 800, bits, 1.0, tied_head=True, vocab_size=8, context=16)
    return Artifact(recipe, kind, "sha", (), audit)


def stored(bits: int) -> Artifact:
    result = artifact_of("baseline")
    return replace(result, audit=replace(result.audit, bits_per_weight=float(bits)))


def served(recipe: str, ttft_s: float, round_: int = 0, engine: str = "hf", what: Workload = LOAD) -> Result:
    metrics = {"ttft_s": ttft_s, "tpot_s": 0.01, "output_tok_per_s": 100.0, "peak_memory_bytes": 1e9}
    return Result(
        "d",
        "demo",
        cell(recipe, engine, what),
        round_,
        "ok",
        CPU,
        artifact=artifact_of(recipe),
        metrics=metrics,
        started=f"2026-11-22T00:00:{round_:02}",
    )


def perplexity_facts(nll: Sequence[float]) -> dict[str, Any]:
    """Of windows of 512 tokens with these losses in all."""
    return {
        "sha256": "t",
        "context": 512,
        "stride": 512,
        "tokens": 512 * len(nll),
        "first_ids": [1],
        "windows": len(nll),
        "window_nll": list(nll),
        "window_tokens": [511] * len(nll),
        "window_bytes": [2000] * len(nll),
    }


def scored(recipe: str, nll: Sequence[float], engine: str = "hf") -> Result:
    facts = perplexity_facts(nll)
    metrics = {"perplexity": math.exp(sum(nll) / 511 / len(nll))}
    return Result(
        "d", "demo", cell(recipe, engine, PPL), 0, "ok", CPU, artifact=artifact_of(recipe), facts=facts, metrics=metrics
    )


def bad(recipe: str, status: Literal["failed", "unsupported"], reason: str, engine: str = "hf") -> Result:
    return Result("d", "demo", cell(recipe, engine), 0, status, CPU, reason=reason)


MIDDLE = "\N{MIDDLE DOT}"
RECORDS = [
    *(served("gptq-4", v, i) for i, v in enumerate((0.0123, 0.0121, 0.0129))),
    *(served("baseline", v, i) for i, v in enumerate((0.02, 0.02, 0.02))),
    scored("gptq-4", [1100.0, 1000.0]),
    scored("baseline", [1080.0, 990.0]),
    bad("awq-4", "failed", "crashed in native code (SIGSEGV)"),
    bad("gguf-4", "unsupported", "Transformers here loads no gguf"),
    bad("gguf-8", "unsupported", "Transformers here loads no gguf"),
]


def test_numbers_as_people_read_them() -> None:
    """Significant digits without exponents, whole numbers whole; a wrecked model's perplexity fits."""
    printed = [number(v, 3) for v in (0.0123456, 1.2345, 12.345, 1234.5, 0.0, 3.2e9, math.inf)]
    assert printed == ["0.0123", "1.23", "12.3", "1234", "0", "3.20e+09", "not finite"]
    assert format_figure(SERVING[0], spread([0.0123, 0.0121, 0.0129])) == f"12.3 (12.1{DASH}12.9)"
    assert format_figure(SERVING[0], spread([0.01230, 0.01231])) == "12.3"
    assert format_percent(0.0123, 0.009, 0.0155) == "+1.23 ± 0.33"
    assert format_percent(-0.5, None, None) == "-50.00"


def test_a_figure_is_the_median_over_rounds_with_its_range() -> None:
    """Rounds of one cell become one entry; nothing is pooled across recipes."""
    rows = {row.recipe: row for row in build(RECORDS).rows}
    result = rows["gptq-4"].workloads["short"]
    assert (result.rounds, result.figures["ttft_s"].median) == (3, 0.0123)
    assert result.marks == ()
    assert f"12.3 (12.1{DASH}12.9)" in render(build(RECORDS), "md")


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], []], ids=["many", "one", "none"])
def test_the_json_of_a_table_is_written_a_row_at_a_time(records: Sequence[Result]) -> None:
    """Its parts are the canonical JSON of the whole, alone and inside another object, none longer than a row."""
    table = build(records)
    whole = {**wire.plain(table), "legend": LEGEND}
    assert "".join(json_parts(table)) == wire.dumps(whole, indent=1) + "\n"
    inside = json.dumps({"table": json.loads(wire.dumps(whole))}, indent=1)
    assert '{\n "table": ' + "".join(json_parts(table, level=1)) + "\n}" == inside
    largest = max((len(wire.dumps(row, indent=1)) for row in table.rows), default=0) * 2
    assert all(len(part) <= max(largest, 4000) for part in json_parts(table))


def test_the_baseline_comes_first_and_changes_are_against_it() -> None:
    """The change is the task's own: exp of the mean difference per token, with its interval."""
    table = build(RECORDS)
    assert table.rows[0].recipe == "baseline"
    assert [row.recipe for row in table.rows if row.baseline] == ["baseline"]
    result = next(row for row in table.rows if row.recipe == "gptq-4").tasks[PPL.name].change
    assert result["perplexity_change_fraction"] == pytest.approx(math.expm1(30 / 1022))
    assert result["perplexity_change_low_fraction"] < result["perplexity_change_fraction"]
    text = render(table, "md")
    assert "**size and quality: ppl over stdlib-hf-512 (n=" in text
    assert f"+{100 * math.expm1(30 / 1022):.2f} ±" in text


def test_a_baseline_on_another_engine_is_said() -> None:
    """An engine that cannot run the baseline is compared to it elsewhere, and marked."""
    table = build([*RECORDS, scored("gguf-4", [1090.0, 1000.0], "llamacpp")])
    result = next(r for r in table.rows if r.engine == "llamacpp").tasks[PPL.name]
    assert result.marks == ("reference",)
    text = render(table, "terminal")
    assert "*: the change is against the baseline on another engine" in text


def test_scores_over_other_items_are_not_compared() -> None:
    """Two perplexities with different windows have no change, and the table still stands."""
    table = build([scored("baseline", [1000.0, 990.0]), scored("gptq-4", [1000.0])])
    assert table.rows[1].tasks[PPL.name].change == {}


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([served("plain", 0.1), served("baseline", 0.1)], "baseline"),
        ([served("gptq-4", 0.1), replace(served("raw", 0.1), artifact=artifact_of("baseline"))], "raw"),
        ([served("gptq-4", 0.1)], None),
        ([replace(served(f"fp-{b}", 0.1), artifact=stored(b)) for b in (16, 32)], "fp-32"),
    ],
)
def test_which_recipe_is_the_baseline(records: list[Result], name: str | None) -> None:
    """The one of that name, else one in the original format, else none."""
    assert next((row.recipe for row in build(records).rows if row.baseline), None) == name


def test_failed_unsupported_and_not_run_are_three_things() -> None:
    """Each has its word and, but for the last, its reason in a footnote; the same reason is one footnote."""
    expected = [cell(r) for r in ("baseline", "gptq-4", "awq-4", "gguf-4", "gguf-8", "bnb-4")]
    text = render(build(RECORDS, expected), "md")
    assert "failed¹" in text
    assert text.count("unsupported²") == 2
    assert "² Transformers here loads no gguf" in text
    assert f"| bnb-4 | hf | not run yet | {MIDDLE} |" in text
    assert "| |" not in text.replace("  ", " ")


def test_what_was_never_asked_for_is_not_called_missing() -> None:
    """With a plan at hand, a task only the baseline gets is a dash elsewhere."""
    expected = [cell("baseline"), cell("gptq-4"), cell("baseline", what=PPL)]
    rows = {row.recipe: row for row in build([served("baseline", 0.1)], expected).rows}
    assert rows["baseline"].tasks[PPL.name].status == "missing"
    assert rows["gptq-4"].tasks[PPL.name].status == "unplanned"
    assert rows["gptq-4"].workloads["short"].status == "missing"


def test_the_plans_order_wins() -> None:
    """Recipes stand as the suite lists them, whatever ran first."""
    expected = [cell(r) for r in ("baseline", "bnb-4", "gptq-4")]
    records = [served("gptq-4", 0.1), served("bnb-4", 0.1, 1), served("baseline", 0.1, 2)]
    assert [r.recipe for r in build(records, expected).rows] == ["baseline", "bnb-4", "gptq-4"]
    assert [r.recipe for r in build(records).rows] == ["baseline", "gptq-4", "bnb-4"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_terminal_form_keeps_its_width(width: int) -> None:
    """No line is longer than asked, no colour codes, every recipe is there."""
    text = render(build([*RECORDS, served("gptq-4", 0.5, what=LONG)]), "terminal", width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert all(name in text for name in ("baseline", "gptq-4", "awq-4", "short", "long"))


def test_marks_are_explained_below() -> None:
    """A range of more than 5 % CV is marked in the row and the mark is in the legend."""
    text = render(build([served("gptq-4", v, i) for i, v in enumerate((0.1, 0.2, 0.3))]), "terminal", 120)
    assert "varies: the coefficient of variation" in text


def test_rounds_are_told_once_or_per_row() -> None:
    """The same n down a section is in its title; different ones are a column."""
    assert "**short (n=3)**" in render(build(RECORDS[:6]), "md")
    assert "| n |" in render(build(RECORDS[:5]), "md")


def test_csv_has_stored_values() -> None:
    """One line per row, seconds and bytes, median, min, max and n apart; a failure keeps its reason."""
    rows = list(csv.DictReader(io.StringIO(render(build(RECORDS), "csv"))))
    result = next(row for row in rows if row["recipe"] == "gptq-4")
    keys = [f"short/ttft_s{end}" for end in ("", "_min", "_max", "_n")]
    assert [float(result[k]) for k in keys] == [0.0123, 0.0121, 0.0129, 3]
    assert result["bits_per_weight"] == "4.25"
    failed = next(row for row in rows if row["recipe"] == "awq-4")
    assert failed["short/status"] == "failed"
    assert failed["short/reason"] == "crashed in native code (SIGSEGV)"
    assert failed["short/ttft_s"] == ""


def test_json_has_everything() -> None:
    """Every metric with its spread, and the legend."""
    data = json.loads(render(build(RECORDS), "json"))
    result = next(row for row in data["rows"] if row["recipe"] == "gptq-4")
    assert result["workloads"]["short"]["figures"]["tpot_s"]["n"] == 3
    assert "busy" in data["legend"]


def test_text_from_outside_stays_text() -> None:
    """A reason with a pipe, a tag or a line break cannot leave its place in a page."""
    reason = "bad | <img src=x>\nnext"
    text = render(build([bad("a|b", "failed", reason)]), "md")
    assert "<img" not in text.replace("\\<", "")
    assert "bad \\| \\<img" in text
    assert "a\\|b" in text


def test_no_records_and_no_such_format() -> None:
    """An empty table is a sentence; an unknown format says which there are."""
    assert render(build([]), "terminal") == "No figures yet.\n"
    with pytest.raises(UserError, match="csv"):
        render(build([]), "cvs")  # type: ignore[arg-type]


def many(count: int) -> list[Result]:
    """`count` records: half served, half scored over 64 windows; five engines, three rounds."""
    rows: list[Result] = []
    nll = [1000.0 + window for window in range(64)]
    for i in range(count // 6):
        recipe, engine = "baseline" if i < 5 else f"gptq-{i // 5}", f"engine{i % 5}"
        for result in (served(recipe, 0.0123, 0, engine), scored(recipe, nll, engine)):
            rows += [replace(result, round=round_) for round_ in range(3)]
    return rows


def test_records_are_read_in_milliseconds(tmp_path: Path) -> None:
    """2,000 records take less than 0.8 s of CPU time to read and check: 20,000 less than 8 s."""
    store = Store(tmp_path)
    for result in many(2000):
        path = store.path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wire.dumps(result, indent=1))  # without put's fsync, which is not what is timed
    began = time.process_time()
    assert len(list(store.all())) == 1998
    assert time.process_time() - began < 0.8
    assert store.problems == []


@pytest.mark.slow
def test_twenty_thousand_records_are_a_table_in_seconds() -> None:
    """Built and rendered for the terminal in less than 4 s of CPU time; reading them takes about 2 more."""
    results, began = many(20_000), time.process_time()
    table = build(results)
    text = render(table, "terminal", 120)
    assert time.process_time() - began < 4.0
    assert len(table.rows) == 3333
    assert "engine4" in text


def test_records_read_back_give_the_same_table(tmp_path: Path) -> None:
    """What the store wrote is as good as what was in memory."""
    store = Store(tmp_path)
    for result in RECORDS:
        store.put(result)
    back: Mapping[str, Any] = {row.recipe: row for row in build(store.all()).rows}
    assert back["gptq-4"].workloads == {row.recipe: row for row in build(RECORDS).rows}["gptq-4"].workloads


def test_records_of_unlike_cpus_of_one_name_are_not_mixed_in_silence() -> None:
    """A cloud's "AMD EPYC" may have AVX-512 today and not tomorrow: one folder, times of two machines."""
    first = served("baseline", 0.1)
    other = replace(served("nf4", 0.1), hardware=replace(CPU, isa=("avx2", "avx512f")))

    assert build([first]).notes == ()
    assert "with and without avx2, avx512f" in render(build([first, other]), "terminal")


def test_memory_has_a_section_of_its_own_where_its_parts_are_known() -> None:
    """Below the workload's own, a column for each part that some row has; CSV has them in bytes."""
    parts = {"weights_bytes": 2**21, "kv_needed_bytes": 2**20, "kv_tokens_fit": 123456.0}
    first = served("baseline", 0.01)
    result = build([replace(first, metrics={**first.metrics, **parts}), served("gptq-4", 0.02)])
    drawn_lines = render(result, "md").split("**short: memory**")[1].splitlines()

    assert drawn_lines[2] == "| recipe | engine | weights MiB ↓ | KV needed MiB ↓ | KV tokens that fit ↑ |"
    assert drawn_lines[4] == "| baseline | hf | 2.00 | 1.00 | 123456 |"
    assert len(drawn_lines[5]) == 0
    wide = render(result, "terminal", 200)
    assert next(line for line in wide.splitlines() if line.startswith("recipe")).count("TTFT") == 1
    assert wide.index("size; short (n=1)") < wide.index("short: memory")
    lines = list(csv.DictReader(io.StringIO(render(result, "csv"))))
    assert float(lines[0]["short/weights_bytes"]) == 2**21
    assert lines[1]["short/weights_bytes"] == ""


def test_how_long_making_took_stays_known_when_a_later_record_does_not_say() -> None:
    """Of one artifact the time of whoever measured it; of another artifact nothing."""
    timed, untimed = replace(artifact_of("raw"), make_total_s=12.0), artifact_of("raw")
    early, late = served("raw", 0.1), replace(served("raw", 0.1), started="2026-11-23T00:00:00", round=1)

    def shown(last: Artifact) -> float:
        return build([replace(early, artifact=timed), replace(late, artifact=last)]).rows[0].made_s

    assert shown(untimed) == 12.0
    assert shown(replace(untimed, digest="another")) == 0.0
    assert shown(replace(untimed, make_total_s=9.0)) == 9.0


def test_the_time_of_what_was_made_beside_other_work_is_a_bound() -> None:
    """Shown as such, with what it means; no row is best by it, and it is no figure in a file."""
    alone, beside = (
        replace(served("raw", 0.1), artifact=replace(artifact_of("raw"), make_total_s=12.0)),
        replace(
            served("packed", 0.1),
            artifact=replace(artifact_of("packed"), make_total_s=7.0, facts={"make_alone": False}),
        ),
    )
    table = build([alone, beside])
    text = render(table, "md")

    assert [row.size("made_s") for row in table.rows] == [12.0, None]
    assert "| ≤7.00 |" in text
    assert "≤: at most; it was made beside other work of the run, and with --jobs 1 alone" in text
    assert "≤" not in render(build([alone]), "md")
    assert [line["made_s"] for line in csv.DictReader(io.StringIO(render(table, "csv")))] == ["12.0", ""]
