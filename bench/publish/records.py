"""The records of a results folder by device and suite, each suite with its table: what every output is written from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.contract.record import Result
from bench.foreign import is_foreign
from bench.publish.prices import NO_PRICES, Prices
from bench.publish.tables import build, price
from bench.publish.tables.model import Row, Table

_UNCOMMITTED = frozenset({"demo", "smoke"})  # suites whose records .gitignore leaves out


@dataclass(frozen=True)
class Choice:
    """A recipe on an engine under a load (or a task), by the names that tables have for them."""

    device: str
    suite: str
    model: str
    recipe: str
    engine: str
    workload: str

    @property
    def choice(self) -> str:
        """What one would deploy."""
        return f"{self.recipe} on {self.engine}"


@dataclass(frozen=True)
class Records:
    """`tables` and `results` have the same keys: (device, suite)."""

    tables: Mapping[tuple[str, str], Table]
    results: Mapping[tuple[str, str], Sequence[Result]]

    @property
    def devices(self) -> list[str]:
        return list(dict.fromkeys(device for device, _ in self.results))

    def rows(self) -> Iterator[Row]:
        """Of all tables, in their order."""
        return (row for table in self.tables.values() for row in table.rows)

    def all_results(self) -> list[Result]:
        return [result for results in self.results.values() for result in results]

    def tables_of(self, device: str) -> dict[str, Table]:
        """By suite."""
        return {suite: table for (slug, suite), table in self.tables.items() if slug == device}

    def results_of(self, device: str) -> dict[str, Sequence[Result]]:
        """By suite."""
        return {suite: results for (slug, suite), results in self.results.items() if slug == device}

    def own(self) -> Records:
        """Those of this machine's own devices: none that were imported."""
        return self._of([key for key in self.results if not is_foreign(key[0])])

    def committed(self) -> Records:
        """Those of suites whose records are committed; tables, figures and documents show no others."""
        return self._of([key for key in self.results if key[1] not in _UNCOMMITTED])

    def _of(self, keys: Sequence[tuple[str, str]]) -> Records:
        if len(keys) == len(self.results):
            return self
        return Records({key: self.tables[key] for key in keys}, {key: self.results[key] for key in keys})


def gather(results: Iterable[Result], prices: Prices = NO_PRICES) -> Records:
    """Group results by device and suite, and build each suite's table, with what its `prices` make of it.

    By device, and of a device the suite with the largest model first: tests of a small one prove less. Dummy weights,
    which have no quality, come last; suites of one model are in alphabetical order.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.hardware.slug, result.suite), []).append(result)
    groups = {key: groups[key] for key in sorted(groups, key=lambda key: (key[0], *_rank(groups[key]), key[1]))}
    prices.require_one_machine(device for device, _ in groups)
    return Records({key: price.priced(build.build(group), prices) for key, group in groups.items()}, groups)


def _rank(results: Sequence[Result]) -> tuple[bool, int]:
    """Whether a suite's weights are dummies, and its model's parameters, negative."""
    is_dummy = all(result.cell.model.is_dummy for result in results)
    return is_dummy, -max((r.artifact.audit.parameters for r in results if r.artifact is not None), default=0)
