"""Plugin options on a command line: `--group-size 64 --desc-act` to a mapping."""

from __future__ import annotations

from collections.abc import Sequence

from bench import yaml
from bench.contract.errors import UserError
from bench.contract.spec import Scalar


def options(arguments: Sequence[str]) -> dict[str, Scalar]:
    """`--key value`, `--key=value`, `--flag` and `--no-flag` to a mapping; dashes become underscores."""
    options: dict[str, Scalar] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise UserError(f"unexpected argument '{argument}': expected --name value")
        key, equals, value = argument[2:].partition("=")
        name = key.replace("-", "_")
        if equals:
            options[name] = _typed(value)
        elif rest and not rest[0].startswith("--"):
            options[name] = _typed(rest.pop(0))
        else:
            options[name.removeprefix("no_")] = not name.startswith("no_")
    return options


def _typed(text: str) -> Scalar:
    """The value as a suite file has it: 4 is a number, true a boolean, stdlib a string."""
    try:
        value = yaml.load(text)
    except UserError:
        return text
    return value if isinstance(value, str | int | float | bool) else text
