"""Which environments the tests may use: what is left out is told, and what is used undeclared fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bench.envs import environment
from tests.conftest import ROOT

_INI = "[pytest]\nmarkers =\n    needs(*names): environments\n    clock: alone\n    engine: real\n    needs_extra: x\n"
_TESTS = """
import subprocess, sys
from pathlib import Path
import pytest
from bench.envs import environment

def test_core():
    assert environment.find("core")

@pytest.mark.needs("hf")
def test_declared():
    assert environment.ensure("hf", print).versions == {"numpy": "1"}

def test_undeclared():
    with pytest.raises(Exception):
        environment.ensure("hf", print)

def test_a_process_below():
    subprocess.run([sys.executable, "-m", "bench", "envs", "build", "hf"], check=False)

def test_a_build():
    subprocess.run([sys.executable, "-m", "bench", "envs", "build", "onnx"], check=False)

@pytest.mark.needs("vllm", "lm_eval")
def test_of_another():
    raise AssertionError
"""
_ENGINES = """
import pytest
from bench.envs import environment

pytestmark = pytest.mark.engine

def test_declares_nothing():
    assert environment.ensure("hf", print)

@pytest.mark.needs
def test_needs_none():
    pass
"""
_EXTRAS = """
import pytest

@pytest.mark.needs_extra("fleet", "a_package_that_nobody_has")
def test_absent():
    raise AssertionError

@pytest.mark.needs_extra("fleet", "pytest")
def test_present():
    pass
"""
_CLOCKS = """
import time
from pathlib import Path
import pytest
log = Path(__file__).with_name("log")

def write(word):
    with log.open("a") as file:
        file.write(word + "\\n")

@pytest.mark.parametrize("n", range(3))
def test_beside(n):
    write("beside begins")
    time.sleep(0.2)
    write("beside ends")

@pytest.mark.clock
@pytest.mark.parametrize("n", range(3))
def test_alone(n):
    write("alone begins")
    time.sleep(0.2)
    write("alone ends")
"""
Pytest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Pytest:
    """Pytest with the plugin, on tests written to a file, with a cache that has one environment: hf."""
    whole = tmp_path / "whole"
    (whole / "bin").mkdir(parents=True)
    (whole / "bin" / "python").symlink_to(sys.executable)
    (whole / "READY.json").write_text('{"versions": {"numpy": "1"}}')
    (cache / "envs").mkdir()
    whole.rename(environment.spec("hf").folder)

    def start(files: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        for name, text in {**files, "pytest.ini": _INI}.items():
            (tmp_path / name).write_text(text)
        chosen = [str(tmp_path / name) for name in files]
        options = ["-c", str(tmp_path / "pytest.ini"), "-p", "tests.environments", "-p", "no:cacheprovider"]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TESTS_", "PYTEST_"))}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", *options, *words, *chosen],
            cwd=ROOT,
            env={**env, "LLM_BENCH_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return start


def test_what_is_used_and_not_declared_fails_the_test(run: Pytest, cache: Path) -> None:
    """In its own process, in one below it, by a build; also where the test expects an error."""
    output = run({"test_mine.py": _TESTS}).stdout

    for name, env in {"undeclared": "hf", "a_process_below": "hf", "a_build": "onnx"}.items():
        assert f"test_mine.py::test_{name}" in output.partition("short test summary")[2].partition("FAILED")[2]
        assert f'the test uses the environment {env} without declaring it: add @pytest.mark.needs("{env}")' in output
    assert "3 passed" not in output
    assert "4 failed, 2 passed" in output
    assert [folder.name for folder in (cache / "envs").iterdir() if folder.is_dir()] == [
        environment.spec("hf").folder.name
    ]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_is_left_out_is_told_in_the_last_line(run: Pytest, processes: str) -> None:
    """By the names of the environments, with the command that runs it; in one process or in several."""
    two = _TESTS.partition("def test_undeclared")[0] + "@pytest.mark.needs" + _TESTS.rpartition("@pytest.mark.needs")[2]
    done = run({"test_mine.py": two}, "--environments", "hf", "-n", processes)

    assert done.returncode == 0, done.stdout
    assert "environments: hf; what is missing of them is built beside the first tests" in done.stdout
    assert "2 passed" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "1 tests were left out, which need lm_eval, vllm: `make test-all` runs them too"
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_needs_an_extra_that_is_not_installed_is_told_too(run: Pytest, processes: str) -> None:
    """In the last line, by the whole run too, with what installs it; without the option each such test is skipped."""
    whole = run({"test_mine.py": _EXTRAS}, "--environments", "all", "-n", processes)
    plain = run({"test_mine.py": _EXTRAS}, "-n", processes)

    assert "1 passed" in whole.stdout
    assert whole.stdout.splitlines()[-1] == (
        "1 tests were left out, which need llm-bench[fleet]: pip install -e '.[fleet]', then `make test-all`"
    )
    assert "1 passed, 1 skipped" in plain.stdout
    assert "llm-bench[fleet] is not installed: pip install -e '.[fleet]'" in plain.stdout


def test_what_runs_an_engine_and_declares_nothing_runs_with_all_others_alone(run: Pytest) -> None:
    """It may use any environment, so that no ring but the whole is its own; a bare `needs` says that it uses none."""
    inner, whole = (run({"test_mine.py": _ENGINES}, "--environments", name).stdout for name in ("hf", "all"))

    assert inner.splitlines()[-1] == (
        "1 tests were left out, which need some that they do not declare: `make test-all` runs them too"
    )
    assert "1 passed" in inner
    assert "2 passed" in whole


def test_what_reads_a_clock_has_no_test_beside_it(run: Pytest, tmp_path: Path) -> None:
    """In two processes: between its begin and its end no other begins or ends."""
    assert run({"test_one.py": _CLOCKS, "test_two.py": _CLOCKS}, "-n", "2").returncode == 0

    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 24
    for line, after in pairwise(lines):
        assert line != "alone begins" or after == "alone ends"


def test_an_environment_that_does_not_exist_is_named(run: Pytest) -> None:
    """In the option, and in a test's declaration."""
    wrong = 'import pytest\n@pytest.mark.needs("vlm")\ndef test_it():\n    pass\n'

    assert "--environments: unknown environment hg (known: auto_gptq," in run({}, "--environments", "hg").stderr
    done = run({"test_mine.py": wrong}, "--environments", "all")
    assert "needs 'vlm', which is no environment (auto_gptq," in done.stdout + done.stderr
