"""Generated files: what the records say, and stale as soon as a record says something else."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from bench.publish import report
from bench.publish.figures import chart_data
from bench.publish.records import gather
from bench.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"


def _wanted(root: Path) -> dict[Path, str]:
    return report.tables(root, gather(Store(root).all()).committed())


def test_the_committed_tables_say_what_the_records_say() -> None:
    """Every device has its page, its sheet and its line in the index."""
    store = Store(RESULTS)
    wanted = report.tables(RESULTS, gather(store.all()).committed())
    devices = {path.parent.name for path in wanted} - {RESULTS.name}

    assert store.problems == []
    assert report.stale_texts(wanted) == []
    assert devices == {folder.name for folder in RESULTS.iterdir() if folder.is_dir()}
    assert all(f"[{slug}]({slug}/TABLES.md)" in wanted[RESULTS / "README.md"] for slug in devices)


def test_an_edited_record_makes_its_devices_tables_stale(tmp_path: Path) -> None:
    """One perplexity changed by hand shows in all three files; a fact that no table has, in the index."""
    device = next(folder for folder in RESULTS.iterdir() if folder.is_dir())
    shutil.copytree(device / "quality", tmp_path / device.name / "quality")
    for path, text in _wanted(tmp_path).items():
        path.write_text(text)
    record = next(path for path in tmp_path.rglob("perplexity-*/r0.json"))
    whole = record.read_text()

    def stale(text: str) -> set[str]:
        record.write_text(text)
        return {path.name for path in report.stale_texts(_wanted(tmp_path))}

    assert stale(whole) == set()
    assert stale(whole.replace('"perplexity": ', '"perplexity": 9')) == {"README.md", "TABLES.md", "tables.csv"}
    looked_at = tmp_path / device.name / "demo" / "r0.json"
    looked_at.parent.mkdir()
    looked_at.write_text(whole.replace('"suite": "quality"', '"suite": "demo"'))
    assert stale(whole) == set()
    assert stale(whole.replace('"load_s": ', '"load_s": 9')) == {"README.md"}


def test_a_demo_run_beside_them_changes_no_figure_of_committed_suites(tmp_path: Path) -> None:
    """Its scores are of the same artifacts: the page puts them beside loads that have none, a figure does not."""
    device = next(folder for folder in RESULTS.iterdir() if folder.is_dir())
    for kind, suite in (("artifacts", "reference"), ("serving", "reference"), ("quality", "demo")):
        shutil.copytree(device / "reference" / kind, tmp_path / device.name / suite / kind)
    for record in (tmp_path / device.name / "demo").rglob("r*.json"):
        record.write_text(record.read_text().replace('"suite": "reference"', '"suite": "demo"'))
    store = Store(tmp_path)
    records = gather(store.all())
    beside = report.figures(records.committed(), store)
    shutil.rmtree(tmp_path / device.name / "demo")
    store = Store(tmp_path)

    assert any(point.quality for point in chart_data.build(records) if point.suite == "reference")
    assert list(beside) == list(report.figures(gather(store.all()).committed(), store))


def test_the_sheet_is_one_table() -> None:
    """A head, and as many cells in each line; no figure of one suite stands under another's name."""
    wanted = _wanted(RESULTS)
    for path, text in wanted.items():
        if path.name == "tables.csv":
            head, *lines = csv.reader(io.StringIO(text))
            assert {len(line) for line in lines} == {len(head)}
            assert len({line[1] for line in lines}) > 5
            assert "not run yet" not in text
