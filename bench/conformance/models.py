"""A tiny model of an architecture: random weights that Transformers draws and saves, and the demo model's tokenizer.

Each is built once, in the cache, by everything it depends on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.envs import environment
from bench.formats import folder as model_folder
from bench.models import architectures
from bench.process import child, supervisor
from bench.process.cache import build_once

_WEIGHTS = "quantize.random_weights"
_VERSION = 1  # of how the weights are drawn
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_LIMIT_S = 600.0


def build(name: str, report: Report) -> Path:
    """The folder of the model, built if it is not there; UserError where Transformers cannot build it."""
    digest = wire.digest([architectures.settings(name), _VERSION, environment.identity("hf")])
    folder = paths.cache() / "architectures" / "models" / digest  # llama.cpp wants Phi-3's tokens in a model named so

    def find() -> Path | None:
        return folder if (folder / model_folder.SINGLE).is_file() else None

    return build_once(folder, find, lambda part: _write(name, part, report), report)


def _write(name: str, part: Path, report: Report) -> None:
    report(f"{name}: drawing its weights")
    env = environment.ensure("hf", report)
    config = part / "config"
    config.mkdir()
    (config / model_folder.CONFIG).write_text(json.dumps(architectures.settings(name), indent=2) + "\n")
    argv = [env.python, "-m", _WEIGHTS, str(config), str(part)]
    variables = {**supervisor.variables(env, "cpu"), "HF_HUB_OFFLINE": "1"}  # Mamba looks for kernels there
    with child.logged(argv, "worker", cwd=part, variables=variables) as (process, log):
        try:
            code = process.wait(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{name}: its weights were not drawn within {_LIMIT_S:g} s; run the command again"
            ) from None
    if code:
        raise UserError(f"{name}: Transformers cannot build this architecture{log.last_clause}")
    shutil.rmtree(config)
    for file in _TOKENIZER_FILES:
        shutil.copy(architectures.TOKENIZER / file, part)
