"""Copies of a model's folder to be changed, for the scripts that run in an engine's environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def folder(model: Path, how: str) -> Path:
    """A copy called `how` in the working folder: cut, lacking, misshapen, alien, bare; else a whole one."""
    output = Path(shutil.copytree(model, how, ignore=shutil.ignore_patterns("*.py", "*.csv")))
    config = output / "config.json"
    if how == "cut":
        with (output / "model.safetensors").open("r+b") as file:
            file.truncate(1_000_000)
    elif how == "lacking":
        edit(config, num_hidden_layers=7)
    elif how == "misshapen":
        edit(config, vocab_size=4000)
    elif how == "alien":
        edit(config, model_type="zorgon", architectures=["Zorgon"])
    elif how == "bare":
        config.unlink()
    return output


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
