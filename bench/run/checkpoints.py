"""Recipes that are a checkpoint which somebody else made: its files, and how it stands to the suite's own model."""

from __future__ import annotations

from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.contract.spec import Model, Recipe
from bench.models import dummy, resolve
from bench.models.resolve import Resolved
from bench.run import tokenizer


def resolved(recipe: Recipe, need: tokenizer.Need, *, fetch: bool, report: Report) -> Resolved:
    """The checkpoint's files, as a model's; UserError, which names the recipe, where they cannot be measured."""
    model = Model(recipe.checkpoint, recipe.revision)
    if model.source.startswith(dummy.PREFIX):
        raise UserError(f"recipe {recipe.name}: {model.source} has no weights of anybody's: name a Hub id or a folder")
    try:
        here = resolve.resolve(model, fetch=fetch, report=report)
        return tokenizer.with_tokenizer(here, need, fetch=fetch, report=report)
    except UserError as error:
        raise UserError(f"recipe {recipe.name}: {error}") from None
