"""The verbs as one command: each calls a room, imported inside it so that --help answers at once."""

from __future__ import annotations

import typer

from bench.cli import catalogue, envs, load, reports, run, share

app = typer.Typer(
    help="Compress a language model, measure what it lost and what it won, and print the table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verbs in (run, reports, share, load, envs, catalogue):
    app.add_typer(verbs.app)
