"""Which GPUs this process may use, from what the driver said: pure, so that recorded answers can stand in.

A GPU in MIG mode is stood for by its slices, each a device of its own: CUDA cannot use the whole, and two
slices share neither memory nor cores.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contract.record import Gpu


@dataclass(frozen=True)
class Slice:
    """A MIG device as the driver tells of it; the name ends in its profile, as "MIG 1g.10gb"."""

    uuid: str
    name: str | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Told:
    """What the driver said of one GPU, None being what it would not say. `index` is NVML's."""

    index: int
    uuid: str
    name: str | None
    memory_bytes: int | None
    capability: tuple[int, int] | None
    driver: str = ""
    mig: bool = False
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Place:
    """A GPU or a slice of one, and how NVML and CUDA_VISIBLE_DEVICES name it: its index, or its MIG-UUID.

    A UUID identifies a machine, so no record has it.
    """

    gpu: Gpu
    word: int | str


def places(told: tuple[Told, ...], setting: str | None) -> tuple[Place, ...]:
    """In the order that `cuda:N` counts them, by CUDA's own rule for CUDA_VISIBLE_DEVICES.

    Entries count in order, each an index or the beginning of a UUID; the list ends at the first that names
    none or several. A GPU in MIG mode stands for all its slices.
    """
    if setting is None:
        return tuple(place for one in told for place in _of(one))
    chosen: list[Place] = []
    for entry in (e.strip() for e in setting.split(",")):
        found = _chosen(told, entry)
        if not found:
            break
        chosen += found
    return tuple(chosen)


def _chosen(told: tuple[Told, ...], entry: str) -> tuple[Place, ...]:
    if entry.startswith("MIG-"):
        found = [place for one in told for place in _of(one) if str(place.word).startswith(entry)]
        return tuple(found) if len(found) == 1 else ()
    named = [
        one for one in told if entry == str(one.index) or (entry.startswith("GPU-") and one.uuid.startswith(entry))
    ]
    return _of(named[0]) if len(named) == 1 else ()


def _of(one: Told) -> tuple[Place, ...]:
    """The GPU itself, or its slices."""
    name = one.name or "NVIDIA GPU"
    capability = "{}.{}".format(*one.capability) if one.capability else "0.0"
    if not one.mig:
        gpu = Gpu(one.index, name, one.memory_bytes or 0, capability, one.driver)
        return (Place(gpu, one.index),)
    return tuple(
        Place(Gpu(one.index, part.name or f"{name} MIG", part.memory_bytes or 0, capability, one.driver), part.uuid)
        for part in one.slices
    )
