"""What the records of a device come from: its machines, and the versions of the libraries that ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.contract.record import Hardware, Result

_GIB = 2.0**30


def lines(suites: Mapping[str, Sequence[Result]]) -> list[str]:
    """A line for each machine that the records come from, with the suites it ran."""
    seen: dict[str, dict[str, None]] = {}
    for suite in sorted(suites):
        for result in suites[suite]:
            seen.setdefault(_machine(result.hardware), {}).setdefault(suite)
    return [f"- {words}: {', '.join(its)}" for words, its in seen.items()]


def versions(results: Iterable[Result]) -> list[tuple[str, str]]:
    """For each engine the libraries that its finished rounds ran on; versions that changed side by side."""
    seen: dict[str, dict[str, dict[str, None]]] = {}
    for result in results:
        if result.status == "ok" and result.cell.engine.name:
            libraries = seen.setdefault(result.cell.engine.name, {})
            for name, version in result.environment.items():
                libraries.setdefault(name, {})[version] = None
    return [
        (engine, ", ".join(f"{name} {' / '.join(its)}" for name, its in sorted(libraries.items())))
        for engine, libraries in sorted(seen.items())
    ]


def named(hardware: Hardware) -> str:
    """In a few words."""
    gpus = "".join(f", {gpu.name}" for gpu in hardware.gpus)
    return f"{hardware.cpu}, {hardware.physical_cores} cores, {hardware.ram_bytes / _GIB:.0f} GiB{gpus}"


def _machine(hardware: Hardware) -> str:
    """With what else may make two of one name differ."""
    drivers = "".join(f", driver {gpu.driver}" for gpu in hardware.gpus)
    return f"{named(hardware)} ({' '.join(hardware.isa)}), {hardware.system}{drivers}"
