from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.run import envs, paths


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """The files of configs/envs are read once a process: read them anew after each test."""
    yield
    envs.spec.cache_clear()


def _spec(*requirements: str) -> envs.EnvSpec:
    return envs.EnvSpec("tiny", requirements, {"MINE": "1"}, ("pip",), "")


def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requirement: str) -> envs.EnvSpec:
    """A configs folder with one environment, `tiny`, that wants one requirement."""
    folder = tmp_path / "configs" / "envs"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(
        f"requirements: [{requirement}]\nvariables: {{MINE: '1'}}\nrecords: [pip]\n"
    )
    monkeypatch.setattr(paths, "CONFIGS", folder.parent)
    envs.spec.cache_clear()
    return envs.spec("tiny")


def test_an_environment_is_built_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venv is made in the cache and marked ready last; asked again, nothing is built."""
    said: list[str] = []
    what = _configured(tmp_path, monkeypatch, "pip")
    first = envs.ensure("tiny", said.append)
    built = list(said)
    again = envs.ensure("tiny", said.append)

    assert Path(first.python).is_relative_to(cache)
    assert first == again
    assert first.versions["pip"][0].isdigit()
    assert "ready in" in built[-1]
    assert said == built
    (what.folder / "READY.json").unlink()
    assert envs.find("tiny") is None
    assert envs.remove("tiny") == [what.folder]


@pytest.mark.usefixtures("cache")
def test_a_build_that_fails_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirement that cannot be had is one sentence that names the log, and nothing counts as ready."""
    _configured(tmp_path, monkeypatch, "./no-such-folder-here")

    with pytest.raises(UserError, match="environment 'tiny' could not be built"):
        envs.ensure("tiny", print)
    assert envs.find("tiny") is None


@pytest.mark.usefixtures("cache")
def test_an_interpreter_of_ones_own_is_used_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLM_BENCH_PYTHON_<NAME> needs no build, its versions are probed, and they make its identity."""
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", sys.executable)
    mine = envs.ensure("hf", print)

    assert mine.python == sys.executable
    assert mine.versions["torch"] == "not installed"
    assert mine.identity != envs.spec("hf").digest
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", "/no/such/python")
    with pytest.raises(UserError, match="is '/no/such/python', which is no executable file"):
        envs.find("hf")


def test_pins_name_the_build() -> None:
    """Another pin or requirement is another folder: an old build is never taken for the new one."""
    base = _spec("a==1")

    assert _spec("a==2").digest != base.digest
    assert envs.EnvSpec("tiny", ("a==1",), {}, (), "b==3").digest != base.digest
