"""The machines and the library versions that records come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.contract import outside
from bench.contract.record import Hardware, Result

_GIB = 2.0**30


def lines(suites: Mapping[str, Sequence[Result]]) -> list[str]:
    """A line for each machine, with the suites that it ran."""
    machines: dict[str, dict[str, None]] = {}
    for suite, results in sorted(suites.items()):
        for result in results:
            machines.setdefault(_description(result.hardware), {}).setdefault(suite)
    texts = (f"{description}: {', '.join(names)}" for description, names in machines.items())
    return [f"- {outside.markdown_prose(text)}" for text in texts]


def versions(results: Iterable[Result]) -> list[tuple[str, str]]:
    """Each engine with the libraries that its finished rounds ran on, and every version of them."""
    engines: dict[str, dict[str, dict[str, None]]] = {}
    for result in results:
        if result.status == "ok" and result.cell.engine.name:
            libraries = engines.setdefault(result.cell.engine.name, {})
            for name, version in result.environment.items():
                libraries.setdefault(name, {})[version] = None
    return [
        (engine, ", ".join(f"{name} {' / '.join(its)}" for name, its in sorted(libraries.items())))
        for engine, libraries in sorted(engines.items())
    ]


def named(hardware: Hardware) -> str:
    """CPU, cores, memory and GPUs; without what another tool's file does not say."""
    cores = [f"{hardware.physical_cores} cores"] if hardware.physical_cores else []
    memory = [f"{hardware.ram_bytes / _GIB:.0f} GiB"] if hardware.ram_bytes else []
    return ", ".join([hardware.cpu, *cores, *memory, *(gpu.name for gpu in hardware.gpus)])


def _description(hardware: Hardware) -> str:
    """Its name, and where machines of the same name may differ."""
    isa = f" ({' '.join(hardware.isa)})" if hardware.isa else ""
    systems = filter(None, (hardware.system, *(f"driver {gpu.driver}" for gpu in hardware.gpus)))
    return ", ".join([f"{named(hardware)}{isa}", *systems])
