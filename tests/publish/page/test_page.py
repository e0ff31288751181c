"""The page of the committed records, in a browser: what a person clicks, presses, searches and reads."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from bench.contract.record import Result
from bench.publish.figures import chart_data, distributions
from bench.publish.page import page as page_file
from bench.publish.records import gather
from bench.store import Store
from tests.publish.tables.test_parts import RECORDS as OF_PARTS
from tests.publish.tables.test_sensitivity import RECORDS as OF_LAYERS

from .conftest import Opened, Scheme

pytestmark = pytest.mark.slow  # a browser of its own

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="module")
def records() -> list[Result]:
    return list(Store(RESULTS).all())


@pytest.fixture(scope="module")
def file(records: list[Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `bench report` writes it."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write(path, records, Store(RESULTS))
    return path


def write(path: Path, results: list[Result], store: Store) -> bool:
    records = gather(results)
    points, latencies = chart_data.build(records), distributions.build(results, store)
    return page_file.write(path, *page_file.content(records, points, latencies, store), page_file.vega())


def written(path: Path, results: list[Result]) -> Path:
    """The page of these records alone."""
    store = Store(path.parent / "results")
    for result in results:
        store.put(result)
    write(path, list(store.all()), store)
    return path


def drawn(page: Page) -> int:
    """How often the charts were drawn, all of them."""
    return int(page.evaluate("document.body.dataset.drawn ?? 0"))


def choose(page: Page, name: str, value: str) -> None:
    """As a person does; returns when all is drawn again."""
    before = drawn(page)
    page.select_option(f'select[name="{name}"]', value)
    page.wait_for_selector(f'body[data-drawn="{before + 1}"]')


def names(page: Page, table: str = "quality") -> list[str]:
    return page.locator(f"#t-{table} .open").all_inner_texts()


def points(page: Page) -> list[Mapping[str, Any]]:
    """What the chart of quality has: each point's recipe, place on the screen and so on."""
    rows: list[Mapping[str, Any]] = page.evaluate(
        """[...document.querySelectorAll("#c-pareto svg .mark-symbol path")]
        .filter((p) => p.__data__?.datum?.tip && p.__data__.cursor).map((p) => {
          const box = p.getBoundingClientRect(), { recipe, engine, x, y } = p.__data__.datum;
          return { recipe, engine, x, y, left: box.x + box.width / 2, top: box.y + box.height / 2 }; })"""
    )
    return rows


def test_the_first_view_is_of_the_largest_real_model(file: Path, records: list[Result], opened: Opened) -> None:
    """Before anything is chosen: not of the model with most recipes, nor of dummy weights."""
    sizes = {
        r.cell.model.label: r.artifact.audit.parameters for r in records if r.artifact and not r.cell.model.is_dummy
    }
    with opened(file, model="") as page:
        assert page.locator('select[name="model"]').input_value() == max(sizes, key=lambda name: sizes[name])
        assert "baseline" in names(page)


def test_filters_change_the_chart_and_the_tables(file: Path, opened: Opened) -> None:
    """A suite, an engine and an axis each leave their own points and lines, and the address keeps them."""
    with opened(file) as page:
        choose(page, "suite", "reference")
        assert len(names(page)) == 17
        assert {p["recipe"] for p in points(page)} == {*names(page)}
        choose(page, "engine", "llamacpp")
        assert all("gguf" in name for name in names(page))
        assert {p["engine"] for p in points(page)} == {"llamacpp"}
        by_speed = {p["recipe"]: p["x"] for p in points(page)}
        choose(page, "x", "bits_per_weight")
        by_bits = {p["recipe"]: p["x"] for p in points(page)}
        assert by_speed["gguf-q2_k"] > 100
        assert by_bits["gguf-q2_k"] < 4
        assert re.search(r"#.*suite=reference.*engine=llamacpp.*x=bits_per_weight", page.url)
        address = page.url[page.url.index("#") :]
        before = names(page)
    with opened(file, at=address) as page:
        assert names(page) == before
        assert page.input_value('select[name="x"]') == "bits_per_weight"
        page.click('button[type="reset"]')
        assert page.input_value('select[name="engine"]') == "all"


def test_a_column_sorts_by_click_and_by_keyboard(file: Path, opened: Opened) -> None:
    """The head's button sorts by the figure, not by its text; pressed again the other way."""
    with opened(file, at="#suite=reference&load=offline-b1-p128-n64") as page:
        head = page.locator('#t-speed th[data-column="output_tok_per_s"]')
        cell = f"#t-speed tbody td:nth-child({head.evaluate('(th) => th.cellIndex') + 1})"

        def figures() -> list[float]:
            return [float(text.split(" (")[0]) for text in page.locator(cell).all_inner_texts()]

        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert figures() == sorted(figures(), reverse=True)
        assert len(figures()) == 17
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert figures() == sorted(figures())
        assert "speed-sort=output_tok_per_s" in page.url


