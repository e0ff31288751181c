"""The command `python -m eval`: one measurement without a suite, or two of them on the same items."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.params import Json, Quiet, put
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import EngineSpec, Model, Recipe, Suite, Task
from bench.suite import flags
from eval import format as score_format

if TYPE_CHECKING:
    from bench.progress.progress import Progress
    from bench.run.planned import Plan

_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
_OPTIONS = "The task's own options follow, as in --context 1024; `python -m bench list tasks` shows them."
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
compare_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

TaskName = Annotated[str, typer.Option(help=f"One of: {', '.join(plugins.names(plugins.TASKS))}.")]
Engine = Annotated[str, typer.Option(help="The engine that scores; by default one that loads it.")]
Dtype = Annotated[str, typer.Option(help="The engine's compute dtype.")]
Device = Annotated[str, typer.Option(help="cpu, cuda:N or auto.")]
Revision = Annotated[str, typer.Option(help="Branch, tag or commit of a Hub model.")]


@app.command(context_settings=_EXTRA, epilog=f"{_OPTIONS} Two artifacts: python -m eval compare BASE OTHER --task …")
def evaluate(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(help="A local folder, a .gguf file, or a Hub id.")],
    task: TaskName = "perplexity",
    engine: Engine = "",
    dtype: Dtype = "",
    device: Device = "auto",
    revision: Revision = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure ARTIFACT as it is. A measurement that was made before is printed from its record."""
    from bench.progress.progress import Progress

    scored = _task(task, context.args)
    if plugins.load(plugins.TASKS, task).REFERENCE:
        raise UserError(f"{task} needs two artifacts: python -m eval compare BASE OTHER --task {task}")
    with Progress(quiet=quiet) as progress:
        plan = partial(_plan, progress, scored, engine, dtype, device)
        result = _measured(plan(Model(artifact, revision or None), "as-is"), progress)
    put(wire.dumps(result, indent=1) if json else score_format.one(result))


@compare_app.command(name="compare", context_settings=_EXTRA, epilog=_OPTIONS)
def compare(
    context: typer.Context,
    base: Annotated[str, typer.Argument(help="What it is compared with.")],
    other: Annotated[str, typer.Argument(help="A folder, a .gguf file or a Hub id, as BASE.")],
    task: TaskName = "lm_eval",
    engine: Engine = "",
    dtype: Dtype = "",
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure OTHER against BASE on the same items: what it lost, and whether that is more than noise."""
    from bench.progress.progress import Progress

    scored, module = _task(task, context.args), plugins.load(plugins.TASKS, task)
    with Progress(quiet=quiet) as progress:
        plan = partial(_plan, progress, scored, engine, dtype, device)
        first = plan(Model(base), "baseline")
        result = _measured(plan(Model(other), "as-is", baseline=first), progress)
        base_result = None if module.REFERENCE else _measured(first, progress)
    change = module.compare_to_baseline(result.facts, base_result.facts) if base_result else {}
    pair = {"base": base_result, "other": result, "change": change}
    put(wire.dumps(pair, indent=1) if json else score_format.two(base, base_result, result, change))


def _task(kind: str, extra: list[str]) -> Task:
    from bench.suite import config

    module = plugins.load(plugins.TASKS, kind)
    options = config.options(plugins.TASKS, kind, flags.options(extra), kind)
    return Task(kind, options, module.title(module.Options(**options)))


def _plan(
    progress: Progress,
    task: Task,
    engine: str,
    dtype: str,
    device: str,
    model: Model,
    recipe: str,
    baseline: Plan | None = None,
) -> Plan:
    """The plan of one round: the model as it is, under the name of a recipe."""
    from bench.models import resolve
    from bench.run import plan as planner
    from bench.suite import config

    options = {"dtype": dtype} if dtype else {}
    engine = engine or _scorer(resolve.resolve(model, fetch=True, report=progress.doing).format)
    spec = EngineSpec(engine, config.options(plugins.ENGINES, engine, options, engine))
    suite = Suite("eval", model, (Recipe(recipe),), (spec,), tasks=(task,), devices=(device,), rounds=1, settle_s=0.0)
    return planner.plan(suite, fetch=True, baseline=baseline, report=progress.doing)


def _measured(plan: Plan, progress: Progress) -> Result:
    from bench import paths
    from bench.run import records, runner
    from bench.store import Store

    store = Store(paths.cache_folder("evals"))
    runner.run(plan, store, progress, retry_failed=True)
    (result,) = records.current(plan, store)
    if result.status != "ok":
        raise UserError(f"{result.cell.measurement} of {result.cell.model.label}: {result.reason}")
    return result


def _scorer(artifact_format: str) -> str:
    """The first engine that scores this format; those of the core environment load no weights."""
    for name in plugins.names(plugins.ENGINES):
        engine = plugins.load(plugins.ENGINES, name)
        if artifact_format in engine.LOADS and "score" in engine.MODES and engine.ENV != "core":
            return name
    raise UserError(f"no engine scores the format {artifact_format}")


def run(words: list[str]) -> None:
    """The command with these words: a measurement, or `compare` and two artifacts."""
    if words[:1] == ["compare"]:
        compare_app(words[1:], prog_name="python -m eval compare")
    else:
        app(words, prog_name="python -m eval")
