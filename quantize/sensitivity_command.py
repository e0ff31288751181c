"""The command `python -m quantize sensitivity`: what each layer's quantization costs, without a suite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from bench.cli.params import Json, Quiet, put
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.contract.spec import EngineSpec, Model, Recipe, Suite, Task
from eval.stats import paired

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
_TASK, _MOST = "sensitivity", 10


@app.command(
    context_settings=_EXTRA,
    epilog="The method's own options follow, as in --bits 8; `python -m bench list methods` shows them.",
)
def sensitivity(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A local folder, a .gguf file or a Hub id.")],
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(plugins.names(plugins.METHODS))}.")] = "",
    recipe: Annotated[str, typer.Option(help="A named recipe instead of a method, for example gptq-w4g128.")] = "",
    corpus: Annotated[str, typer.Option(help="The text: stdlib, wikitext2 or path:FILE.")] = "stdlib",
    window: Annotated[int, typer.Option("--context", help="Tokens of a window; intervals are over windows.")] = 256,
    tokens: Annotated[int, typer.Option(help="How much of the text; 0 is all of it.")] = 2048,
    by: Annotated[str, typer.Option(help="What is quantized at a time: layer, kind or block.")] = "layer",
    device: Annotated[str, typer.Option(help="cpu, cuda:N or auto.")] = "auto",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a Hub model.")] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize one layer of MODEL at a time, and print the KL divergence from the unquantized model that it costs.

    What was measured before is printed from its record, and an interrupted measurement goes on where it was.
    """
    from bench.progress.progress import Progress
    from bench.suite import config
    from quantize.command import chosen_recipe

    options = config.options(
        plugins.TASKS, _TASK, {"corpus": corpus, "context": window, "tokens": tokens, "by": by}, _TASK
    )
    module = plugins.load(plugins.TASKS, _TASK)
    task = Task(_TASK, options, module.title(module.Options(**options)))
    chosen = chosen_recipe(method, recipe, context.args)
    with Progress(quiet=quiet) as progress:
        result = _measured(Model(model, revision or None), chosen, task, device, progress)
    if json:
        put(wire.dumps(result, indent=1))
        return
    for line in lines(result):
        put(line)


def _measured(model: Model, recipe: Recipe, task: Task, device: str, progress: Any) -> Result:
    """The record of the recipe on the engine that gives layers of its format; UserError where that failed."""
    from bench import paths
    from bench.run import plan as planner
    from bench.run import records, runner
    from bench.store import Store
    from bench.suite import config

    baseline = config.recipe_named("baseline")
    if recipe.name == baseline.name:
        raise UserError("the baseline has no quantized layer: name a method that quantizes")
    names = [name for name in plugins.names(plugins.ENGINES) if plugins.load(plugins.ENGINES, name).LAYER_FORMATS]
    engines = tuple(EngineSpec(name, config.options(plugins.ENGINES, name, {}, name)) for name in names)
    suite = Suite(_TASK, model, (baseline, recipe), engines, tasks=(task,), devices=(device,), rounds=1, settle_s=0.0)
    plan = planner.plan(suite, fetch=True, only=recipe.name, report=progress.doing)
    formats = {item.artifact.format for item in plan.items}
    if not any(formats & plugins.load(plugins.ENGINES, name).LAYER_FORMATS for name in names):
        raise UserError(f"no engine gives single layers of what {recipe.name} makes: use another method")
    store = Store(paths.cache_folder("evals"))
    runner.run(plan, store, progress, retry_failed=True)
    (result,) = records.current(plan, store)
    if result.status != "ok":
        raise UserError(f"{recipe.name}: {result.reason}")
    return result


def lines(result: Result) -> Iterator[str]:
    """The table of blocks by kinds, the costliest layers with their intervals, and how far they add up."""
    facts, metrics = result.facts, result.metrics
    tokens = facts["window_tokens"]
    if not facts["units"]:
        yield "no layer is quantized"
        return
    title = f"{result.cell.recipe.name}, {result.cell.task.title if result.cell.task else ''}"
    yield f"KL from the unquantized model with one {facts['by']} quantized, nats a token ({title})"
    yield ""
    yield from _aligned(_grid(facts))
    yield ""
    means = [math.fsum(sums) / sum(tokens) for sums in facts["unit_window_kl"]]
    ranked = sorted(range(len(means)), key=lambda i: -means[i])[:_MOST]
    total = math.fsum(means)
    heads = [["costliest", "KL", "share of the sum", "parameters"]]
    yield from _aligned([*heads, *(_ranked(facts, i, total) for i in ranked)])
    yield ""
    yield f"sum of all      {_interval(facts['window_kl_sum'], tokens)}"
    yield f"all at once     {_interval(facts['window_kl_all'], tokens)}"
    if "sum_over_all" in metrics:
        yield f"sum / all       {metrics['sum_over_all']:.2f}"
    resumed = f", {facts['units_resumed']} from before an interruption" if facts["units_resumed"] else ""
    share = metrics["block_passes_fraction"]
    yield f"measured in     {facts['sensitivity_s']:.0f} s, {share:.0%} of the blocks of whole passes{resumed}"


def _ranked(facts: Mapping[str, Any], i: int, total: float) -> list[str]:
    sums, tokens = facts["unit_window_kl"][i], facts["window_tokens"]
    share = math.fsum(sums) / sum(tokens) / total if total else 0.0
    return [facts["units"][i], _interval(sums, tokens), f"{share:.1%}", f"{facts['unit_parameters'][i]:,}"]


def _grid(facts: Mapping[str, Any]) -> list[list[str]]:
    """Kinds across; a dash where a block has no such layer, or it is not quantized."""
    kinds, blocks = (list(dict.fromkeys(facts[key])) for key in ("unit_kinds", "unit_blocks"))
    tokens = sum(facts["window_tokens"])
    places = zip(facts["unit_blocks"], facts["unit_kinds"], strict=True)
    cells = {place: math.fsum(sums) / tokens for place, sums in zip(places, facts["unit_window_kl"], strict=True)}
    blocks.sort(key=lambda block: (not block.isdecimal(), int(block) if block.isdecimal() else 0))
    body = [[block, *(f"{cells[block, k]:.1e}" if (block, k) in cells else "-" for k in kinds)] for block in blocks]
    return [["block", *kinds], *body]


def _interval(sums: Sequence[float], tokens: Sequence[int]) -> str:
    mean, half = paired.per_token(sums, tokens)
    return f"{mean:.2e} ± {half:.1e}" if len(sums) > 1 else f"{mean:.2e}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        yield "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
