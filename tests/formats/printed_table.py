"""Tables that transformers' own classes give: JSON with a line for each of them, so that a diff tells what moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def show(key: str, entries: Mapping[str, Any], version: str, **head: Any) -> None:
    """Print an object of `version` and `head`, each on a line, and of `key` with a line an entry."""
    lines = [f'"{name}": {json.dumps(entry, sort_keys=True)}' for name, entry in entries.items()]
    heads = [
        f' "{name}": {json.dumps(value, sort_keys=True)},' for name, value in {"transformers": version, **head}.items()
    ]
    print("\n".join(["{", *heads, f' "{key}": {{']))  # noqa: T201
    print("  " + ",\n  ".join(lines) + "\n }\n}")  # noqa: T201
