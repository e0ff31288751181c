"""What `bench report` writes of a results folder: tables and CSV per device, figures, report.html, documents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.workload import flat
from bench.publish import machines, records
from bench.publish.document import document
from bench.publish.figures import chart_data, charts, distributions, draw
from bench.publish.figures.specs import Spec
from bench.publish.page import page
from bench.publish.records import Records
from bench.publish.tables import build, render
from bench.store import Store

_NOTICE = "Written by `python -m bench report` from the records beside it; what is changed by hand is lost."
_DOCUMENTS = ("REPORT.md", "README.md")


@dataclass(frozen=True)
class ChartData:
    """What figures and page draw of records."""

    points: Sequence[chart_data.Point]
    distributions: Sequence[distributions.Distribution]

    def figures(self, shown: Records) -> dict[Path, Spec]:
        """The charts of the suites among `shown`, by the path of their figure."""
        suites = {suite for _, suite in shown.results}
        return charts.build(
            [p for p in self.points if p.suite in suites], [d for d in self.distributions if d.suite in suites]
        )


def write(root: Path, documents: Sequence[Path] = ()) -> list[Path]:
    """Write what is stale of the folder `root` and fill the `documents`; the paths that changed.

    Without `documents`, those beside the folder. UserError for a damaged record.
    """
    with ThreadPoolExecutor() as pool:  # drawing and bundling release the GIL
        library = pool.submit(page.vega)
        store, every = _read(root)
        data, committed = draw_data(every, store), every.committed()
        drawn = pool.submit(draw.write, root, data.figures(committed))
        texts = {**tables(root, committed), **_filled(root, documents, committed)}
        root.mkdir(parents=True, exist_ok=True)
        changed = stale_texts(texts)
        for path in changed:
            wire.write(path, texts[path])
        changed += [root / page.NAME] if write_page(root / page.NAME, every, data, store, library.result()) else []
        return [*changed, *(root / path for path in drawn.result())]


def stale(root: Path, documents: Sequence[Path] = ()) -> list[Path]:
    """What `write` would change, the page aside: it is not committed."""
    store, every = _read(root)
    committed = every.committed()
    texts = {**tables(root, committed), **_filled(root, documents, committed)}
    figures = draw.stale(root, draw_data(every, store).figures(committed))
    return [*stale_texts(texts), *(root / path for path in figures)]


def draw_data(every: Records, store: Store) -> ChartData:
    """The points and latency distributions of records that lie in `store`."""
    return ChartData(chart_data.build(every), distributions.build(every.all_results(), store))


def write_page(path: Path, every: Records, data: ChartData, store: Store, library: str) -> bool:
    """Write the page of all records, with `page.vega` as its library; whether it changed."""

    def where(result: Result) -> str:
        return store.path(result).relative_to(store.root).as_posix()

    content = page.content(every, data.points, data.distributions, where)
    return page.write(path, *content, library)


def tables(root: Path, committed: Records) -> dict[Path, str]:
    """File -> text: README.md in the folder of results, TABLES.md and tables.csv in each device's."""
    texts = {root / "README.md": _index(committed)}
    for device in committed.devices:
        texts[root / device / "TABLES.md"] = _device_page(device, committed)
        texts[root / device / "tables.csv"] = render.csv_text(*committed.tables_of(device).values())
    return texts


def stale_texts(texts: Mapping[Path, str]) -> list[Path]:
    """The files that are missing or have another text."""
    return [path for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()]


def _read(root: Path) -> tuple[Store, Records]:
    store = Store(root)
    every = records.gather(store.all())
    if store.problems:
        raise UserError(store.problems[0])
    return store, every


def _filled(root: Path, documents: Sequence[Path], committed: Records) -> dict[Path, str]:
    paths = documents or [path for name in _DOCUMENTS if (path := root.parent / name).is_file()]
    return {path: document.filled(path, committed) for path in paths}


def _device_page(device: str, committed: Records) -> str:
    parts = [f"# {device}", _NOTICE, "\n".join(machines.lines(committed.results_of(device)))]
    for suite, table in committed.tables_of(device).items():
        parts += [f"## {suite}", build.render(table, "md").strip()]
    return "\n\n".join(parts) + "\n"


def _index(committed: Records) -> str:
    heads = ("device", "suites", "records", "fingerprint of the records")
    lines = ["# Results", "", _NOTICE, "", f"| {' | '.join(heads)} |", "| --- | --- | ---: | --- |"]
    for device in committed.devices:
        suites = committed.results_of(device)
        results = [result for group in suites.values() for result in group]
        cells = (f"[{device}]({device}/TABLES.md)", ", ".join(suites), str(len(results)), _fingerprint(results))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fingerprint(results: Sequence[Result]) -> str:
    """Of all that the records hold; orjson reads dataclasses itself, in a tenth of wire.plain's time."""
    text = orjson.dumps([_flat(result) for result in results], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def _flat(result: Result) -> Result:
    load = result.cell.workload
    return result if load is None else replace(result, cell=replace(result.cell, workload=flat(load)))
