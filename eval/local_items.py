"""Items of an lm-eval task from a JSONL file on this machine: configs/tasks/*_local.yaml name it.

Unlike lm-eval's own `dataset_path: json`, a broken line is named by its number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

_KEYS = {"query": str, "choices": list, "gold": int}


def rows(file: str = "", data: str = "", **_: Any) -> Mapping[str, Any]:
    """The test split of {query, choices, gold} lines of `file` in the folder `data`, or of `data` itself."""
    if not data:
        raise UserError(f"this task reads a local file: give data: path:FOLDER, where {file} is")
    place = Path(data)
    found = read(place / file if place.is_dir() else place)
    from datasets import Dataset

    return {"test": Dataset.from_list(found)}


def read(path: Path) -> list[dict[str, Any]]:
    """Every item of the file; UserError that names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} cannot be read as a JSONL file of items: {error}") from None
    items = [
        _item(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not items:
        raise UserError(f"{path.name} holds no item")
    return items


def _item(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    wrong = [
        key
        for key, kind in _KEYS.items()
        if not isinstance(found, dict) or not isinstance(found.get(key), kind)
    ]
    if wrong:
        raise UserError(
            f"{where}: {', '.join(wrong)} missing or of another type; an item is {{query, choices, gold}}"
        )
    if not (0 <= found["gold"] < len(found["choices"]) and all(isinstance(c, str) for c in found["choices"])):
        raise UserError(f"{where}: gold {found['gold']} is none of its {len(found['choices'])} choices")
    return {key: found[key] for key in _KEYS}
