"""Verbs of a suite: run, plan, table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli import params
from bench.cli.params import bold, output, say, width
from bench.contract.cycles import no_gc
from bench.contract.errors import UserError

if TYPE_CHECKING:
    from bench.publish.prices import Prices
    from bench.run.planned import Plan
    from bench.store import Store

app = typer.Typer()
_CODES = (
    "Exit codes: 0 the suite ran to its end, failed rounds being records too; 2 something has to be mended "
    "first, as one sentence says; 130 interrupted (Ctrl-C, SIGTERM, SIGHUP), what is finished is kept."
)


@app.command(epilog=_CODES)
def run(
    suite: params.SuiteFile,
    only: params.Only = "",
    engine: params.EngineName = "",
    device: params.Device = "",
    rounds: params.Rounds = 0,
    retry: Annotated[Literal["", "failed"], typer.Option(help="Run cells again that failed before.")] = "",
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=1, help="Things built or scored at a time; what is timed always has the machine alone."
        ),
    ] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    overrides: params.Set = None,
    results: params.Results = params.RESULTS,
    format: params.Format = "terminal",
    as_json: params.Json = False,
    quiet: params.Quiet = False,
    price: params.Price = "",
    api_price: params.ApiPrice = "",
) -> None:
    """Run what a suite still lacks, then print its table. Running it again does nothing twice.

    With --json stdout has one object: the table, rounds by status, the time, the folders of the records.
    """
    if dry_run:
        plan(suite, only, engine, device, rounds, overrides, results, retry, as_json)
        return
    from bench import paths
    from bench.progress.progress import Progress
    from bench.publish import headline
    from bench.publish import prices as pricing
    from bench.run import runner
    from bench.store import Store

    if as_json and format not in ("terminal", "json"):
        raise UserError(f"--json prints the table as JSON and --format {format} does not: use one of them")
    with Progress(quiet=quiet, figure=headline.figure) as progress:
        planned = _plan(suite, only, engine, device, rounds, overrides, fetch=progress.doing)
        store = Store(results)
        prices = pricing.read(results, price, api_price, planned.suite)
        tally = runner.run(planned, store, progress, retry_failed=retry == "failed", at_once=jobs)
    slugs = dict.fromkeys(artifact.hardware.slug for artifact in planned.artifacts)
    folders = [str(store.folder(slug, planned.suite.name)) for slug in slugs]
    summary = {
        "rounds": {"ok": 0, "failed": 0, "unsupported": 0, **tally.done, "kept": tally.recorded},
        "time_s": round(progress.elapsed_s, 1),
        "records": folders,
    }
    _table(store, planned, "json" if as_json else format, prices, summary if as_json else None)
    if not quiet:
        ran = ", ".join(f"{n} {status}" for status, n in sorted(tally.done.items())) or "nothing left to run"
        say(f"Rounds: {ran}; {tally.recorded} recorded before. Time: {progress.elapsed}. Records: {', '.join(folders)}")
    if tally.done["failed"]:
        logs = paths.cache() / "logs"
        say(f"Failed rounds are kept as records; run them again with: --retry failed. Logs: {logs}")


@app.command()
def plan(
    suite: params.SuiteFile,
    only: params.Only = "",
    engine: params.EngineName = "",
    device: params.Device = "",
    rounds: params.Rounds = 0,
    overrides: params.Set = None,
    results: params.Results = params.RESULTS,
    retry: Annotated[Literal["", "failed"], typer.Option(help="Count failed rounds as to run.")] = "",
    as_json: params.Json = False,
) -> None:
    """Show each cell of a suite: recorded, to run, or why it cannot run. Nothing is built, fetched or run."""
    from bench.publish import plans
    from bench.run import records
    from bench.store import Store

    planned = _plan(suite, only, engine, device, rounds, overrides, fetch=None)
    with no_gc():
        todo = records.pending(planned, Store(results), retry_failed=retry == "failed")
    cells = (planned.items, todo, planned.unpaired, planned.preparation)
    output(plans.as_json(planned.suite.name, *cells) if as_json else plans.lines(*cells))


@app.command()
def table(
    suite: Annotated[Path | None, typer.Argument(metavar="[SUITE]", help="Only this suite's cells.")] = None,
    format: params.Format = "terminal",
    results: params.Results = params.RESULTS,
    overrides: params.Set = None,
    device: params.Device = "",
    replicates: Annotated[bool, typer.Option("--replicates", help="A row for each replicate of a recipe too.")] = False,
    price: params.Price = "",
    api_price: params.ApiPrice = "",
) -> None:
    """Print the table of a suite, or of all records."""
    from bench.publish import prices as pricing
    from bench.store import Store

    store = Store(results)
    planned = _plan(suite, "", "", device, 0, overrides, fetch=None) if suite else None
    prices = pricing.read(results, price, api_price, planned.suite if planned else None)
    if planned is None and not results.is_dir():
        raise UserError(f"no records in {results}; run a suite first: python -m bench run configs/demo.yaml")
    _table(store, planned, format, prices, with_replicates=replicates)


@no_gc()
def _plan(
    file: Path,
    only: str,
    engine: str,
    device: str,
    rounds: int,
    overrides: list[str] | None,
    *,
    fetch: Callable[[str], None] | None,
) -> Plan:
    """The plan. With `fetch`, which reports the progress, a missing model is downloaded."""
    from dataclasses import replace

    from bench.run import plan as planner
    from bench.suite import config

    suite = config.load_suite(file, overrides or ())
    if device:
        suite = replace(suite, devices=(device,))
    if rounds:
        suite = replace(suite, rounds=rounds)
    planned = planner.plan(suite, fetch=fetch is not None, only=only, engine=engine, report=fetch or (lambda _: None))
    if not planned.items:
        filters = " ".join(f"--{k} {v}" for k, v in {"only": only, "engine": engine}.items() if v)
        raise UserError(f"{file}: no cell matches {filters}; `python -m bench plan {file}` lists them")
    return planned


@no_gc()
def _table(
    store: Store,
    planned: Plan | None,
    format: params.TableFormat,
    prices: Prices,
    summary: Mapping[str, Any] | None = None,
    *,
    with_replicates: bool = False,
) -> None:
    """Print the table, or one JSON object with it and the `summary` of a run."""
    from bench.publish.tables import build, render
    from bench.publish.tables import price as pricing
    from bench.run import records

    if planned is None:
        contents = build.build(store.all(), with_replicates=with_replicates)
    else:
        contents = build.build(records.current(planned, store), planned.cells, with_replicates=with_replicates)
    prices.require_one_machine(row.device for row in contents.rows)
    contents = pricing.priced(contents, prices)
    if summary is not None:
        typer.echo(json.dumps(summary, indent=1).removesuffix("\n}"), nl=False)
        typer.echo(',\n "table": ', nl=False)
    if format == "json":
        for part in render.json_parts(contents, level=0 if summary is None else 1):
            typer.echo(part, nl=False)
        typer.echo("" if summary is None else "\n}")
    else:
        typer.echo(render.render(contents, format, width(), bold=bold()))
    for problem in (*store.problems, *prices.problems):
        say(f"warning: {problem}")
