"""Words of the command line that several verbs have."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.contract import outside
from bench.progress import stderr

SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file, for example configs/demo.yaml.")]
Only = Annotated[str, typer.Option(metavar="GLOB", help="Only cells whose title, recipe or workload matches.")]
EngineName = Annotated[str, typer.Option("--engine", metavar="NAME", help="Only this engine.")]
Device = Annotated[str, typer.Option(help="cpu, cuda:N, all GPUs, or auto (one of each kind; else the CPU).")]
Rounds = Annotated[int, typer.Option(help="Rounds of each cell; 0 leaves the suite's.", min=0)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the suite.")]
Results = Annotated[Path, typer.Option(help="The folder that records go to.")]
Tools = Annotated[bool, typer.Option("--tools", help="Their source's command-line tools too.")]
Price = Annotated[
    str,
    typer.Option(
        metavar="PRICE", help="Of an hour of the machine, as '2.49 USD one H100 on demand'. Given, not measured."
    ),
]
ApiPrice = Annotated[
    str,
    typer.Option(
        metavar="PRICE", help="Of an API to break even with, per million tokens in/out, as '0.15/0.60 USD its name'."
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress: the result and what went wrong.")]
Json = Annotated[bool, typer.Option("--json", help="All of it, as JSON.")]
On = Annotated[Literal["", "ray"], typer.Option("--on", help="ray: on every node of a Ray cluster (docs/fleet.md).")]
RayAddress = Annotated[str, typer.Option(metavar="HOST:PORT", help="The cluster; else RAY_ADDRESS, else this machine.")]
TableFormat = Literal["terminal", "md", "csv", "json"]
Format = Annotated[TableFormat, typer.Option(help="How to print the table.")]
RESULTS = Path("results")


def width() -> int:
    """Columns of the terminal; 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def bold() -> bool:
    """Whether what standard output goes to can show bold."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def say(text: str) -> None:
    """Print on stderr."""
    stderr.line(text)


def put(text: str) -> None:
    """Print the result."""
    typer.echo(_shown(text))


def _shown(text: str) -> str:
    """Whatever came from outside with it: no secret, and nothing that steers the terminal."""
    return outside.printable_lines(outside.scrubbed(text))


def output(result: str | Iterator[str] | Mapping[str, Any] | Sequence[Any]) -> None:
    """A text as it is, lines as they come, anything else as JSON."""
    from bench.contract import wire

    if isinstance(result, str):
        typer.echo(result, nl=False)
    elif isinstance(result, Iterator):
        for line in result:
            put(line)
    else:
        put(wire.dumps(result, indent=1))