def test_search_leaves_lines_that_have_every_word(file: Path, opened: Opened) -> None:
    """Words are found in names, in marks and in reasons; none that matches says so."""
    with opened(file, at="#suite=techniques") as page:
        page.fill('input[name="q"]', "cuda unsupported")
        page.wait_for_selector("#t-quality :text-matches('^1.1 of 1$')")
        assert names(page) == ["gptq-w4g128-autogptq"]
        assert "auto-gptq needs CUDA" in page.locator("#t-quality .void").inner_text()
        page.fill('input[name="q"]', "no such thing")
        page.wait_for_selector("#t-quality :text('nothing matches')")


def test_a_point_opens_its_records_and_escape_returns(file: Path, opened: Opened) -> None:
    """The dialog names the point's recipe, shows its metrics and its file; the point's speed is in it."""
    with opened(file, at="#suite=reference&load=offline-b1-p128-n64&x=output_tok_per_s") as page:
        page.locator("#c-pareto").scroll_into_view_if_needed()
        point = next(p for p in points(page) if p["recipe"] == "gptq-w4g128")
        page.mouse.click(point["left"], point["top"])
        page.wait_for_selector("dialog[open]")
        assert page.inner_text("#d-title") == "gptq-w4g128 on hf, offline-b1-p128-n64 (reference)"
        text = page.inner_text("#d-body")
        path = re.search(r"\S+/reference/serving/demo/gptq-w4g128/hf/offline-b1-p128-n64/r0\.json", text)
        assert path is not None
        assert (RESULTS / path[0]).is_file()
        speed = re.search(r"output_tok_per_s\)\s+([\d,.]+) tok/s", text)
        assert speed is not None
        assert float(speed[1].replace(",", "")) == pytest.approx(point["x"], rel=0.5)
        for part in ("What really ran (receipts)", "read from its files (audit)", "Environment", "Hardware"):
            assert part in text
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert page.evaluate("document.activeElement.id") == "c-pareto"


def test_every_line_opens_with_the_keyboard(file: Path, opened: Opened) -> None:
    """Enter on a name opens the dialog; another record is picked there; focus comes back to the name."""
    with opened(file, at="#suite=serving&load=closed-c4-p128-n64") as page:
        name = page.locator("#t-speed .open").first
        name.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        rounds = page.locator("#d-pick option").all_inner_texts()
        assert rounds[:3] == [f"closed-c4-p128-n64, round {k}" for k in range(3)]
        page.select_option("#d-pick select", index=2)
        page.wait_for_selector("#d-body :text('r2.json')")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.className") == "open"


def test_the_frontier_is_the_one_that_python_draws(file: Path, opened: Opened) -> None:
    """The page's rule and bench.measure.frontier keep the same points, ties and all."""
    from bench.measure.frontier import frontier

    some = [(1.0, 5.0), (2.0, 5.0), (2.0, 5.0), (3.0, 1.0), (0.5, 9.0), (4.0, 1.0), (2.5, 4.0), (1.0, 9.0)]
    with opened(file) as page:
        for more in ((True, False), (True, True), (False, False), (False, True)):
            coordinates = [{"x": x, "y": y} for x, y in some]
            indexes = page.evaluate("([points, x, y]) => frontier(points, x, y)", [coordinates, *more])
            assert sorted(indexes) == sorted(frontier(some, more))


def test_the_frontier_and_the_baseline_are_labelled(file: Path, opened: Opened) -> None:
    """Of seventeen points these alone, by names that cover neither each other nor a point."""
    with opened(file, at="#suite=reference&load=offline-b1-p128-n64&x=bits_per_weight") as page:
        labels = page.locator("#c-pareto svg .mark-text.role-mark text")
        boxes = {label.inner_html(): label.bounding_box() for label in labels.all() if label.inner_html()}
        assert {"baseline", "gguf-f16", "gguf-q8_0", "gguf-q3_k_m"} <= set(boxes)
        assert not {"nf4", "gguf-q4_0", "gguf-q2_k"} & set(boxes)
        rectangles = [(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]) for b in boxes.values() if b]
        assert not any(
            a[0] < b[2] and b[0] < a[2] and a[1] + 2 < b[3] and b[1] + 2 < a[3]
            for a, b in itertools.combinations(rectangles, 2)
        )
        assert not any(a[0] < p["left"] < a[2] and a[1] < p["top"] < a[3] for a in rectangles for p in points(page))


def test_latency_and_load_are_drawn_where_there_are_any(file: Path, opened: Opened) -> None:
    """Two distributions and three curves of four choices, with the suite's limits; none of offline suites."""
    with opened(file, at="#suite=serving") as page:
        assert page.locator("#c-spread svg").count() == 2
        assert page.locator("#c-load svg").count() == 3
        assert page.locator("#s-load .key li").count() == 4
        assert page.locator("#c-load :text('SLO 250 ms')").count() == 1
        choose(page, "suite", "quality")
        assert page.locator("#s-load").is_hidden()
        assert page.locator("#s-spread").is_hidden()
        choose(page, "model", "smollm2-135m (dummy weights)")
        assert "dummy weights" in page.inner_text("#n-pareto")


