"""What starts the suite as a user does, with a cache and results of its own, and scripts in other environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.envs import environment
from bench.process import server

pytest_plugins = ["tests.environments"]
ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]


def json_of(
    python: str | Path,
    script: str,
    *words: str | Path,
    cwd: Path = ROOT,
    timeout: float = 600,
    variables: Mapping[str, str] = {},
) -> Any:
    """The last line that a script below tests/ prints, run by another interpreter."""
    done = subprocess.run(
        [python, ROOT / "tests" / script, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session", autouse=True)
def _no_ceilings() -> None:
    """Runs within tests measure no device; what measures one says so."""
    os.environ.setdefault("LLM_BENCH_CEILING", "off")


@pytest.fixture(scope="session")
def hf_python() -> Path:
    """The interpreter of the hf environment, built in the user's cache if it is not there yet."""
    return _python("hf")


@pytest.fixture(scope="session")
def llamacpp_python() -> Path:
    """The interpreter of the llamacpp environment; llama.cpp is compiled if it is not there yet."""
    return _python("llamacpp")


def _python(name: str) -> Path:
    return Path(environment.ensure(name, lambda text: print(text, file=sys.stderr)).python)  # noqa: T201


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("LLM_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def command(cache: Path, tmp_path: Path) -> Command:
    """Run `python -m MODULE ARGS...` from the checkout's root, with this test's cache and results."""

    def start(module: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        takes = words[0] in ("run", "plan", "table") and "--results" not in words
        results = ["--results", str(tmp_path / "results")] if takes else []
        return subprocess.run(
            [sys.executable, "-m", module, *words, *results],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "COLUMNS": "120", "LLM_BENCH_CACHE": str(cache), **variables},
        )

    return start


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The fake engine's server, started by hand: 20 ms to the first token, 5 to each after it."""
    port = server.free_port()
    options = json.dumps({"port": port, "ttft_s": 0.02, "itl_s": 0.005})
    with subprocess.Popen([sys.executable, "-m", "bench.engines.fake", options], cwd=ROOT) as process:
        time.sleep(1.0)
        yield f"http://127.0.0.1:{port}"
        process.kill()
