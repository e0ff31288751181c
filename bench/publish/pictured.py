"""What figures and page are drawn of, worked out once from the records for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contract.record import Result
from bench.publish import report
from bench.publish.document.records import Source
from bench.publish.figures import chart_data as points
from bench.publish.figures import distributions
from bench.publish.figures import draw as figures
from bench.publish.figures.chart_data import Point
from bench.publish.figures.distributions import Distribution
from bench.publish.figures.specs import Spec
from bench.publish.page import page as webpage
from bench.store import Store


@dataclass(frozen=True)
class Pictured:
    """Records with their tables, and what charts show of them."""

    source: Source
    store: Store
    points: Sequence[Point]
    spread: Sequence[Distribution]

    def figures(self) -> dict[Path, Spec]:
        """Of the suites whose records are committed."""
        kept = {suite for _, suite in report.committed(self.source).records}
        return figures.specs([p for p in self.points if p.suite in kept], [d for d in self.spread if d.suite in kept])

    def page(self, path: Path, library: str) -> bool:
        """Write report.html, of all records, with `webpage.vega`; whether it was not there as it is now."""
        tables = list(self.source.tables.values())
        records = [result for its in self.source.records.values() for result in its]
        data, chunks = webpage.content(records, tables, self.points, self.spread, self._where)
        return webpage.write(path, data, chunks, library)

    def _where(self, result: Result) -> str:
        return self.store.path(result).relative_to(self.store.root).as_posix()


def gather(source: Source, store: Store) -> Pictured:
    """The points and distributions of records that lie in `store`."""
    records = [result for its in source.records.values() for result in its]
    return Pictured(source, store, points.build(records, source.tables), distributions.build(records, store))
