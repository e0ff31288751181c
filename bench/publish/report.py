"""What `bench report` writes of a results folder: tables and CSV per device, figures, report.html, documents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from bench.contract import outside, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import Cell, Recipe, Step
from bench.contract.workload import flat
from bench.publish import machines
from bench.publish.document import document
from bench.publish.figures import chart_data, charts, distributions, draw
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.figures.specs import Spec
from bench.publish.page import page
from bench.publish.prices import NO_PRICES, Prices
from bench.publish.records import Records, gather
from bench.publish.tables import render
from bench.store import Store, safe_name

_NOTICE = "Written by `python -m bench report` from the records beside it; what is changed by hand is lost."
_DOCUMENTS = ("REPORT.md", "README.md", "docs/*.md")  # beside the folder of results


def write(root: Path, documents: Sequence[Path] = (), prices: Prices = NO_PRICES) -> list[Path]:
    """Write what is stale of the folder `root` and fill the `documents`; the paths that changed.

    Without `documents`, those beside the folder. UserError for a damaged record.
    """
    with ThreadPoolExecutor() as pool:  # drawing and bundling release the GIL
        library = pool.submit(page.vega)
        store = Store(root)
        records = _read(store, prices)
        committed = records.committed()
        points, latencies = _chart_data(records, store)
        data = (points, latencies) if committed is records else _chart_data(committed, store)
        drawn = pool.submit(draw.write, root, charts.build(*data))
        texts = _texts(root, committed, documents)
        changed = stale_texts(texts)
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)  # records may lie in a folder of another name
            wire.write(path, texts[path])
        if page.write(root / page.NAME, *page.content(records, points, latencies, store), library.result()):
            changed.append(root / page.NAME)
        return [*changed, *(root / path for path in drawn.result())]


def stale(root: Path, documents: Sequence[Path] = (), prices: Prices = NO_PRICES) -> list[Path]:
    """What `write` would change, the page aside: it is not committed."""
    store = Store(root)
    committed = _read(store, prices).committed()
    charts_by_path = figures(committed, store)
    texts = _texts(root, committed, documents)
    return [*stale_texts(texts), *(root / path for path in draw.stale(root, charts_by_path))]


def figures(committed: Records, store: Store) -> dict[Path, Spec]:
    """The charts of suites whose records are committed, by the path of their figure below the results."""
    return charts.build(*_chart_data(committed, store))


def _chart_data(records: Records, store: Store) -> tuple[list[Point], list[Distribution]]:
    return chart_data.build(records), distributions.build(records.all_results(), store)


def tables(root: Path, committed: Records) -> dict[Path, str]:
    """File -> text: README.md in the folder of results, TABLES.md and tables.csv in each device's."""
    texts = {root / "README.md": _index(committed)}
    for device in committed.devices:
        folder = root / safe_name(device)
        texts[folder / "TABLES.md"] = _device_page(device, committed)
        texts[folder / "tables.csv"] = render.csv_text(*committed.tables_of(device).values())
    return texts


def stale_texts(texts: Mapping[Path, str]) -> list[Path]:
    """The files that are missing or have another text."""
    return [path for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()]


def _read(store: Store, prices: Prices) -> Records:
    records = gather(store.all(), prices)
    if store.problems:
        raise UserError(store.problems[0])
    return records


def _texts(root: Path, committed: Records, documents: Sequence[Path]) -> dict[Path, str]:
    paths = documents or sorted(path for pattern in _DOCUMENTS for path in root.parent.glob(pattern))
    return tables(root, committed) | {path: document.filled(path, committed) for path in paths}


def _device_page(device: str, committed: Records) -> str:
    parts = [f"# {outside.markdown_prose(device)}", _NOTICE, "\n".join(machines.lines(committed.results_of(device)))]
    for suite, table in committed.tables_of(device).items():
        parts += [f"## {outside.markdown_prose(suite)}", render.render(table, "md").strip()]
    return "\n\n".join(parts) + "\n"


def _index(committed: Records) -> str:
    heads = ("device", "suites", "records", "fingerprint of the records")
    lines = ["# Results", "", _NOTICE, "", f"| {' | '.join(heads)} |", "| --- | --- | ---: | --- |"]
    for device in committed.devices:
        suites = committed.results_of(device)
        results = [result for group in suites.values() for result in group]
        link = f"[{outside.markdown_prose(device)}]({safe_name(device)}/TABLES.md)"
        cells = (link, outside.markdown_prose(", ".join(suites)), str(len(results)), _fingerprint(results))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fingerprint(results: Sequence[Result]) -> str:
    """Of all that the records hold; orjson reads dataclasses itself, in a tenth of wire.plain's time."""
    cells: dict[int, Cell] = {}  # the rounds of one may share it
    flattened = [replace(result, cell=_flat(result.cell, cells)) for result in results]
    text = orjson.dumps(flattened, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


@dataclass(frozen=True)
class _Steps:
    """A recipe of steps with the fields that fingerprints of records depend on."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class _Checkpoint(_Steps):
    checkpoint: str
    revision: str | None


@dataclass(frozen=True)
class _Replicate(_Steps):
    replicate_of: str


def _flat(cell: Cell, cells: dict[int, Cell]) -> Cell:
    if id(cell) not in cells:
        recipe = _fingerprinted(cell.recipe)
        cells[id(cell)] = replace(cell, recipe=recipe, workload=cell.workload and flat(cell.workload))
    return cells[id(cell)]


def _fingerprinted(recipe: Recipe) -> Any:
    if recipe.checkpoint:
        return _Checkpoint(recipe.name, recipe.steps, recipe.checkpoint, recipe.revision)
    if recipe.replicate_of:
        return _Replicate(recipe.name, recipe.steps, recipe.replicate_of)
    return _Steps(recipe.name, recipe.steps)
