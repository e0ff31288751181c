"""What is generated from committed records: tables and a spreadsheet per device, and their index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import orjson

from bench.contract.record import Result
from bench.publish import machines
from bench.publish.document.records import Source
from bench.publish.tables import build, render

_MADE = "Written by `python -m bench report` from the records beside it; what is changed by hand is lost."
_LOOKED_AT = frozenset({"demo", "smoke"})  # suites to see something happen: .gitignore has their records


def gather(results: Iterable[Result]) -> Source:
    """All records, with the table of each device and suite, in their order."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.hardware.slug, result.suite), []).append(result)
    kept = {place: found[place] for place in sorted(found)}
    return Source({place: build.build(its) for place, its in kept.items()}, kept)


def committed(source: Source) -> Source:
    """What tables, figures and documents are made of: the suites whose records are committed."""
    kept = [place for place in source.records if place[1] not in _LOOKED_AT]
    return Source({p: source.tables[p] for p in kept}, {p: source.records[p] for p in kept})


def files(root: Path, source: Source) -> dict[Path, str]:
    """File -> text: README.md in the folder of results, TABLES.md and tables.csv in each device's."""
    found = {root / "README.md": _index(source)}
    for slug in source.devices:
        found[root / slug / "TABLES.md"] = _page(slug, source)
        found[root / slug / "tables.csv"] = render.csv_text(*source.tables_of(slug).values())
    return found


def stale(wanted: Mapping[Path, str]) -> list[Path]:
    """The files that are not there, or do not say what the records say."""
    return [path for path, text in wanted.items() if _read(path) != text]


def _page(slug: str, source: Source) -> str:
    parts = [f"# {slug}", _MADE, "\n".join(machines.lines(source.records_of(slug)))]
    for suite, table in source.tables_of(slug).items():
        parts += [f"## {suite}", build.render(table, "md").strip()]
    return "\n\n".join(parts) + "\n"


def _index(source: Source) -> str:
    heads = ("device", "suites", "records", "fingerprint of the records")
    lines = ["# Results", "", _MADE, "", f"| {' | '.join(heads)} |", "| --- | --- | ---: | --- |"]
    for slug in source.devices:
        suites = source.records_of(slug)
        every = [result for its in suites.values() for result in its]
        cells = (f"[{slug}]({slug}/TABLES.md)", ", ".join(suites), str(len(every)), _fingerprint(every))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fingerprint(records: Sequence[Result]) -> str:
    """Of all that the records hold; orjson reads dataclasses itself, in a tenth of wire.plain's time."""
    text = orjson.dumps(records, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
