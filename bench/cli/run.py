"""Verbs of a suite: run, plan, table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli import params
from bench.cli.params import bold, output, say, width
from bench.contract.cycles import no_gc
from bench.contract.errors import UserError

if TYPE_CHECKING:
    from bench.contract.record import Result
    from bench.contract.spec import Cell, Suite
    from bench.progress.progress import Progress
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
    on: params.On = "",
    ray_address: params.RayAddress = "",
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
    if ray_address and not on:
        raise UserError("--ray-address is for --on ray: add that, or leave it out")
    if dry_run and on:
        raise UserError("--dry-run shows the plan of this machine alone: leave --on ray out")
    if dry_run:
        plan(suite, only, engine, device, rounds, overrides, results, retry, as_json)
        return
    from bench import paths
    from bench.progress.progress import Progress
    from bench.publish import headline
    from bench.publish import prices as pricing
    from bench.store import Store

    if as_json and format not in ("terminal", "json"):
        raise UserError(f"--json prints the table as JSON and --format {format} does not: use one of them")
    with Progress(quiet=quiet, figure=headline.figure) as progress:
        store = Store(results)
        loaded = _suite(suite, device, rounds, overrides)
        prices = pricing.read(results, price, api_price, loaded)
        chosen = _Chosen(suite, loaded, only, engine, retry_failed=retry == "failed")
        ended = _on_ray(chosen, ray_address, store, progress) if on else _here(chosen, prices, jobs, store, progress)
    folders = [str(store.folder(slug, loaded.name)) for slug in ended.slugs]
    summary = {
        "rounds": {"ok": 0, "failed": 0, "unsupported": 0, **ended.done, "kept": ended.recorded},
        "time_s": round(progress.elapsed_s, 1),
        "records": folders,
    }
    _table(store, ended.records, "json" if as_json else format, prices, summary if as_json else None)
    if not quiet:
        ran = ", ".join(f"{n} {status}" for status, n in sorted(ended.done.items())) or "nothing left to run"
        say(f"Rounds: {ran}; {ended.recorded} recorded before. Time: {progress.elapsed}. Records: {', '.join(folders)}")
    if ended.done["failed"]:
        logs = paths.cache() / "logs"
        say(f"Failed rounds are kept as records; run them again with: --retry failed. Logs: {logs}")


@dataclass(frozen=True)
class _Chosen:
    """What a command line says is to be run."""

    file: Path
    suite: Suite
    only: str
    engine: str
    retry_failed: bool


@dataclass(frozen=True)
class _Ended:
    """Rounds run by status, those recorded before, and the records and cells that the table is of."""

    slugs: tuple[str, ...]
    done: Counter[str]
    recorded: int
    records: tuple[Sequence[Result], Sequence[Cell]]


def _here(chosen: _Chosen, prices: Prices, jobs: int, store: Store, progress: Progress) -> _Ended:
    """Run the suite on this machine."""
    from bench.run import records, runner

    planned = _planned(chosen.file, chosen.suite, chosen.only, chosen.engine, fetch=progress.doing)
    prices.require_one_machine(artifact.hardware.slug for artifact in planned.artifacts)  # before hours, not after
    tally = runner.run(planned, store, progress, retry_failed=chosen.retry_failed, at_once=jobs)
    slugs = tuple(dict.fromkeys(artifact.hardware.slug for artifact in planned.artifacts))
    with no_gc():
        current = records.current(planned, store), planned.cells
    return _Ended(slugs, tally.done, tally.recorded, current)


def _on_ray(chosen: _Chosen, address: str, store: Store, progress: Progress) -> _Ended:
    """Run the suite on the nodes of a cluster."""
    from bench.fleet import cluster, driver

    progress.doing("connecting to the cluster")
    with cluster.connected(address, progress.line) as library:
        outcome = driver.run(
            library,
            chosen.suite,
            store,
            progress,
            only=chosen.only,
            engine=chosen.engine,
            retry_failed=chosen.retry_failed,
        )
    if not outcome.cells:
        raise _no_match(chosen.file, chosen.only, chosen.engine)
    return _Ended(outcome.slugs, outcome.done, outcome.recorded, (outcome.results, outcome.cells))


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
    from bench.run import records
    from bench.store import Store

    store = Store(results)
    planned = _plan(suite, "", "", device, 0, overrides, fetch=None) if suite else None
    prices = pricing.read(results, price, api_price, planned.suite if planned else None)
    if planned is None and not results.is_dir():
        raise UserError(f"no records in {results}; run a suite first: python -m bench run configs/demo.yaml")
    with no_gc():
        current = (records.current(planned, store), planned.cells) if planned else None
    _table(store, current, format, prices, with_replicates=replicates)


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
    return _planned(file, _suite(file, device, rounds, overrides), only, engine, fetch=fetch)


@no_gc()
def _planned(file: Path, suite: Suite, only: str, engine: str, *, fetch: Callable[[str], None] | None) -> Plan:
    """The plan. With `fetch`, which reports the progress, a missing model is downloaded."""
    from bench.run import plan as planner

    planned = planner.plan(suite, fetch=fetch is not None, only=only, engine=engine, report=fetch or (lambda _: None))
    if not planned.items:
        raise _no_match(file, only, engine)
    return planned


def _no_match(file: Path, only: str, engine: str) -> UserError:
    filters = " ".join(f"--{k} {v}" for k, v in {"only": only, "engine": engine}.items() if v)
    return UserError(f"{file}: no cell matches {filters}; `python -m bench plan {file}` lists them")


def _suite(file: Path, device: str, rounds: int, overrides: list[str] | None) -> Suite:
    from bench.suite import config

    suite = config.load_suite(file, overrides or ())
    if device:
        suite = replace(suite, devices=(device,))
    return replace(suite, rounds=rounds) if rounds else suite


@no_gc()
def _table(
    store: Store,
    records: tuple[Sequence[Result], Sequence[Cell]] | None,
    format: params.TableFormat,
    prices: Prices,
    summary: Mapping[str, Any] | None = None,
    *,
    with_replicates: bool = False,
) -> None:
    """Print the table of all records, or of these and the cells that are to have some.

    With the `summary` of a run one JSON object has both.
    """
    from bench.publish.tables import build, render
    from bench.publish.tables import price as pricing

    current = (store.all(), None) if records is None else records
    contents = build.build(*current, with_replicates=with_replicates)
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
