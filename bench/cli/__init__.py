"""The command line: each verb calls a room.

Rooms are imported inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli import reports
from bench.cli.params import (
    RESULTS,
    Device,
    EngineName,
    Format,
    Json,
    Only,
    Quiet,
    Results,
    Rounds,
    Set,
    SuiteFile,
    TableFormat,
    Tools,
    bold,
    say,
    width,
)
from bench.contract.errors import UserError

if TYPE_CHECKING:
    from bench.run.planned import Plan
    from bench.store import Store

app = typer.Typer(
    help="Compress a language model, measure what it lost and what it won, and print the table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_CODES = (
    "Exit codes: 0 the suite ran to its end, failed rounds being records too; 2 something has to be mended "
    "first, as one sentence says; 130 interrupted (Ctrl-C, SIGTERM), what is finished is kept."
)
envs_app = typer.Typer(help="The environments that engines and methods run in.", no_args_is_help=True)
app.add_typer(envs_app, name="envs")
app.add_typer(reports.app)


@app.command(epilog=_CODES)
def run(
    suite: SuiteFile,
    only: Only = "",
    engine: EngineName = "",
    device: Device = "",
    rounds: Rounds = 0,
    retry: Annotated[Literal["", "failed"], typer.Option(help="Run cells again that failed before.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    overrides: Set = None,
    results: Results = RESULTS,
    format: Format = "terminal",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run what a suite still lacks, then print its table. Running it again does nothing twice.

    With --json stdout has one object: the table, rounds by status, the time, the folders of the records.
    """
    if dry_run:
        plan(suite, only, engine, device, rounds, overrides, results, retry, as_json)
        return
    from bench.progress.progress import Progress
    from bench.publish import headline
    from bench.run import runner
    from bench.store import Store

    if as_json and format not in ("terminal", "json"):
        raise UserError(f"--json prints the table as JSON, --format {format} does not; leave one of them away")
    with Progress(quiet=quiet, figure=headline.figure) as progress:
        made = _plan(suite, only, engine, device, rounds, overrides, fetch=progress.doing)
        store = Store(results)
        tally = runner.run(made, store, progress, retry_failed=retry == "failed")
    where, spent_s = _where(results, made), progress.spent_s
    _table(
        store,
        made,
        "json" if as_json else format,
        {
            "rounds": {"ok": 0, "failed": 0, "unsupported": 0, **tally.done, "kept": tally.kept},
            "time_s": round(spent_s, 1),
            "records": where,
        }
        if as_json
        else None,
    )
    if not quiet:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(tally.done.items()))
        ran = f"{counts or 'nothing left to run'}; {tally.kept} recorded before"
        say(f"Rounds: {ran}. Time: {progress.spent}. Records: {', '.join(where)}")
    if tally.done["failed"]:
        say(f"Failed rounds are kept as records; run them again with: --retry failed. Log: {_log()}")


@app.command()
def plan(
    suite: SuiteFile,
    only: Only = "",
    engine: EngineName = "",
    device: Device = "",
    rounds: Rounds = 0,
    overrides: Set = None,
    results: Results = RESULTS,
    retry: Annotated[Literal["", "failed"], typer.Option(help="Count failed rounds as to run.")] = "",
    as_json: Json = False,
) -> None:
    """Show each cell of a suite: recorded, to run, or why it cannot run. Nothing is built, fetched or run."""
    from bench.publish import plans
    from bench.run import runner
    from bench.store import Store

    made = _plan(suite, only, engine, device, rounds, overrides, fetch=None)
    todo = runner.pending(made, Store(results), retry_failed=retry == "failed")
    if as_json:
        typer.echo(plans.as_json(made.suite.name, made.items, todo, made.unpaired))
        return
    for line in plans.lines(made.items, todo, made.unpaired):
        typer.echo(line)


@app.command()
def table(
    suite: Annotated[Path | None, typer.Argument(metavar="[SUITE]", help="Only this suite's cells.")] = None,
    format: Format = "terminal",
    results: Results = RESULTS,
    overrides: Set = None,
    device: Device = "",
) -> None:
    """Print the table of a suite, or of all records."""
    from bench.store import Store

    store = Store(results)
    made = _plan(suite, "", "", device, 0, overrides, fetch=None) if suite else None
    if made is None and not results.is_dir():
        raise UserError(f"no records in {results}; run a suite first: python -m bench run configs/demo.yaml")
    _table(store, made, format)


