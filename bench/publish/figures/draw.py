"""Figures as SVG files: drawn where missing or outdated, deleted where no chart has them any more.

The bytes of an SVG depend on the fonts of the machine that drew it, so each carries the digest of its
specification, and is stale when that is another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.contract import wire
from bench.publish.figures.specs import Spec

_STAMP = re.compile(rb"<!-- spec ([0-9a-f]{16}) -->\n?\Z")


def stale(root: Path, charts: Mapping[Path, Spec]) -> list[Path]:
    """Figures below `root` that are missing, outdated, or of no chart; but no pictures that `write` did not draw."""
    outdated = [path for path, spec in charts.items() if _stamp(root / path) != wire.digest(spec)]
    present = (path.relative_to(root) for path in sorted(root.glob("*/figures/*.svg")))
    return [*outdated, *(path for path in present if path not in charts and _stamp(root / path))]


def write(root: Path, charts: Mapping[Path, Spec]) -> list[Path]:
    """Draw and delete what is stale; the paths that changed."""
    changed = stale(root, charts)
    outdated = [path for path in changed if path in charts]
    for path in changed[len(outdated) :]:
        (root / path).unlink()
    with ThreadPoolExecutor() as pool:  # drawing releases the GIL
        for path, text in zip(outdated, pool.map(svg, (charts[path] for path in outdated)), strict=True):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            wire.write(root / path, text)
    return changed


def svg(spec: Spec) -> str:
    """The chart as SVG with its specification's digest; clip paths from 0, as vl-convert numbers them on and on."""
    import vl_convert

    ids: dict[str, str] = {}
    text = vl_convert.vegalite_to_svg(spec).rstrip()
    text = re.sub(r"(?<=[\"#])clip\d+(?=[\")])", lambda m: ids.setdefault(m[0], f"clip{len(ids)}"), text)
    return f"{text}\n<!-- spec {wire.digest(spec)} -->\n"


def _stamp(path: Path) -> str:
    """The digest in a figure; "" where there is none."""
    match = _STAMP.search(path.read_bytes()[-64:]) if path.is_file() else None
    return match[1].decode() if match else ""
