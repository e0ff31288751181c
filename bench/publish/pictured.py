"""What figures and page are drawn of, worked out once from the records for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contract.record import Result
from bench.publish import distributions, figures, points, report, tables, webpage
from bench.publish.charts import Spec
from bench.publish.distributions import Distribution
from bench.publish.points import Point
from bench.publish.rows import Table
from bench.store import Store


@dataclass(frozen=True)
class Pictured:
    """Records with the tables of each device and suite, and what charts show of them."""

    records: Sequence[Result]
    store: Store
    tables: Mapping[tuple[str, str], Table]
    points: Sequence[Point]
    spread: Sequence[Distribution]

    def figures(self) -> dict[Path, Spec]:
        """Of the suites whose records are committed."""
        kept = {r.suite for r in report.committed(self.records)}
        return figures.specs(
            [p for p in self.points if p.suite in kept], [d for d in self.spread if d.suite in kept]
        )

    def page(self, path: Path) -> bool:
        """Write report.html, of all records; whether it was not there as it is now."""
        ordered = [self.tables[place] for place in sorted(self.tables)]
        data, chunks = webpage.content(self.records, ordered, self.points, self.spread, self._where)
        return webpage.write(path, data, chunks)

    def _where(self, result: Result) -> str:
        return self.store.path(result).relative_to(self.store.root).as_posix()


def gather(records: Sequence[Result], store: Store) -> Pictured:
    """The tables, points and distributions of records that lie in `store`."""
    places: dict[tuple[str, str], list[Result]] = {}
    for result in records:
        places.setdefault((result.hardware.slug, result.suite), []).append(result)
    made = {place: tables.build(found) for place, found in places.items()}
    return Pictured(records, store, made, points.build(records, made), distributions.build(records, store))
