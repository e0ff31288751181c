"""Code run in an environment as the suite's worker runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.envs import environment
from tests.conftest import ROOT


def run(env: str, home: Path, code: str, *words: str) -> str:
    """What it prints after RESULT; another interpreter, an empty working folder, the checkout on its path."""
    ready = environment.ensure(env, print)
    scratch = home / "scratch"
    scratch.mkdir(exist_ok=True)
    search = os.pathsep.join([str(Path(ready.python).parent), os.environ["PATH"]])
    done = subprocess.run(
        [ready.python, "-c", code, *words],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, **ready.variables, "PATH": search, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.partition("RESULT")[2]