@app.command()
def load(
    url: Annotated[str, typer.Argument(help="A server's root, as http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight (1 unless given).")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second, whatever is in flight.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="FILE", help="Replay this trace's requests.")] = None,
    sweep: Annotated[
        Literal["concurrency", "rate"] | None, typer.Option(help="Double it until the output rises no more.")
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="Find the highest rate within --slo-….")] = False,
    arrivals: Annotated[
        Literal["poisson", "constant", "gamma", "ramp"] | None, typer.Option(help="Poisson unless given.")
    ] = None,
    burstiness: Annotated[float | None, typer.Option(help="Gamma's shape; below 1 is burstier.")] = None,
    speed: Annotated[float | None, typer.Option(help="Replay a trace so many times as fast.")] = None,
    turns: Annotated[int | None, typer.Option(help="Turns of each conversation, its prompt growing.")] = None,
    requests: Annotated[int, typer.Option(help="Requests measured, after warm-up.", min=1)] = 100,
    at_most: Annotated[float | None, typer.Option(help="In flight: end after so many seconds.")] = None,
    window: Annotated[float | None, typer.Option(help="At a rate: requests for so many seconds at least.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="128 unless given.")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="64 unless given.")] = None,
    lengths: Annotated[
        Literal["fixed", "uniform", "lognormal"] | None, typer.Option(help="Fixed unless given.")
    ] = None,
    spread: Annotated[float | None, typer.Option(help="Uniform: ± this share; lognormal: std / mean.")] = None,
    slo_ttft: Annotated[float, typer.Option(help="Seconds to the first token, for goodput.", min=0)] = 0.0,
    slo_tpot: Annotated[float, typer.Option(help="Seconds per token after it, for goodput.", min=0)] = 0.0,
    vocab_size: Annotated[int, typer.Option(help="Send token ids below it; 0: text.")] = 0,
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json: text of exactly as many tokens.")] = None,
    context: Annotated[int, typer.Option(help="The model's; longer requests of a trace are cut.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="The chat API instead of completions.")] = False,
    stop: Annotated[bool, typer.Option("--allow-stop", help="The model may end early.")] = False,
    extra: Annotated[str, typer.Option(metavar="JSON", help="Body fields; null removes one.")] = "{}",
    key_variable: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "",
    seed: Annotated[int, typer.Option(help="Of prompts, lengths and arrivals.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole load.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Load an OpenAI-compatible server that runs already, and say how it did."""
    from bench.load import build
    from bench.load.job import Endpoint
    from bench.run import standalone
    from bench.suite import config

    kind = "open" if rate is not None else "closed"
    kind = "search" if search else "sweep" if sweep else "trace" if trace is not None else kind
    given = {
        "kind": kind,
        "concurrency": concurrency,
        "rate_per_s": rate,
        "path": trace,
        "over": sweep,
        "arrivals": arrivals,
        "burstiness": burstiness,
        "speed": speed,
        "turns": turns,
        "requests": requests,
        "window_s": window,
        "at_most_s": at_most,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "lengths": lengths,
        "spread": spread,
        "slo": {"ttft_s": slo_ttft, "tpot_s": slo_tpot},
    }
    asked = config.workload({key: value for key, value in given.items() if value is not None})
    body = {"ignore_eos": None} if stop else {}
    endpoint = Endpoint(
        url,
        model,
        api="chat" if chat else "completions",
        key_variable=key_variable,
        extra={**body, **config.body_fields(extra)},
        exact_length=not stop,
    )
    target = build.Target(endpoint, vocab_size, tokenizer, context)
    found = standalone.measure(asked, target, seed=seed, timeout_s=timeout)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(standalone.lines(asked.title, found)))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show this machine, its environments, what is missing."""
    from bench.run import doctor as checkup

    _print(checkup.as_json() if as_json else checkup.lines())


@app.command(name="list")
def list_(
    what: Annotated[Literal["engines", "methods", "tasks", "suites", "recipes", "shapes"], typer.Argument()],
    as_json: Json = False,
) -> None:
    """List what there is, a name and its options a line."""
    from bench.suite import catalogue

    _print(catalogue.listed(what) if as_json else catalogue.lines(what))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    from bench.suite import schema as suite_schema

    typer.echo(json.dumps(suite_schema.suite_schema(), indent=2))


@envs_app.command(name="list")
def envs_list(as_json: Json = False) -> None:
    """Each environment: ready, an interpreter of yours, or not built."""
    from bench.run import doctor as checkup

    _print(list(checkup.states()) if as_json else checkup.environments())


@envs_app.command(name="build")
def envs_build(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")], tools: Tools = False, quiet: Quiet = False
) -> None:
    """Build environments now, so that a run need not."""
    from bench.envs import environment
    from bench.progress.progress import Progress

    with Progress(quiet=quiet) as progress:
        for name in names:
            ready = environment.ensure(name, progress.doing)
            progress.line(f"{name}: {ready.python}")
            if tools:
                progress.line(f"{name}: tools in {environment.tools(name, progress.doing)}")


@envs_app.command(name="remove")
def envs_remove(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete the builds of environments; the next run that needs one builds it again."""
    from bench.envs import environment

    for name in names:
        gone = environment.remove(name)
        typer.echo(f"{name}: {f'removed {len(gone)} build(s)' if gone else 'was not built'}")


def main() -> None:
    """Run the command line."""
    guarded(app)


def guarded(command: Callable[[], Any]) -> None:
    """Run a command; what the user can mend is one sentence on stderr and exit code 2.

    SIGTERM stops it as Ctrl-C does (exit code 130), so that workers are ended and scratch folders cleared.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except UserError as error:
        _stop(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing more
        sys.exit(0)
    except PermissionError as error:
        _stop(f"no permission for {error.filename}; choose another --results folder or LLM_BENCH_CACHE")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        what = "is read-only" if error.errno == errno.EROFS else "has no space left"
        _stop(
            f"the disk {what}{f' ({error.filename})' if error.filename else ''}; free some, or move the "
            "cache with LLM_BENCH_CACHE; what was recorded is kept"
        )


def _stop(sentence: str) -> None:
    say(f"error: {sentence}")
    sys.exit(2)


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
    """The plan; a model that is not here is downloaded where `fetch` is there to hear of it."""
    from dataclasses import replace

    from bench.run import plan as planner
    from bench.suite import config

    suite = config.load_suite(file, overrides or ())
    if device:
        suite = replace(suite, devices=(device,))
    if rounds:
        suite = replace(suite, rounds=rounds)
    made = planner.plan(suite, fetch=fetch is not None, only=only, engine=engine, report=fetch or (lambda _: None))
    if not made.items:
        asked = " ".join(f"--{k} {v}" for k, v in {"only": only, "engine": engine}.items() if v)
        raise UserError(f"{file}: no cell matches {asked}; `python -m bench plan {file}` lists them")
    return made


def _print(found: Iterator[str] | Mapping[str, Any] | Sequence[Any]) -> None:
    """Lines as they come, anything else as JSON."""
    from bench.contract import wire

    if isinstance(found, Iterator):
        for line in found:
            typer.echo(line)
    else:
        typer.echo(wire.dumps(found, indent=1))


def _table(store: Store, made: Plan | None, format: TableFormat, ran: Mapping[str, Any] | None = None) -> None:
    """Print the table; of a program's interest also what `ran`, as one JSON object with it."""
    from bench.publish.tables import build
    from bench.run import runner

    if made is None:
        results, expected = list(store.all()), None
    else:
        expected = [runner.public(cell) for cell in made.cells]
        results = runner.records(made, store)
    text = build.render(build.build(results, expected), format, width(), bold=bold())
    typer.echo(text if ran is None else json.dumps({**ran, "table": json.loads(text)}, indent=1))
    for problem in store.problems:
        say(f"warning: {problem}")


def _where(results: Path, made: Plan) -> list[str]:
    slugs = dict.fromkeys(m.hardware.slug for m in made.made)
    return [str(results / slug / made.suite.name) for slug in slugs]


def _log() -> Path:
    from bench import paths

    return paths.cache() / "logs" / "last-worker.log"
