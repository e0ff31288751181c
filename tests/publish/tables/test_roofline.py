"""The section of the roofline: what bounds a row, what its recipe gained and would gain at the roofline."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

from bench.contract.record import Result
from bench.publish.tables.build import build
from bench.publish.tables.render import render
from tests.publish.tables.test_build import served


def _timed(recipe: str, tpot_s: float, roofline_s: float, engine: str = "hf", **facts: Any) -> Result:
    base = served(recipe, 0.02, engine=engine)
    result = {
        "tpot_s": tpot_s,
        "roofline_s": roofline_s,
        "roofline_fraction": roofline_s / tpot_s,
        "mbu_fraction": roofline_s / tpot_s,
        "mfu_fraction": 0.25,
        "decode_mfu_fraction": 0.01,
    }
    return replace(base, metrics={**base.metrics, **result}, facts=facts)


ROWS = [
    _timed("baseline", 0.008, 0.004),
    _timed("gptq-w4", 0.004, 0.001),
    _timed("gguf-q4", 0.002, 0.0005, engine="llamacpp"),
]


def test_a_section_says_how_near_each_row_came() -> None:
    """MBU, MFU, the bound, the least time; what a recipe gained, and would if both kept to the roofline."""
    page = render(build(ROWS), "md")
    section = page.partition("**short: roofline**")[2].split("\n\n")[1]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines()]

    assert lines[0][2:] == [
        "MBU % ↑",
        "MFU of prefill % ↑",
        "decoding bound by",
        "least TPOT by the roofline ms",
        "gained x ↑",
        "gain at the roofline x",
    ]
    assert lines[2] == ["baseline", "hf", "50.0", "25.0", "memory", "4.00", "–", "–"]  # noqa: RUF001  (as shown)
    assert lines[3] == ["gptq-w4", "hf", "25.0", "25.0", "launch", "1.00", "2.00", "4.00"]


def test_a_gain_over_another_engine_has_a_star() -> None:
    """The baseline ran on hf alone: what llama.cpp gained over it is not the recipe's doing alone."""
    page = render(build(ROWS), "md")

    assert "| 0.500 | 4.00 \\* | 8.00 \\* |" in page
    assert "\\*: the change is against the baseline on another engine" in page


def test_a_spreadsheet_has_it_too() -> None:
    """Figures as stored, the word and the gains, in columns of their own."""
    rows = list(csv.DictReader(io.StringIO(render(build(ROWS), "csv"))))

    assert [row["short/mbu_fraction"] for row in rows] == ["0.5", "0.25", "0.25"]
    assert [row["short/bound"] for row in rows] == ["memory", "launch", "launch"]
    assert [row["short/tpot_gain"] for row in rows] == ["", "2.0", "4.0"]
    assert [row["short/tpot_gain_at_roofline"] for row in rows] == ["", "4.0", "8.0"]


def test_a_busy_client_is_the_bound() -> None:
    """Where the load's own process was the limit, the server's ceilings say nothing."""
    entry = build([_timed("baseline", 0.008, 0.004, client_cpu_fraction=0.95)]).rows[0].workloads["short"]
    assert entry.words == {"bound": "client"}


def test_whose_word_a_ceiling_is_stands_below() -> None:
    """The vendor's where it states one, else the measurement; in the spreadsheet too."""
    known = {"measured": {"source": "measured here"}, "vendor": {"source": "https://nvidia.com/l4"}}
    by_vendor = _timed("baseline", 0.008, 0.004, ceiling=known)
    measured = _timed("baseline", 0.008, 0.004, ceiling={"measured": known["measured"]})

    assert "of the device's ceiling (https://nvidia.com/l4); launch" in render(build([by_vendor]), "terminal", 300)
    assert "of the device's ceiling (measured here); launch" in render(build([measured]), "terminal", 300)
    assert "measured here" in render(build([measured]), "csv")


def test_without_a_ceiling_there_is_no_section() -> None:
    """Tables of records that know no ceiling are as they were."""
    table = build([served("baseline", 0.02), served("gptq-w4", 0.01)])

    assert "roofline" not in render(table, "md")
    assert "bound" not in render(table, "csv")
    assert not any(row["workloads"]["short"]["change"] for row in json.loads(render(table, "json"))["rows"])
