"""Verbs that take records to other programs and machines, and in from them: export, bundle, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.params import RESULTS, Json, Results, output, put
from bench.contract.cycles import no_gc

app = typer.Typer()
_Device = Annotated[
    str, typer.Option(metavar="GLOB", help="Only these results folders; imported ones where it names them.")
]
_Suites = Annotated[list[str] | None, typer.Option("--suite", metavar="GLOB", help="Only these suites.")]


@app.command()
def export(
    to: Annotated[Literal["parquet", "csv", "jsonl", "mlflow"], typer.Option(help="The format, or MLflow.")],
    out: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The file; of MLflow a folder or a server's address.")
    ] = "",
    suite: _Suites = None,
    device: _Device = "",
    results: Results = RESULTS,
) -> None:
    """Write records for other programs, a row a round: Parquet, CSV, JSON lines, or runs of MLflow."""
    from bench.share import export as exporting
    from bench.share import tracking
    from bench.share.selection import selected
    from bench.store import Store

    with no_gc():
        records = selected(Store(results), suite or (), device)
    if to == "mlflow":
        logged, known = tracking.log(records, out)
        put(f"runs logged: {logged}" + (f"; there already: {known}" if known else ""))
    else:
        file = Path(out or f"records.{to}")
        put(f"{file}: {exporting.write(records, to, file)} rows")


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, as mine.zip.")],
    suite: _Suites = None,
    device: _Device = "",
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Put records, their machine and the pins of their environments into one file, with a hash of each part."""
    from bench.share import bundle as bundles
    from bench.store import Store

    with no_gc():
        manifest = bundles.write(Store(results), out, suite or (), device)
    if as_json:
        output({"file": str(out), "manifest": manifest})
    else:
        put(f"{out}: {manifest.records} records of {', '.join(manifest.suites)}; id {manifest.id}")


@app.command(name="import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="A bundle; or JSON of guidellm, vllm bench serve, llama-bench, lm-eval."
        ),
    ],
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Name the device foreign-NAME; else after what is imported.")
    ] = "",
    suite: Annotated[str, typer.Option(help="Of other tools' files: the suite to show them as.")] = "",
    model: Annotated[str, typer.Option(help="Likewise the model.")] = "",
    recipe: Annotated[str, typer.Option(help="Likewise the recipe, which most tools do not know.")] = "",
    engine: Annotated[str, typer.Option(help="Likewise the engine.")] = "",
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Take in another machine's bundle, verified, or other tools' results, as devices foreign-… apart from yours.

    What is imported is in tables and on the page; other verbs leave it out unless --device, or a selector, names it.
    Remove the folder to undo it.
    """
    from bench.share import imports
    from bench.share.tools import Names

    with no_gc():
        imported = imports.import_files(files, results, name, Names(suite, model, recipe, engine))
    if as_json:
        output([{"folder": str(each.folder), **vars(each.source)} for each in imported])
        return
    for each in imported:
        put(f"{each.folder}: {each.source.records} records of {', '.join(each.source.files)}")
        for note in each.source.notes:
            put(f"  {note}")
