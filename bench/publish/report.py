"""What is generated from committed records: tables and a spreadsheet per device, and their index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.contract import wire
from bench.contract.record import Hardware, Result
from bench.publish import render, tables
from bench.publish.rows import Table

_MADE = "Written by `python -m bench report` from the records beside it; what is changed by hand is lost."
_GIB = 2.0**30
_LOOKED_AT = frozenset({"demo", "smoke"})  # suites to see something happen: .gitignore has their records


def files(results: Iterable[Result]) -> dict[Path, str]:
    """Path below the folder of results -> text: `<device>/TABLES.md`, `<device>/tables.csv`, README.md.

    Without the suites whose records are not committed.
    """
    devices: dict[str, dict[str, list[Result]]] = {}
    for result in committed(results):
        devices.setdefault(result.hardware.slug, {}).setdefault(result.suite, []).append(result)
    found = {Path("README.md"): _index(devices)}
    for slug, suites in devices.items():
        built = {suite: tables.build(suites[suite]) for suite in sorted(suites)}
        found[Path(slug) / "TABLES.md"] = _page(slug, suites, built)
        found[Path(slug) / "tables.csv"] = render.csv_text(*built.values())
    return found


def committed(results: Iterable[Result]) -> list[Result]:
    """Those of the suites whose records are committed: what tables and figures are made of."""
    return [r for r in results if r.suite not in _LOOKED_AT]


def stale(root: Path, wanted: Mapping[Path, str]) -> list[Path]:
    """The files that are not there, or do not say what the records say."""
    return [path for path, text in wanted.items() if _read(root / path) != text]


def _page(slug: str, suites: Mapping[str, Sequence[Result]], built: Mapping[str, Table]) -> str:
    parts = [f"# {slug}", _MADE, _machines(suites)]
    for suite, table in built.items():
        parts += [f"## {suite}", tables.render(table, "md").strip()]
    return "\n\n".join(parts) + "\n"


def _index(devices: Mapping[str, Mapping[str, Sequence[Result]]]) -> str:
    heads = ("device", "suites", "records", "fingerprint of the records")
    lines = ["# Results", "", _MADE, "", f"| {' | '.join(heads)} |", "| --- | --- | ---: | --- |"]
    for slug in sorted(devices):
        suites = devices[slug]
        every = [result for suite in sorted(suites) for result in suites[suite]]
        cells = (
            f"[{slug}]({slug}/TABLES.md)",
            ", ".join(sorted(suites)),
            str(len(every)),
            wire.digest(every),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _machines(suites: Mapping[str, Sequence[Result]]) -> str:
    """A line for each machine of that name that the records come from, with the suites it ran."""
    seen: dict[str, dict[str, None]] = {}
    for suite in sorted(suites):
        for result in suites[suite]:
            seen.setdefault(_machine(result.hardware), {}).setdefault(suite)
    return "\n".join(f"- {words}: {', '.join(its)}" for words, its in seen.items())


def _machine(hardware: Hardware) -> str:
    gpus = "".join(f", {gpu.name}, driver {gpu.driver}" for gpu in hardware.gpus)
    return (
        f"{hardware.cpu}, {hardware.physical_cores} cores ({' '.join(hardware.isa)}), "
        f"{hardware.ram_bytes / _GIB:.0f} GiB, {hardware.system}{gpus}"
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
