"""Loading a model folder, for engines: what is missing from it, and why a library refused it."""

from __future__ import annotations

from pathlib import Path

from bench.contract.errors import UserError


def check_folder(folder: Path) -> None:
    """UserError for a missing file that a library would look for elsewhere, or for pickled weights."""
    if not (folder / "config.json").is_file():
        raise UserError("the artifact has no config.json: it is no Transformers model folder")
    if not any(folder.glob("*.safetensors")):
        raise UserError("the artifact has no .safetensors file: convert it, pickled checkpoints are refused")


def load_error(library: str, error: Exception, *folders: Path) -> UserError:
    """The first sentence of a library's error, without pydantic's headline and this machine's paths."""
    text = str(error)
    for folder in folders:
        text = text.replace(str(folder), "its folder")
    lines = [line.strip().removeprefix("Value error, ") for line in text.splitlines()]
    lines = [line for line in lines if line and " validation error" not in line]
    reason = (lines[0].split(". ")[0] if lines else type(error).__name__)[:200]
    return UserError(f"{library} cannot load the artifact: {reason}")
