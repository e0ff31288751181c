"""Several environments by one command: each is built, whatever becomes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli import env_builds
from bench.envs import pins
from tests.conftest import Command
from tests.envs.index import Index


def test_those_of_the_most_suites_are_built_first() -> None:
    """What `--all` builds: the two that nearly every suite needs, then the others, and none that no suite names."""
    names = env_builds.of_suites()

    assert set(names[:2]) == {"hf", "llamacpp"}
    assert len(names) == len(set(names))
    assert "tensorrt_llm" not in names


def test_names_or_all_are_given(command: Command) -> None:
    """Neither, or both, is one sentence."""
    for words in ((), ("hf", "--all")):
        done = command("bench", "envs", "build", *words)
        assert done.returncode == 2
        assert done.stderr == (
            "error: name the environments to build, or give --all (python -m bench envs list shows them)\n"
        )
    unknown = command("bench", "envs", "build", "hg")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: unknown environment 'hg' (known: ")


@pytest.mark.slow
def test_one_that_cannot_be_built_hinders_no_other(index: Index, envs: Path, command: Command) -> None:
    """The other is ready; the end says which failed, and why."""
    entries = {("wanted", "1.0"): frozenset({index.wheel("wanted")}), ("needed", "1.0"): frozenset({64 * "a"})}
    (envs / "hashes" / "tiny.txt").write_text(pins.text("of this test", entries, ()))
    (envs / "wrong.yaml").write_text("requirements: [absent==1.0]\nvariables: {}\nrecords: []\n")
    (envs / "wrong.txt").write_text("absent==1.0\n")
    absent = {("absent", "1.0"): frozenset({64 * "a"})}
    (envs / "hashes" / "wrong.txt").write_text(pins.text("of this test", absent, ()))
    done = command("bench", "envs", "build", "wrong", "tiny")

    assert done.returncode == 2
    assert "tiny: /" in done.stderr
    assert "failed: environment 'wrong' could not be built (" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: 1 of 2 environments could not be built: wrong"