def test_what_each_layer_costs_is_a_heat_map(file: Path, opened: Opened, tmp_path: Path) -> None:
    """A field for each layer, which opens the records; none of suites that did not measure it."""
    with opened(written(tmp_path / "report.html", OF_LAYERS)) as page:
        assert page.locator("#c-heat svg").count() == 1
        fields = page.locator("#c-heat svg .mark-rect.role-mark path")
        assert fields.count() == 5
        assert page.locator("#t-parts tbody tr").count() == 3
        fields.first.click()
        page.wait_for_selector("dialog[open]")
        assert "sensitivity-stdlib-hf-256-512t" in page.inner_text("#d-body")
    with opened(file, at="#suite=quality") as page:
        assert page.locator("#s-heat").is_hidden()


def test_quality_by_part_is_drawn_and_listed_where_there_is_any(file: Path, opened: Opened, tmp_path: Path) -> None:
    """A chart of a curve and one of its change, a table of these and of the matrices; none of other suites."""
    with opened(written(tmp_path / "report.html", OF_PARTS)) as page:
        assert page.locator("#c-position svg").count() == 2
        assert page.locator("#s-position .key li").count() == 2
        assert page.locator("#t-parts tbody tr").count() == 3 + 8 + 2
        assert page.locator("#t-parts td", has_text="pairs-512-2048: exact match % ↑, length 2048").count() == 2
        page.locator("#t-parts .open").first.click()
        page.wait_for_selector("dialog[open]")
        assert "perplexity-stdlib-hf-512" in page.inner_text("#d-body")
    with opened(file, at="#suite=quality") as page:
        assert page.locator("#s-position").is_hidden()
        assert page.locator("#s-parts").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_and_can_be_looked_at(file: Path, opened: Opened, tmp_path: Path, width: int, scheme: Scheme) -> None:
    """Nothing is wider than the window; LLM_BENCH_SHOTS names a folder that keeps the pictures."""
    folder = Path(os.environ.get("LLM_BENCH_SHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(file, width, scheme, "#suite=serving") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = folder / f"{width}-{scheme}.png"
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 50_000
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        page.locator("#t-speed .open").first.click()
        page.wait_for_selector("dialog[open]")
        page.screenshot(path=folder / f"{width}-{scheme}-record.png")


def test_records_that_would_be_markup_are_text(records: list[Result], opened: Opened, tmp_path: Path) -> None:
    """Names and reasons with tags, ends of scripts and templates are read, never run."""
    hostile = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "{{data}}<!--", "${1}`'\"&amp;")
    demo = [r for r in records if r.suite == "reference"]
    ok = next(r for r in demo if r.cell.workload is not None and r.status == "ok" and r.artifact)
    task = next(
        r for r in demo if r.cell.task is not None and "kl_mean" in r.metrics and r.cell.recipe == ok.cell.recipe
    )
    results = [
        replace(
            r,
            cell=replace(r.cell, recipe=replace(r.cell.recipe, name=name)),
            suite="s",
            reason=name,
            facts={**r.facts, name: name},
            receipts={name: name},
        )
        for name in hostile
        for r in (ok, task)
    ]
    failed = replace(
        results[0],
        cell=replace(results[0].cell, recipe=replace(ok.cell.recipe, name="bad")),
        status="failed",
        metrics={},
        reason=hostile[1],
    )
    with opened(written(tmp_path / "report.html", [*results, failed])) as page:
        assert {*names(page)} >= {*hostile}
        assert hostile[1] in page.inner_text("#t-speed .void")
        assert {p["recipe"] for p in points(page)} == {*hostile}
        page.locator("#t-quality .open").first.click()
        page.wait_for_selector("dialog[open]")
        assert names(page)[0] in page.inner_text("#d-title")
        assert page.locator("img").count() == 0


def test_one_record_is_a_page_and_none_says_what_to_run(records: list[Result], opened: Opened, tmp_path: Path) -> None:
    """A single load has its line and its record; without records the page names the command."""
    one = next(r for r in records if r.cell.workload is not None and r.status == "ok")
    with opened(written(tmp_path / "one" / "report.html", [one])) as page:
        assert names(page, "speed") == [one.cell.recipe.name]
        page.locator("#t-speed .open").click()
        page.wait_for_selector("dialog[open]")
        assert one.digest in page.inner_text("#d-body")
    with opened(written(tmp_path / "none" / "report.html", [])) as page:
        assert page.locator("main").is_hidden()
        assert "python -m bench run" in page.inner_text("#none")
