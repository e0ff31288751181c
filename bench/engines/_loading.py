"""Why a library refused to load an artifact, for engines."""

from __future__ import annotations

import re
from pathlib import Path

from bench.contract.errors import UserError


def load_error(library: str, error: Exception, *folders: Path) -> UserError:
    """The first sentence of a library's error, without pydantic's headline and this machine's paths."""
    text = str(error)
    for folder in folders:
        text = re.sub(rf"((in )?(the )?(directory|folder|path) )?['\"]?{re.escape(str(folder))}['\"]?", _place, text)
    lines = [line.strip().removeprefix("Value error, ") for line in text.splitlines()]
    lines = [line for line in lines if line and " validation error" not in line]
    reason = (lines[0].split(". ")[0] if lines else type(error).__name__)[:200]
    return UserError(f"{library} cannot load the artifact: {reason}")


def _place(match: re.Match[str]) -> str:
    return "in the artifact's folder" if match[2] else "the artifact's folder"
