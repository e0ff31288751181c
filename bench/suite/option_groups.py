"""Options that belong together may be given as one mapping: `mixed: {bits_per_weight: 4.5, choices: [q4_k, q6_k]}`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contract.errors import UserError

SHOWN = 80  # characters of a wrong value
_GROUPS = {"speculative": "{method: ngram, tokens: 4}", "mixed": "{bits_per_weight: 4.5, choices: [q4_k, q6_k]}"}


def flat(kind: type, given: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The options of a dataclass with those of a group by their own names; UserError for one that the group has not.

    A list in a group becomes the words that an option has, with commas between.
    """
    options = dict(given)
    for group, example in _GROUPS.items():
        prefix = f"{group}_"
        names = sorted(f.name.removeprefix(prefix) for f in dataclasses.fields(kind) if f.name.startswith(prefix))
        if group not in options or not names:
            continue
        value = options.pop(group)
        if not isinstance(value, dict):
            raise UserError(f"{where}.{group}: expected {group}: {example}, got {repr(value)[:SHOWN]}")
        known_keys(f"{where}.{group}", value, names)
        options |= {prefix + key: _joined(each) for key, each in value.items()}
    return options


def known_keys(where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    """UserError for a key that is not known, with the nearest one, or all."""
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(known)})"
            raise UserError(f"{where + '.' if where else ''}{key}: unknown key{hint}")


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
