"""Five thousand records: what `bench report` writes of them, and the page in a browser, stay quick."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.reports import app
from bench.contract import wire
from bench.contract.record import Result
from bench.contract.workload import Offline
from bench.store import Store

from .conftest import Opened

RESULTS = Path(__file__).resolve().parents[3] / "results"
REPORT_S, PAGE_BYTES, INTERACTIVE_S = 20.0, 15e6, 3.0
_WORKLOADS, _RECIPES, _ENGINES = 10, 31, 4


def many() -> Iterator[Result]:
    """Records of two devices, two suites, 31 recipes and four engines, with nine loads and a task."""
    shuffled = random.Random(0)  # noqa: S311  (figures to tell apart, no secret)
    records = list(Store(RESULTS).all("*/reference/*"))
    load = next(r for r in records if r.cell.workload is not None and r.cell.recipe.name == "gguf-q4_k_m")
    task = next(r for r in records if "kl_mean" in r.metrics and r.cell.recipe.name == "gguf-q4_k_m")
    cells = itertools.product(range(2), range(2), range(_RECIPES), range(_ENGINES), range(_WORKLOADS))
    for device, suite, recipe, engine, what in cells:
        like = load if what else task
        cell = like.cell
        kind = replace(cell.workload, prompt_tokens=100 + what) if isinstance(cell.workload, Offline) else None
        assert like.artifact is not None
        factor = 0.5 + shuffled.random() / 2  # of all figures: a share stays below one, a mean within its interval
        audit = replace(like.artifact.audit, bits_per_weight=2 + shuffled.random() * 30)
        yield replace(
            like,
            suite=f"suite{suite}",
            hardware=replace(like.hardware, slug=f"device{device}"),
            artifact=replace(like.artifact, digest=f"{suite}-{recipe}", audit=audit),
            cell=replace(
                cell,
                workload=kind,
                recipe=replace(cell.recipe, name=f"recipe{recipe}"),
                engine=replace(cell.engine, label=f"engine{engine}"),
            ),
            metrics={key: value * factor for key, value in like.metrics.items()},
        )


pytestmark = [pytest.mark.slow, pytest.mark.clock]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with 5,000 records, written without a sync for each."""
    folder = tmp_path_factory.mktemp("many") / "results"
    store = Store(folder)
    results = list(many())
    for k, result in enumerate([*results, *(replace(r, round=1) for r in results[: 5000 - len(results)])]):
        path = store.path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wire.dumps(wire.rounded(wire.plain(result))))
        assert k < 5000
    return folder


def test_all_that_report_writes_of_5000_records_is_there_in_time(root: Path) -> None:
    """Tables, figures and a page that can be mailed; a second time there is nothing to do."""
    started = time.perf_counter()
    report = CliRunner().invoke(app, ["report", "--results", str(root)])
    assert time.perf_counter() - started < REPORT_S
    assert report.exit_code == 0, report.output
    assert (root / "report.html").stat().st_size < PAGE_BYTES
    assert {path.name for path in (root / "device1").glob("*.*")} == {"TABLES.md", "tables.csv"}
    assert list((root / "device1" / "figures").glob("suite1-quality-output.*"))
    again = CliRunner().invoke(app, ["report", "--results", str(root)])
    assert again.output == ""


def test_the_page_of_5000_records_answers_at_once(root: Path, opened: Opened) -> None:
    """Tables and charts are drawn, and a filter has drawn them again, within three seconds each."""
    with opened(root / "report.html") as page:
        assert page.evaluate("performance.now()") < 1000 * INTERACTIVE_S
        before = page.inner_text("#t-speed .pager")
        started = time.perf_counter()
        page.select_option('select[name="suite"]', "all")
        page.wait_for_selector('body[data-drawn="2"]')
        assert time.perf_counter() - started < INTERACTIVE_S
        assert page.inner_text("#t-speed .pager") != before
        assert page.locator("#t-speed tbody tr").count() == 50
        page.locator("#t-speed .open").last.click()
        page.wait_for_selector("dialog[open]")
        assert "peak_memory_bytes" in page.inner_text("#d-body")
