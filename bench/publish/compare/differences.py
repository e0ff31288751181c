"""What else two compared selections differ in: hardware, versions, options. A ratio means little without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from bench.contract import wire
from bench.contract.record import Result
from bench.publish.tables.columns import DASH

Pair = tuple[Sequence[Result], Sequence[Result]]
_RECEIPTS = ("compute_dtype", "threads", "attention", "kv_dtype")
_CLOCK, _CLOCK_TOLERANCE = "energy_sm_clock_mean_mhz", 0.01
_LONGEST = 60


def differences(pairs: Sequence[Pair], axes: Collection[str]) -> list[str]:
    """A sentence for each fact that is not the same in all pairs of cells, most cells first.

    `axes` are the fields that the two differ in by their nature ("recipe", "engine", "model"); what follows from
    them is left out.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for one, two in pairs:
        facts, others = dict(_facts(one[-1], axes)), dict(_facts(two[-1], axes))
        for name in dict.fromkeys((*facts, *others)):
            a, b = _shortened(facts.get(name, DASH), others.get(name, DASH))
            if a != b and not ("engine" in axes and DASH in (a, b)):
                counts[name, a, b] += 1
    counts.update(_clocks(pairs))
    return [f"{name}: {a} / {b} ({count} of {len(pairs)} cells)" for (name, a, b), count in counts.most_common()]


def _facts(result: Result, axes: Collection[str]) -> Iterator[tuple[str, str]]:
    """What should be the same on both sides, by name."""
    hardware, cell = result.hardware, result.cell
    yield "CPU", f"{hardware.cpu}, {hardware.physical_cores} cores"
    yield "instruction sets", " ".join(sorted(hardware.isa)) or DASH
    yield "system", hardware.system
    if hardware.gpus:
        yield "GPU", ", ".join(gpu.name for gpu in hardware.gpus)
        yield "driver", ", ".join(dict.fromkeys(gpu.driver for gpu in hardware.gpus))
    yield from result.environment.items()
    if "recipe" not in axes:
        yield from _options("recipe's steps", {str(i): asdict(s) for i, s in enumerate(cell.recipe.steps)})
    if "engine" not in axes:
        yield from _options("engine", cell.engine.options)
        yield from ((name, result.receipts[name]) for name in _RECEIPTS if name in result.receipts)
    if "model" not in axes and result.artifact is not None:
        yield "model", result.artifact.source
    if cell.workload is not None:
        yield from _options("load", asdict(cell.workload))
    if cell.task is not None:
        yield from _options("task", cell.task.options)


def _options(subject: str, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in options.items():
        yield f"{subject} {key}", value if isinstance(value, str) else wire.dumps(value)


def _shortened(a: str, b: str) -> tuple[str, str]:
    """Long ones without the words that both have, cut."""
    if a == b or max(len(a), len(b)) <= _LONGEST:
        return a, b
    words, others = a.split(), b.split()
    a, b = (" ".join(w for w in its if w not in rest) or DASH for its, rest in ((words, others), (others, words)))
    one, two = (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in (a, b))
    return one, two


def _clocks(pairs: Sequence[Pair]) -> dict[tuple[str, str, str], int]:
    """Mean clocks of the GPU that are more than 1 % apart: the lowest and highest of each selection."""
    clocks = [[[r.metrics[_CLOCK] for r in rounds if _CLOCK in r.metrics] for rounds in pair] for pair in pairs]
    unequal = [(a, b) for a, b in clocks if a and b and abs(fmean(b) / fmean(a) - 1) > _CLOCK_TOLERANCE]
    if not unequal:
        return {}
    a, b = (f"{min(map(min, its)):.0f} to {max(map(max, its)):.0f}" for its in zip(*unequal, strict=True))
    return {("mean SM clock, MHz", a, b): len(unequal)}
