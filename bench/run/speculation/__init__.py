"""Speculative decoding in a plan: what an engine can speculate over, and the model that drafts for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract import plugins, speculation
from bench.contract.errors import UserError
from bench.contract.spec import Cell, EngineSpec, Recipe, Suite
from bench.contract.workload import Offline
from bench.formats import folder as model_folder
from bench.models import resolve, tokenization
from bench.run import memory_fit
from bench.run.planned import PlannedArtifact

_DRAFT = f"{speculation.PREFIX}draft"
_MTP_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "nextn_predict_layers")


def drafts(
    suite: Suite, planned: Sequence[PlannedArtifact], plan_model: Callable[[Recipe], PlannedArtifact]
) -> dict[str, PlannedArtifact]:
    """The drafts that the suite's engines name: recipes of it, or models, which `plan_model` plans as checkpoints.

    UserError for a name that is neither.
    """
    recipes = {artifact.recipe.name: artifact for artifact in planned}
    result: dict[str, PlannedArtifact] = {}
    for engine in suite.engines:
        if not (name := speculation.draft_of(engine.options)) or name in result:
            continue
        if name not in recipes and "/" not in name and not Path(name).expanduser().exists():
            raise UserError(
                f"engine {engine.title}: {plugins.unknown('draft', name, tuple(recipes))}: name a recipe of the suite, "
                "or a model by its folder, its file or its Hub id (owner/name)"
            )
        if name in recipes:
            result[name] = recipes[name]
            continue
        names = {artifact.recipe.name for artifact in (*planned, *result.values())}
        recipe = Recipe(_unused(f"draft-{resolve.public(name)}", names), checkpoint=name)
        try:
            result[name] = plan_model(recipe)
        except UserError as error:
            reason = str(error).removeprefix(f"recipe {recipe.name}: ")
            raise UserError(f"engine {engine.title}: its draft {name} cannot be read: {reason}") from None
    return result


def _unused(name: str, names: Collection[str]) -> str:
    """The name of a recipe that no other has."""
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, len(names) + 3))) if each not in names)


def keeps_answers(suite: Suite, round_: int) -> bool:
    """Whether a round's answers are recorded: greedy output with and without speculation is to be compared, once."""
    return round_ == 0 and any(speculation.method_of(engine.options) != "off" for engine in suite.engines)


def unfit_load(cell: Cell) -> str:
    """Why there is nothing to speculate over in what a cell measures; "" where there is, or nothing speculates."""
    if speculation.method_of(cell.engine.options) == "off":
        return ""
    if cell.task is not None:
        return "speculation changes the speed of answers and no score: give tasks an engine without it"
    if not getattr(cell.workload, "prompts", ""):
        return (
            "speculation on random tokens would say nothing, as what it accepts depends on the text: give the workload "
            "real prompts, as prompts: question.jsonl"
        )
    if getattr(cell.workload, "deepest", 0):
        return "speculation is not measured at a depth: leave depth_tokens out, and ask long prompts"
    if isinstance(cell.workload, Offline) and cell.workload.batch > 1:
        return "speculation in process takes one sequence at a time: set batch: 1, or use a workload of kind: closed"
    return ""


def unfit_draft(cell: Cell, artifact: PlannedArtifact, draft: PlannedArtifact | None) -> str:
    """Why the artifact cannot be drafted for so, as far as the files say; "" where nothing speaks against it."""
    method = speculation.method_of(cell.engine.options)
    if method == "mtp" and not _has_mtp_layers(artifact.resolved.source.config):
        return "the model has no layers that predict further tokens (MTP): use method ngram, or draft"
    clause = "" if draft is None else _draft_fault(cell, artifact, draft, is_head=method == "eagle")
    name = resolve.public(speculation.draft_of(cell.engine.options))
    return f"its draft {name} {clause}" if clause else ""


def _draft_fault(cell: Cell, artifact: PlannedArtifact, draft: PlannedArtifact, *, is_head: bool) -> str:
    if draft.recipe.name == artifact.recipe.name:
        return "is the model itself, and would only be checked against itself"
    if draft.reason:
        return f"cannot be made: {draft.reason}"
    loads = plugins.load(plugins.ENGINES, cell.engine.name).LOADS
    if draft.format not in loads:
        return f"is {draft.format}, and {cell.engine.name} loads {', '.join(sorted(loads))}: convert it"
    if is_head and draft.resolved.folder is not None and not _is_eagle(draft):
        return "is no EAGLE head: name one that was trained for this model, or set method: draft"
    if difference := "" if is_head else _other_vocabulary(artifact, draft):
        return f"has another vocabulary than the model ({difference}): name one with the same"
    too_large = "" if is_head else _pair_too_large(cell, artifact, draft)
    beside = f"does not fit beside {artifact.recipe.name}"
    return f"{beside}: {too_large}; name a smaller one, or leave speculative out" if too_large else ""


def _pair_too_large(cell: Cell, artifact: PlannedArtifact, draft: PlannedArtifact) -> str:
    """What both need and what there is; "" where they fit, or where that is not known."""
    if draft.footprint is None:
        return ""
    return memory_fit.why_too_large(cell, artifact.footprint, artifact.hardware, draft.footprint)


def _has_mtp_layers(config: Mapping[str, Any]) -> bool:
    return not config or any(model_folder.size(config, name) for name in _MTP_LAYERS)


def _is_eagle(draft: PlannedArtifact) -> bool:
    config = draft.resolved.source.config
    names = (*(config.get("architectures") or ()), config.get("model_type"), config.get("general.architecture"))
    return any("eagle" in str(name).lower() for name in names)


def _other_vocabulary(artifact: PlannedArtifact, draft: PlannedArtifact) -> str:
    """How the two cut a text otherwise, in a clause; "" where they do not, or are not both on this machine."""
    target, other = artifact.resolved.folder, draft.resolved.folder
    if target is None or other is None or target == other:
        return ""
    sizes = [model_folder.vocab_size(its.resolved.source.config) for its in (artifact, draft)]
    if all(sizes) and sizes[0] != sizes[1]:
        return f"{sizes[1]} tokens where the model has {sizes[0]}"
    return tokenization.difference(target, other).replace("the baseline's", "the model's")


def keyed(engine: EngineSpec, draft: PlannedArtifact | None) -> EngineSpec:
    """The engine for a digest: its draft counts by what it is, not by its name."""
    return engine if draft is None else _with_draft(engine, draft.digest)


def located(cell: Cell, folder: Path) -> Cell:
    """The cell for an engine: with its draft's folder on this machine."""
    return dataclasses.replace(cell, engine=_with_draft(cell.engine, f"path:{folder}"))


def _with_draft(engine: EngineSpec, draft: str) -> EngineSpec:
    return dataclasses.replace(engine, options={**engine.options, _DRAFT: draft})
