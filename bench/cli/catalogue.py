"""What a suite can name: list, schema."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from bench.cli.params import Json, output

app = typer.Typer()


@app.command(name="list")
def list_(
    what: Annotated[
        Literal["engines", "methods", "tasks", "suites", "recipes", "shapes", "architectures"], typer.Argument()
    ],
    as_json: Json = False,
) -> None:
    """List what there is, a name and its options a line."""
    from bench.suite import catalogue

    output(catalogue.listed(what) if as_json else catalogue.lines(what))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    from bench.suite import schema as suite_schema

    typer.echo(json.dumps(suite_schema.suite_schema(), indent=2))
