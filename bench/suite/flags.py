"""Plugin options on a command line.

`--group-size 64 --desc-act` to what the plugin's Options are checked against.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from bench.contract.errors import UserError
from bench.contract.spec import Scalar
from bench.suite import yaml as plain_yaml


def options(words: Sequence[str]) -> dict[str, Scalar]:
    """`--key value`, `--key=value`, `--flag` and `--no-flag` to a mapping.

    Dashes in a key become underscores.
    """
    found: dict[str, Scalar] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"'{word}' is not understood here; options are written --name value")
        key, equals, value = word[2:].partition("=")
        name = key.replace("-", "_")
        if equals:
            found[name] = _typed(value)
        elif rest and not rest[0].startswith("--"):
            found[name] = _typed(rest.pop(0))
        else:
            found[name.removeprefix("no_")] = not name.startswith("no_")
    return found


def _typed(word: str) -> Scalar:
    """The value as a suite file would read it: 4 is a number, true a truth value, stdlib a word."""
    try:
        value = plain_yaml.load(word)
    except yaml.YAMLError:
        return word
    return value if isinstance(value, str | int | float | bool) else word
