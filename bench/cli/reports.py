"""Verbs that read records and run nothing: report, recommend, compare, history, predict, recompute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.params import (
    RESULTS,
    ApiPrice,
    EngineName,
    Json,
    Only,
    Price,
    Results,
    Set,
    SuiteFile,
    output,
    put,
    say,
    width,
)
from bench.contract.cycles import no_gc
from bench.contract.errors import UserError
from bench.foreign import is_foreign

if TYPE_CHECKING:
    from bench.publish.prices import Prices

app = typer.Typer()


@app.command()
def report(
    results: Results = RESULTS,
    document: Annotated[
        list[Path] | None,
        typer.Option(help="Fill its passages. Default: REPORT.md, README.md and docs/ beside the folder."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where one is stale.")] = False,
    price: Price = "",
    api_price: ApiPrice = "",
) -> None:
    """Write what records give: tables, figures, their index, report.html, the numbers of REPORT.md."""
    from bench.publish import report as reports

    prices = _prices(results, price, api_price)
    with no_gc():
        if check:
            if stale := ", ".join(map(str, reports.stale(results, document or (), prices))):
                raise UserError(f"not what the records say: {stale}; write them with: python -m bench report")
        else:
            for path in reports.write(results, document or (), prices):
                put(str(path))


def _prices(results: Path, price: str, api_price: str = "", suite: Path | None = None) -> Prices:
    from bench.publish import prices

    given = prices.read(results, price, api_price, suite)
    for problem in given.problems:
        say(f"warning: {problem}")
    return given


@app.command()
def recommend(
    suite: Annotated[str, typer.Option(help="The suite whose records are judged: its name or its file.")],
    objective: Annotated[
        Literal["tok_per_s", "energy", "memory", "price"],
        typer.Option(help="What is to be best; the price compares all machines that the suite ran on."),
    ] = "tok_per_s",
    min_recovery: Annotated[float | None, typer.Option(help="Of the baseline's quality, as 0.99.")] = None,
    ttft_p95: Annotated[float | None, typer.Option(help="Seconds to the first token at most.")] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="At most, as 16GiB or 500MiB.")] = "",
    workload: Annotated[str, typer.Option(help="Where the suite has several.")] = "",
    device: Annotated[
        str, typer.Option(help="Its results folder, where there are several; an imported one has to be named.")
    ] = "",
    price: Price = "",
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Say which recipe and engine to deploy, of those measured, and why not the others."""
    from bench import paths
    from bench.publish import recommend as judge
    from bench.publish.tables import build, render
    from bench.publish.tables import price as pricing
    from bench.store import Store

    wish = judge.Wish(objective, min_recovery, ttft_p95, judge.size_bytes(memory) if memory else None)
    prices = _prices(results, price, suite=paths.shipped(Path(suite)))
    with no_gc():
        records = (r for r in Store(results).all() if r.suite == Path(suite).stem)
        table = pricing.priced(build.build(records), prices)
    rows = judge.of_device(table.rows, suite, device, objective)
    prices.require_one_machine(row.device for row in rows)
    if objective == "price":
        judge.require_prices(rows, str(results))
    title = judge.workload_of(rows, workload, wish)
    unjudged = judge.without_quality(rows, Path(suite).stem, wish)
    candidates = judge.recommend(rows, title, wish)
    if as_json:
        output(judge.as_json(candidates, title, wish))
    else:
        output(render.text([judge.section(candidates, title)], width()))
        placed = any(candidate.feasible and not candidate.picked for candidate in candidates)
        output(filter(None, (judge.LEGEND if placed else "", unjudged, *pricing.given(rows, prices))))
    if not any(candidate.picked for candidate in candidates):
        say("nothing that was measured keeps all limits")
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Recipe, RECIPE@ENGINE, engine, device, model, commit or folder.")],
    b: Annotated[str, typer.Argument(help="Another of the same kind; recipe:NAME and the like say which.")],
    suite: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Only these suites.")] = None,
    device: Annotated[str, typer.Option(metavar="GLOB", help="Only this results folder.")] = "",
    only: Only = "",
    engine: EngineName = "",
    recipe: Annotated[str, typer.Option(metavar="GLOB", help="Only this recipe.")] = "",
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE",
            help="Exit with 1 where B breaks it beyond noise, as 'tpot_s > 1.05' (B/A) or 'accuracy < -0.01' (B - A).",
        ),
    ] = None,
    results: Results = RESULTS,
    format: Annotated[Literal["terminal", "md", "json"], typer.Option(help="How to print it.")] = "terminal",
    as_json: Json = False,
) -> None:
    """Put two recipes, engines, devices, commits or folders side by side: ratios, and which are noise."""
    from bench.publish.compare import gates as gating
    from bench.publish.compare import report as comparison_report
    from bench.publish.compare import selectors
    from bench.publish.compare.compare import compare as compare_selections

    gates = [gating.parse(text) for text in fail_if or ()]
    filters = selectors.Filter(tuple(suite or ()), device, only, engine, recipe)
    with no_gc():
        comparison = compare_selections(*selectors.selections(a, b, results, filters))
    comparison_report.require_common_cells(comparison)
    for problem in dict.fromkeys((*comparison.baseline.problems, *comparison.candidate.problems)):
        say(f"warning: {problem}")
    judgements = gating.judge(gates, comparison)
    if as_json or format == "json":
        output({**comparison_report.as_json(comparison), "gates": gating.as_json(judgements)})
    elif format == "md":
        output(comparison_report.markdown(comparison, judgements))
    else:
        output(comparison_report.page(comparison, width(), judgements))
    if gating.is_broken(judgements):
        say(gating.summary(judgements))
        raise typer.Exit(1)


