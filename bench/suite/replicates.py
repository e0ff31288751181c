"""`replicates` of a recipe: the same steps with other seeds, each a recipe of its own that tables fold into the first.

The first is the recipe as it is; replicate k has k more as the seed of every step that is drawn by one, and is called
NAME-seedN by that of the last such step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.spec import Recipe, Step, Suite

_MOST = 100


def expanded(suite: Suite) -> Suite:
    """The suite with the replicates of its recipes behind them; UserError for a recipe that can have none."""
    more = [
        replicate
        for position, recipe in enumerate(suite.recipes)
        if _checked(suite, recipe, f"recipes[{position}].replicates") > 1
        for replicate in _replicates(recipe)
    ]
    return replace(suite, recipes=(*(replace(recipe, replicates=1) for recipe in suite.recipes), *more))


def _checked(suite: Suite, recipe: Recipe, where: str) -> int:
    """How often the recipe is made."""
    count = recipe.replicates
    if not 1 <= count <= _MOST:
        raise UserError(f"{where}: must be at {'least 1' if count < 1 else f'most {_MOST}'}, got {count}")
    if count > 1 and not any(map(plugins.is_seeded, recipe.steps)):
        raise UserError(
            f"{where}: no step of '{recipe.name}' is calibrated or trained, so that every replicate would be the same: "
            "leave replicates out"
        )
    if count > 1 and not suite.tasks:
        raise UserError(
            f"{where}: a seed changes quality and not speed, and the suite has no task to measure that by: add a task, "
            "or leave replicates out"
        )
    return count


def _replicates(recipe: Recipe) -> Iterator[Recipe]:
    """All but the first, which is the recipe itself."""
    for number in range(1, recipe.replicates):
        steps = tuple(_with_seed(step, number) for step in recipe.steps)
        seed = [step.options["seed"] for step in steps if plugins.is_seeded(step)][-1]
        yield replace(recipe, name=f"{recipe.name}-seed{seed}", steps=steps, replicates=1, replicate_of=recipe.name)


def _with_seed(step: Step, more: int) -> Step:
    if not plugins.is_seeded(step):
        return step
    _, options = plugins.method_of(step)
    return replace(step, options={**step.options, "seed": options.seed + more})
