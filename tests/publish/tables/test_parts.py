"""How metrics of parts of a task's items are shown: curves by position, matrices by length and depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import Task
from bench.publish.document import commands
from bench.publish.figures import chart_data, charts
from bench.publish.page import tables as page_tables
from bench.publish.records import gather
from bench.publish.tables.build import build
from bench.publish.tables.render import render
from eval.tasks import perplexity, retrieval
from tests.publish.tables.test_build import CPU, PPL, artifact_of, cell, perplexity_facts

_TO = "\N{EN DASH}"
_RETRIEVAL = Task("retrieval", name="retrieval-pairs-512-2048")


def by_position(recipe: str, *nlls: float) -> Result:
    """Two windows; a pair of bins with so many nats a token in the first window, and 0.1 more in the second."""
    bins = [
        {"first": first, "last": last, "window_tokens": [n, n], "window_nll": [nll * n, (nll + 0.1) * n]}
        for (first, last), nll in zip(((1, 63), (64, 511)), nlls, strict=True)
        for n in [last - first + 1]
    ]
    facts = {**perplexity_facts([1000.0, 1010.0]), "by_position": bins}
    metrics = dict(perplexity.metrics(facts))
    what = cell(recipe, what=PPL)
    return Result("d", "demo", what, 0, "ok", CPU, artifact=artifact_of(recipe), facts=facts, metrics=metrics)


def retrieved(recipe: str, scores: str, nll: float, engine: str = "hf") -> Result:
    """Two lengths by two depths, two items each, of four tokens an answer."""
    facts: dict[str, Any] = {
        "metric": "exact_match",
        "items_sha256": "i",
        "lengths": [512, 2048],
        "depths": [0.0, 0.5],
        "items_per_place": 2,
        "item_scores": scores,
        "item_nll": [nll + 0.5 * (item % 2) for item in range(8)],
        "answer_tokens": [4] * 8,
    }
    metrics = dict(retrieval.metrics(facts))
    what = cell(recipe, engine, _RETRIEVAL)
    return Result("d", "demo", what, 0, "ok", CPU, artifact=artifact_of(recipe), facts=facts, metrics=metrics)


RECORDS = [
    by_position("baseline", 3.0, 2.0),
    by_position("gptq-4", 3.0, 2.01),
    retrieved("baseline", "11111110", 0.5),
    retrieved("gptq-4", "11101000", 4.5),
]


def _sections(records: list[Result]) -> dict[str, list[str]]:
    """The lines of each section of the page in Markdown, by its title."""
    text = render(build(records), "md").replace("\\", "")
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("**"):
            lines = sections.setdefault(line.strip("*"), [])
        elif line.startswith("|"):
            lines.append(line)
    return sections


def test_a_curve_is_a_line_by_position_and_a_line_of_changes() -> None:
    """The bins across, with intervals over windows; the change is paired, and the baseline has none."""
    sections = _sections(RECORDS)

    assert sections["stdlib-hf-512: ppl ↓ by tokens before"] == [
        f"| recipe | engine | 1{_TO}63 | 64{_TO}511 |",
        "| --- | --- | ---: | ---: |",
        "| baseline | hf | 21.12 ± 14.34 | 7.768 ± 5.274 |",
        "| gptq-4 | hf | 21.12 ± 14.34 | 7.846 ± 5.327 |",
    ]
    assert sections["stdlib-hf-512: vs baseline % ↓ by tokens before"][2:] == [
        "| gptq-4 | hf | +0.00 ± 0.00 | +1.01 ± 0.00 |"
    ]


def test_a_matrix_is_a_line_for_each_length_and_a_column_for_each_depth() -> None:
    """Whether answers are right, how likely they are, and how that changed; over all depths at the end."""
    sections = _sections(RECORDS)

    right = sections["pairs-512-2048: exact match % ↑ by depth"]
    assert right[0] == "| recipe | engine | length | 0 % | 50 % | all |"
    assert [line.split(" | ")[1:3] for line in right[2:]] == [["hf", "512"], ["hf", "2048"]] * 2
    assert [line.split(" | ")[3].split()[0] for line in right[2:]] == ["100", "100", "100", "50.0"]
    assert right[5].endswith("| 50.0 ± 40.5 | 0 ± 33 | 25.0 ± 32.7 |")
    assert sections["pairs-512-2048: answer nll vs baseline ↓ by depth"][2:] == [
        "| gptq-4 | hf | 512 | +1 ± 0 | +1 ± 0 | +1 ± 0 |",
        "| gptq-4 | hf | 2048 | +1 ± 0 | +1 ± 0 | +1 ± 0 |",
    ]
    assert any(title.startswith("pairs-512-2048: 8 items") for title in sections)


def test_facts_over_other_items_have_no_change_and_keep_their_parts() -> None:
    """A curve against a baseline without one, or a matrix of other prompts, is shown alone."""
    first, second, *_, last = RECORDS
    plain = replace(first, facts=perplexity_facts([1000.0, 1010.0]))
    other = retrieved("baseline", "11111110", 0.5)
    other = replace(other, facts={**other.facts, "items_sha256": "other"})
    sections = _sections([plain, second, other, last])

    assert "stdlib-hf-512: ppl ↓ by tokens before" in sections
    assert "pairs-512-2048: exact match % ↑ by depth" in sections
    assert not [title for title in sections if "vs baseline" in title]


def test_tasks_without_parts_are_as_before() -> None:
    """No section, and nothing in the JSON."""
    plain = replace(RECORDS[0], facts=perplexity_facts([1000.0, 1010.0]))

    assert len(_sections([plain])) == 1
    assert '"parts"' not in render(build([plain]), "json")
    assert len(json.loads(render(build(RECORDS), "json"))["rows"][0]["tasks"][PPL.name]["parts"]) == 2


def test_a_document_quotes_them() -> None:
    """The rows of a path; a metric that they have not, or several tasks, is one sentence."""
    records = gather(RECORDS)

    assert commands.write("parts demo/gptq*/hf perplexity_change_fraction@perplexity*", records).splitlines() == [
        f"| recipe | engine | 1{_TO}63 | 64{_TO}511 |",
        "| --- | --- | ---: | ---: |",
        "| gptq-4 | hf | +0.00 ± 0.00 | +1.01 ± 0.00 |",
    ]
    with pytest.raises(UserError, match="did you mean 'perplexity'"):
        commands.write("parts demo/*/hf perplexty@perplexity*", records)
    with pytest.raises(UserError, match="matches 2 tasks with parts: name one of perplexity-"):
        commands.write("parts demo/*/hf perplexity@*", records)
    with pytest.raises(UserError, match="expected: parts"):
        commands.write("parts demo/*/hf", records)


def test_the_page_has_a_line_for_each_metric_and_length() -> None:
    """The text of the tables, and the value that it is sorted by; a line opens its row's records."""
    data = page_tables.by_part(list(gather(RECORDS).rows()))
    lines = {(line["recipe"], line["part"]): line["cells"] for line in data["lines"]}

    assert lines["gptq-4", "stdlib-hf-512: ppl ↓"][f"tokens before|64{_TO}511"][0] == "7.846 ± 5.327"
    assert lines["gptq-4", "pairs-512-2048: exact match % ↑, length 2048"]["depth|0 %"] == ("50.0 ± 40.5", 0.5)
    assert ("baseline", "stdlib-hf-512: vs baseline % ↓") not in lines
    assert data["heads"]["depth|0 %"] == "depth 0 %"
    assert page_tables.by_part([]) == {"heads": {}, "lines": []}


def test_a_curve_by_position_is_a_figure() -> None:
    """A panel for the metric and one for its change, a point in the middle of each bin; a matrix is none."""
    drawn = charts.build(chart_data.build(gather(RECORDS)), [])
    (spec,) = (spec for path, spec in drawn.items() if "position" in path.name)

    assert [path for path in drawn if "position" in path.name] == [
        Path("cpu-x-2c-8gib/figures/demo-position-perplexity-stdlib-hf-512.svg")
    ]
    ppl, change = (panel["data"]["values"] for panel in spec["concat"])
    assert {(row["choice"], row["level"]) for row in ppl} == {
        (choice, at) for choice in ("baseline on hf", "gptq-4 on hf") for at in (32.0, 287.5)
    }
    assert [row["value"] for row in change] == pytest.approx([0.0, 1.005], abs=1e-3)
