"""How often gates err on rounds with the noise of committed records: on two runs of one thing, and on slower ones."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from bench.contract.record import Result
from bench.publish.compare import gates
from bench.publish.compare.compare import compare
from bench.store import Store
from tests.conftest import ROOT
from tests.publish.compare.test_compare import selection

pytestmark = pytest.mark.records

_GATE = gates.parse("tpot_s > 1.05")
_TIMES = 100


@dataclass(frozen=True)
class Noise:
    """Of one suite: a record and the mean log TPOT of each cell, and what rounds differ from their cell's mean by."""

    cells: Mapping[tuple[str, ...], tuple[Result, float]]
    residuals: Sequence[float]

    def run(self, randomness: random.Random, factor: float = 1.0, rounds: int = 3) -> list[Result]:
        """All cells anew: each round its cell's mean, `factor` times as slow, with the noise of a committed round."""
        tpots = [
            (record, i, math.exp(mean + randomness.choice(self.residuals)) * factor)
            for record, mean in self.cells.values()
            for i in range(rounds)
        ]
        return [
            replace(r, artifact=None, facts={}, round=i, metrics={"tpot_s": tpot, "output_tok_per_s": 1 / tpot})
            for r, i, tpot in tpots
        ]


def noise_of(suite: str) -> Noise:
    """Residuals of n rounds are scaled by sqrt(n / (n - 1)), as they are about their own mean."""
    logs: dict[tuple[str, ...], list[float]] = {}
    records: dict[tuple[str, ...], Result] = {}
    for result in Store(ROOT / "results").all(f"*/{suite}/serving/*"):
        if result.status == "ok" and "tpot_s" in result.metrics:
            key = (result.cell.recipe.name, result.cell.engine.title, result.cell.measurement)
            logs.setdefault(key, []).append(math.log(result.metrics["tpot_s"]))
            records[key] = result
    logs = {key: values for key, values in logs.items() if len(values) > 1}
    means = {key: statistics.fmean(values) for key, values in logs.items()}
    residuals = [
        (value - means[key]) * math.sqrt(len(values) / (len(values) - 1))
        for key, values in logs.items()
        for value in values
    ]
    return Noise({key: (records[key], means[key]) for key in logs}, residuals)


@pytest.fixture(scope="module", params=["reference", "serving", "smollm2"])
def noise(request: pytest.FixtureRequest) -> Noise:
    return noise_of(request.param)


def _broken(a: Sequence[Result], b: Sequence[Result]) -> bool:
    compared = compare(selection("folder", "a", a), selection("folder", "b", b))
    return gates.is_broken(gates.judge([_GATE], compared))


@pytest.mark.parametrize("rounds", [3, 5])
def test_two_runs_of_one_thing_pass_in_95_of_100(noise: Noise, rounds: int) -> None:
    """A whole suite's loads at a time: none of its cells and not their mean, at a limit that noise passes often."""
    randomness = random.Random(11)  # noqa: S311  (reproducible, not secret)
    broken = sum(
        _broken(noise.run(randomness, rounds=rounds), noise.run(randomness, rounds=rounds)) for _ in range(_TIMES)
    )

    assert broken <= 5


def test_a_true_slowdown_of_a_tenth_is_caught(noise: Noise) -> None:
    """In three rounds of loads that differ by more than a tenth from round to round: by their mean, in 95 of 100."""
    randomness = random.Random(12)  # noqa: S311  (reproducible, not secret)
    caught = sum(_broken(noise.run(randomness), noise.run(randomness, 1.1)) for _ in range(_TIMES))

    assert statistics.pstdev(noise.residuals) > 0.1
    assert caught >= 95
