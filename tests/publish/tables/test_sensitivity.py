"""What each layer costs: a table of blocks by kinds, a heat map of it, the same on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract.record import Result
from bench.contract.spec import Task
from bench.publish.figures import chart_data, charts, draw
from bench.publish.page import page
from bench.publish.page import tables as page_tables
from bench.publish.records import gather
from bench.publish.tables.build import build
from bench.publish.tables.render import csv_text, render
from bench.store import Store
from eval.tasks import sensitivity
from tests.publish.tables.test_build import CPU, artifact_of, cell

_TASK = Task("sensitivity", name="sensitivity-stdlib-hf-256-512t")


def measured(recipe: str, *, times: float = 1.0) -> Result:
    """Two windows, two blocks of two kinds and the head; block 1's down_proj costs a hundred times the others."""
    kl = [[0.255, 0.51]] * 3 + [[25.5, 51.0], [0.0, 0.0]]
    sums = [[times * value for value in window] for window in kl]
    units = 5 if times else 0
    facts = {
        "windows": 2,
        "window_tokens": [255, 255],
        "units": ["q0", "down0", "q1", "down1", "lm_head"][:units],
        "unit_blocks": ["0", "0", "1", "1", "outside"][:units],
        "unit_kinds": ["q_proj", "down_proj", "q_proj", "down_proj", "lm_head"][:units],
        "unit_parameters": [1] * units,
        "unit_window_kl": sums[:units],
        "window_kl_sum": [26.265 * times, 52.53 * times],
        "window_kl_all": [52.53 * times, 105.06 * times],
        "layers_quantized": units,
        "block_passes": 6,
        "block_passes_whole": 10,
    }
    what = cell(recipe, what=_TASK)
    metrics = dict(sensitivity.metrics(facts))
    return Result("d", "demo", what, 0, "ok", CPU, artifact=artifact_of(recipe), facts=facts, metrics=metrics)


RECORDS = [measured("baseline", times=0.0), measured("gptq-4")]


def test_a_table_has_blocks_by_kinds_and_what_they_add_up_to() -> None:
    """The sum over the layers beside all at once, and a line for each block; a baseline has no layer there."""
    text = render(build(RECORDS), "md").replace("\\", "")
    lines = [line for line in text.splitlines() if line.startswith(("| recipe | engine | block", "| gptq-4 | hf | "))]

    assert "| recipe | engine | block | q_proj | down_proj | lm_head |" in lines
    assert any(line.startswith("| gptq-4 | hf | 1 | 0.0015 ± ") and " | 0.15 ± " in line for line in lines)
    assert any("0.15 ± 0.40 | 0.31 ± 0.81 | 0.500 |" in line for line in lines)
    assert "sensitivity-stdlib-hf-256-512t/kl_most" in csv_text(build(RECORDS)).splitlines()[0]


def test_a_heat_map_is_drawn_of_what_is_quantized() -> None:
    """One panel, of the recipe; a field for each layer, in one range of colours; and vl-convert draws it."""
    drawn = charts.build(chart_data.build(gather(RECORDS)), [])
    ((path, spec),) = ((path, spec) for path, spec in drawn.items() if "heat" in path.name)
    (panel,) = spec["concat"]

    assert path == Path("cpu-x-2c-8gib/figures/demo-heat-sensitivity-stdlib-hf-256-512t.svg")
    assert panel["title"] == "gptq-4 on hf"
    assert [(row["row"], row["column"]) for row in panel["data"]["values"]] == [
        *(("0", "q_proj"), ("0", "down_proj"), ("1", "q_proj"), ("1", "down_proj"), ("outside", "lm_head"))
    ]
    low, high = panel["encoding"]["color"]["scale"]["domain"]
    assert (low, high) == (pytest.approx(0.0015), pytest.approx(0.15))
    assert all(low <= row["value"] <= high for row in panel["data"]["values"])
    assert "<svg" in draw.svg(spec)


def test_the_page_has_the_same_fields(tmp_path: Path) -> None:
    """A heat map for each recipe that quantizes, and the lines of the table with their texts."""
    records = gather(RECORDS)
    data, _ = page.content(records, chart_data.build(records), [], Store(tmp_path))
    lines = page_tables.by_part(list(records.rows()))["lines"]

    (field,) = data["fields"]
    assert (field["recipe"], field["task"], len(field["cells"])) == ("gptq-4", _TASK.name, 5)
    assert set(data["charts"]["heat"]) == {"kl_mean"}
    assert {line["part"] for line in lines} == {
        f"stdlib-hf-256-512t: KL of one layer ↓, block {block}" for block in ("0", "1", "outside")
    }
