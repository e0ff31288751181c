"""`python -m eval ARTIFACT --task perplexity --corpus stdlib`.

One measurement of any folder or Hub id, without a suite.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import guarded
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import EngineSpec, Model, Recipe, Suite, Task
from bench.run import flags

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(
    context_settings=_EXTRA,
    epilog="The task's own options follow, as in --context 1024; `python -m bench list tasks` shows them.",
)
def evaluate(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(help="A local folder, compressed or not, or a Hub id.")],
    task: Annotated[
        str, typer.Option(help=f"One of: {', '.join(plugins.names(plugins.TASKS))}.")
    ] = "perplexity",
    engine: Annotated[str, typer.Option(help="The engine that scores; by default one that loads it.")] = "",
    dtype: Annotated[str, typer.Option(help="The engine's compute dtype.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda:N or auto.")] = "auto",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a Hub model.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the whole record instead.")] = False,  # noqa: FBT002
) -> None:
    """Measure ARTIFACT as it is. The same question asked twice is answered from the first record."""
    from bench.run import config, models, paths, pipeline
    from bench.run import plan as planner
    from bench.run.progress import Progress
    from bench.store import Store

    module = plugins.load(plugins.TASKS, task)
    if module.REFERENCE:
        raise UserError(f"{task} is measured against a suite's baseline: run it from a suite")
    options = config.options(plugins.TASKS, task, flags.options(context.args), task)
    given = {"dtype": dtype} if dtype else {}
    model = Model(artifact, revision or None)
    engine = engine or _scorer(models.resolve(model, fetch=True).format)
    spec = EngineSpec(engine, config.options(plugins.ENGINES, engine, given, engine))
    what = Task(task, options, module.title(module.Options(**options)))
    suite = Suite("eval", model, (Recipe("as-is"),), (spec,), tasks=(what,), devices=(device,), rounds=1)
    store = Store(paths.cache_folder("evals"))
    with Progress() as progress:
        made = planner.plan(suite, fetch=True)
        pipeline.run(made, store, progress, retry_failed=True)
    (result,) = pipeline.records(made, store)
    if result.status != "ok":
        raise UserError(f"{what.title}: {result.reason}")
    typer.echo(wire.dumps(result, indent=1) if json else "\n".join(lines(result)))


def _scorer(artifact_format: str) -> str:
    """The first engine that scores this format, those of the core environment apart: they load no weights."""
    for name in plugins.names(plugins.ENGINES):
        engine = plugins.load(plugins.ENGINES, name)
        if artifact_format in engine.LOADS and "score" in engine.MODES and engine.ENV != "core":
            return name
    raise UserError(f"no engine here scores the format {artifact_format}")


def lines(result: Result) -> list[str]:
    """The metrics of a record and what they rest on, a fact a line."""
    cell = result.cell
    facts = [f"{cell.what} of {cell.model.label} in {cell.engine.title} on {result.hardware.name}"]
    facts += [f"  {name:<22} {value:.6g}" for name, value in sorted(result.metrics.items())]
    facts += [f"  {name:<22} {value}" for name, value in sorted(result.receipts.items())]
    return facts


if __name__ == "__main__":
    guarded(app)
