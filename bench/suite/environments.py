"""The environments that suites need, read from their files: nothing is planned, fetched or built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.contract import plugins
from bench.contract.spec import Recipe, Suite
from bench.suite import config


def needed() -> dict[str, list[str]]:
    """By the name of each environment, the suites that ship and need it; not core, which is always there."""
    suites: dict[str, list[str]] = {}
    for file in config.suites():
        for name in sorted(set(_of_suite(config.load_suite(Path(file)))) - {"", "core"}):
            suites.setdefault(name, []).append(file.stem)
    return suites


def _of_suite(suite: Suite) -> Iterator[str]:
    for recipe in suite.recipes:
        yield from map(plugins.step_env, recipe.steps)
    for engine in (plugins.load(plugins.ENGINES, spec.name) for spec in suite.engines):
        yield engine.ENV
        for recipe in suite.recipes:
            yield from (env for kind, env in engine.ENV_BY_FORMAT.items() if _may_be(recipe, kind))
    for task in suite.tasks:
        yield plugins.load(plugins.TASKS, task.kind).ENV


def _may_be(recipe: Recipe, kind: str) -> bool:
    """Whether the recipe's artifact has this format; of a checkpoint that somebody made, only its files tell."""
    if recipe.steps:
        return kind == plugins.load(plugins.METHODS, recipe.steps[-1].method).WRITES
    return bool(recipe.checkpoint)
