"""This machine and its environments: doctor, envs list, envs build, envs lock, envs remove."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.params import Json, Quiet, Tools, output, put

app = typer.Typer()
envs_app = typer.Typer(help="The environments that engines and methods run in.", no_args_is_help=True)
app.add_typer(envs_app, name="envs")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show this machine, its environments, what is missing."""
    from bench.run import doctor as health

    output(health.as_json() if as_json else health.lines())


@envs_app.command(name="list")
def envs_list(as_json: Json = False) -> None:
    """Each environment: ready, an interpreter of yours, or not built."""
    from bench.run import doctor as health

    output(list(health.states()) if as_json else health.environments())


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


@envs_app.command(name="lock")
def envs_lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    index: Annotated[str, typer.Option(metavar="URL", help="The index that tells the hashes.")] = "",
    package: Annotated[
        str, typer.Option("--add", metavar="PACKAGE", help="Add the hash of the file pip here is offered for it.")
    ] = "",
    quiet: Quiet = False,
) -> None:
    """Make the files of hashes again: all, or those of the environments named (`build`: of the build tools)."""
    from bench.envs import lock
    from bench.progress.progress import Progress

    with Progress(quiet=quiet) as progress:
        for name in names or lock.locked_names():
            if package:
                files = lock.add(name, package, progress.doing)
            else:
                files = lock.make(name, index or lock.PYPI, progress.doing)
            for file in files:
                progress.line(f"{name}: {file}")


@envs_app.command(name="remove")
def envs_remove(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete the builds of environments; the next run that needs one builds it again."""
    from bench.envs import environment

    for name in names:
        builds = environment.remove(name)
        put(f"{name}: {f'removed {len(builds)} build(s)' if builds else 'was not built'}")
