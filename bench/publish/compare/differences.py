"""What else two compared sides differ in: hardware, versions, options. A ratio means little without it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict

from bench.contract import wire
from bench.contract.record import Result

Pair = tuple[Sequence[Result], Sequence[Result]]
_RECEIPTS = ("compute_dtype", "threads", "attention", "kv_dtype")
_CLOCK, _CLOCKS_APART = "energy_sm_clock_mean_mhz", 0.01
_NOT = "\N{EN DASH}"
_LONGEST = 60


def differences(pairs: Sequence[Pair], apart: Collection[str]) -> list[str]:
    """A sentence for each fact that is not the same in all pairs of cells, most cells first.

    `apart` are the fields that the sides differ in by their nature ("recipe", "engine", "model"); what
    follows from them is not told.
    """
    seen: dict[tuple[str, str, str], int] = {}
    for one, two in pairs:
        mine, theirs = (dict(_facts(side[-1], apart)) for side in (one, two))
        for name in dict.fromkeys((*mine, *theirs)):
            a, b = _told(mine.get(name, _NOT), theirs.get(name, _NOT))
            if a != b and not ("engine" in apart and _NOT in (a, b)):
                seen[name, a, b] = seen.get((name, a, b), 0) + 1
    seen |= _clocks(pairs)
    ordered = sorted(seen.items(), key=lambda item: -item[1])
    return [f"{name}: {a} / {b} ({count} of {len(pairs)} cells)" for (name, a, b), count in ordered]


def _facts(result: Result, apart: Collection[str]) -> Iterator[tuple[str, str]]:
    """What should be the same on both sides, by name."""
    hardware, cell = result.hardware, result.cell
    yield "CPU", f"{hardware.cpu}, {hardware.physical_cores} cores"
    yield "instruction sets", " ".join(sorted(hardware.isa)) or _NOT
    yield "system", hardware.system
    if hardware.gpus:
        yield "GPU", ", ".join(f"{gpu.name}" for gpu in hardware.gpus)
        yield "driver", ", ".join(dict.fromkeys(gpu.driver for gpu in hardware.gpus))
    yield from result.environment.items()
    if "recipe" not in apart:
        yield from _options("recipe's steps", {str(i): asdict(s) for i, s in enumerate(cell.recipe.steps)})
    if "engine" not in apart:
        yield from _options("engine", cell.engine.options)
        yield from ((name, result.receipts[name]) for name in _RECEIPTS if name in result.receipts)
    if "model" not in apart and result.artifact is not None:
        yield "model", result.artifact.source
    if cell.workload is not None:
        yield from _options("load", asdict(cell.workload))
    if cell.task is not None:
        yield from _options("task", cell.task.options)


def _options(word: str, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in options.items():
        yield f"{word} {key}", value if isinstance(value, str) else wire.dumps(value)


def _told(a: str, b: str) -> tuple[str, str]:
    """Long ones without the words that both have, cut."""
    if a == b or max(len(a), len(b)) <= _LONGEST:
        return a, b
    words = [text.split() for text in (a, b)]
    rest = [" ".join(w for w in mine if w not in theirs) or _NOT for mine, theirs in (words, reversed(words))]
    short = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in rest]
    return short[0], short[1]


def _clocks(pairs: Sequence[Pair]) -> dict[tuple[str, str, str], int]:
    """Mean clocks of the GPU that are more than 1 % apart: the lowest and highest of each side."""
    apart = []
    for pair in pairs:
        mine, theirs = ([r.metrics[_CLOCK] for r in side if _CLOCK in r.metrics] for side in pair)
        if mine and theirs and abs(sum(theirs) / len(theirs) * len(mine) / sum(mine) - 1) > _CLOCKS_APART:
            apart.append((mine, theirs))
    if not apart:
        return {}
    sides = [[clock for both in apart for clock in both[i]] for i in (0, 1)]
    texts = [f"{min(side):.0f} to {max(side):.0f}" for side in sides]
    return {("mean SM clock, MHz", texts[0], texts[1]): len(apart)}