@app.command()
def history(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="SUITE/RECIPE/ENGINE/LOAD-OR-TASK, names or globs.")],
    metric: Annotated[str, typer.Argument(help="Its name in --json, as tpot_s or accuracy.")],
    device: Annotated[
        str,
        typer.Option(
            metavar="GLOB", help="Its results folder, where there are several; imported ones have to be named."
        ),
    ] = "",
    since: Annotated[str, typer.Option(metavar="COMMIT", help="Only commits after this one.")] = "",
    results: Results = RESULTS,
    format: Annotated[Literal["terminal", "md", "csv", "json"], typer.Option(help="How to print it.")] = "terminal",
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it into this file too.")] = None,
) -> None:
    """Draw a metric of one cell over the commits that changed its records, with what else changed."""
    from bench.contract import wire
    from bench.publish import history as histories
    from bench.publish.figures import draw
    from bench.publish.tables import render

    with no_gc():
        its = histories.history(results, cell, metric, device=device, since=since)
    for problem in its.problems:
        say(f"warning: {problem}")
    if format == "json":
        output(histories.as_json(its))
    elif format == "csv":
        output(histories.as_csv(its))
    else:
        section = histories.section(its)
        output("\n".join((*render.piped(section), "")) if format == "md" else render.text([section], width()))
    if svg is not None:
        wire.write(svg, draw.svg(histories.chart(its)))


@app.command()
def predict(
    suite: SuiteFile,
    gpu: Annotated[str, typer.Option(help="Its short name, as l4 or h100-sxm; a wrong one lists them.")],
    only: Only = "",
    engine: EngineName = "",
    overrides: Set = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Estimate a suite's offline cells on a GPU that is not here: whether they fit, and how fast at most."""
    from bench.publish import predictions
    from bench.publish.tables import render
    from bench.run import predict as predictor
    from bench.store import Store
    from bench.suite import config

    with no_gc():
        measured = predictor.calibration_set(r for r in Store(results).all() if not is_foreign(r.hardware.slug))
    cells = predictor.predict(config.load_suite(suite, overrides or ()), gpu, measured, only=only, engine=engine)
    if as_json:
        output(predictions.as_json(cells, measured, gpu))
        return
    sections, reasons = predictions.sections(cells)
    output(render.text(sections, width()))
    output(iter((*reasons, *predictions.caveats(measured, gpu))))


@app.command()
def recompute(
    metrics: Annotated[
        list[str], typer.Argument(metavar="METRIC...", help="Names or globs, as 'accuracy_*_fraction'.")
    ],
    device: Annotated[
        str, typer.Option(metavar="GLOB", help="Only these results folders; imported ones where it names them.")
    ] = "",
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Compute metrics of recorded rounds anew from their facts and traces, after a definition changed."""
    from bench.run import recompute as recomputed
    from bench.store import Store

    store = Store(results)
    records = list(recomputed.recompute(store, metrics, device))
    for problem in store.problems:
        say(f"warning: {problem}")
    rows = recomputed.summary(records)
    if as_json:
        output({"records": len(records), "metrics": rows})
        return
    for row in rows:
        share = row["change_max_fraction"]
        most = "from zero" if share is None else f"by {share:.2%} at the most"
        put(f"{row['metric']}: {row['records']} of {len(records)} records, {most}")
    put(f"records written: {len(records)}")
