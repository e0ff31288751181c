"""Plugin options on a command line.

`--group-size 64 --desc-act` to what the plugin's Options are checked against.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.contract.errors import UserError


def options(words: Sequence[str]) -> dict[str, str | bool]:
    """`--key value`, `--key=value`, `--flag` and `--no-flag` to a mapping.

    Dashes in a key become underscores.
    """
    found: dict[str, str | bool] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"'{word}' is not understood here; options are written --name value")
        key, equals, value = word[2:].partition("=")
        name = key.replace("-", "_")
        if equals:
            found[name] = value
        elif rest and not rest[0].startswith("--"):
            found[name] = rest.pop(0)
        else:
            found[name.removeprefix("no_")] = not name.startswith("no_")
    return found
