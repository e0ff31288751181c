"""Verbs that read records and run nothing: report, recommend, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.contract.errors import UserError
from bench.options import RESULTS, EngineName, Only, Results, Set, SuiteFile, say, width

app = typer.Typer()


@app.command()
def report(
    results: Results = RESULTS,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where one is stale.")] = False,  # noqa: FBT002
) -> None:  # fmt: skip
    """Write each device's tables and figures, their index, and report.html, from the records."""
    from bench.contract import wire
    from bench.publish import figures, pictured, webpage
    from bench.publish import report as reports
    from bench.store import Store

    store = Store(results)
    records = list(store.all())
    if store.problems:
        raise UserError(store.problems[0])
    wanted = reports.files(records)
    drawn = pictured.gather(records, store)
    charts = drawn.figures()
    stale = reports.stale(results, wanted)
    if check and (behind := [*stale, *figures.stale(results, charts)]):
        names = ", ".join(str(results / path) for path in behind)
        raise UserError(f"not what the records say: {names}; write them with: python -m bench report")
    if check:
        return
    results.mkdir(parents=True, exist_ok=True)
    for path in stale:
        wire.write(results / path, wanted[path])
    page = [Path(webpage.NAME)] if drawn.page(results / webpage.NAME) else []
    for path in (*stale, *figures.write(results, charts), *page):
        typer.echo(str(results / path))


@app.command()
def recommend(
    suite: Annotated[str, typer.Option(help="The suite whose records are judged: its name or its file.")],
    objective: Annotated[
        Literal["tok_per_s", "energy", "memory"], typer.Option(help="What is to be best.")
    ] = "tok_per_s",
    min_recovery: Annotated[float | None, typer.Option(help="Of the baseline's quality, as 0.99.")] = None,
    ttft_p95: Annotated[float | None, typer.Option(help="Seconds to the first token at most.")] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="At most, as 16GiB or 500MiB.")] = "",
    workload: Annotated[str, typer.Option(help="Where the suite has several.")] = "",
    device: Annotated[str, typer.Option(help="Its results folder, where there are several.")] = "",
    results: Results = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Say which recipe and engine to deploy, of those measured, and why not the others."""
    from bench.publish import recommend as judge
    from bench.publish import render, tables
    from bench.store import Store

    wish = judge.Wish(objective, min_recovery, ttft_p95, judge.size_bytes(memory) if memory else None)
    records = [r for r in Store(results).all() if r.suite == Path(suite).stem]
    rows = judge.of_device(tables.build(records).rows, suite, device)
    title = judge.workload_of(rows, workload, wish)
    found = judge.recommend(rows, title, wish)
    if as_json:
        typer.echo(judge.as_json(found, title, wish), nl=False)
    else:
        typer.echo(render.text([judge.section(found, title)], width()), nl=False)
    if not any(candidate.picked for candidate in found):
        say("nothing that was measured keeps all limits")
        raise typer.Exit(1)


@app.command()
def predict(
    suite: SuiteFile,
    gpu: Annotated[str, typer.Option(help="Its short name, as l4 or h100-sxm; a wrong one lists them.")],
    only: Only = "", engine: EngineName = "", overrides: Set = None, results: Results = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,  # noqa: FBT002
) -> None:  # fmt: skip
    """Estimate a suite's offline cells on a GPU that is not here: whether they fit, and how fast at most."""
    from bench.publish import predictions, render
    from bench.run import config
    from bench.run import predict as predictor
    from bench.store import Store

    asked = config.load_suite(suite, overrides or ())
    measured = predictor.known(Store(results).all())
    found = predictor.predict(asked, gpu, measured, only=only, engine=engine)
    if as_json:
        typer.echo(predictions.as_json(found, measured, gpu), nl=False)
        return
    sections, reasons = predictions.sections(found)
    typer.echo(render.text(sections, width()), nl=False)
    for line in (*reasons, *predictions.said(measured, gpu)):
        typer.echo(line)
