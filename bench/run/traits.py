"""What a plugin may say beyond its role, and what holds where it says nothing.

Whatever needs the environment of a step or of a cell asks here: one answer, for digests and for workers.
"""

from __future__ import annotations

from typing import Any

from bench.contract import plugins
from bench.contract.spec import Options, Step


def step_env(step: Step) -> str:
    """The environment that a step is taken in: its method's ENV, or the one its options choose."""
    method = plugins.load(plugins.METHODS, step.method)
    chosen = getattr(method, "env", None)
    name: str = chosen(method.Options(**step.options)) if chosen else method.ENV
    return name


def engine_env(engine: Any, artifact_format: str) -> str:
    """The environment that an engine runs this format in: its ENV, or the one of ENV_BY_FORMAT."""
    name: str = getattr(engine, "ENV_BY_FORMAT", {}).get(artifact_format, engine.ENV)
    return name


def weight_bits(step: Step) -> float | None:
    """The least bits per linear weight that the step writes; None where its method does not tell."""
    method = plugins.load(plugins.METHODS, step.method)
    told = getattr(method, "weight_bits", None)
    return float(told(method.Options(**step.options))) if told else None


def may_offload(engine: Any, options: Options) -> bool:
    """Whether an engine with these options may keep weights outside the cell's device."""
    told = getattr(engine, "may_offload", None)
    return bool(told and told(engine.Options(**options)))


def counted(step: Step) -> Options:
    """The step's options for a digest: one that came later is left out while it has its default.

    What was made before there was such an option is what its default makes.
    """
    method = plugins.load(plugins.METHODS, step.method)
    later: frozenset[str] = getattr(method, "OPTIONS_SINCE", frozenset())
    default = method.Options()
    return {k: v for k, v in step.options.items() if k not in later or v != getattr(default, k)}
