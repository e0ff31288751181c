"""What environments take on disk, and the builds that no suite needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.envs import disk, environment
from bench.suite import environments
from tests.conftest import Command

_KIB = 1024


def _folder(tmp_path: Path, path: Path, kib: int) -> Path:
    """A folder with one file of so many KiB, made elsewhere and moved there."""
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "file").write_bytes(kib * _KIB * b"x")
    path.parent.mkdir(exist_ok=True)
    return draft.rename(path)


def test_a_file_that_several_link_to_counts_once(tmp_path: Path) -> None:
    """Of two folders with one file in common; what removing one frees is what it alone has."""
    one, two = _folder(tmp_path, tmp_path / "a" / "one", 512), _folder(tmp_path, tmp_path / "a" / "two", 256)
    (two / "shared").hardlink_to(one / "file")

    assert disk.size_bytes(two) == disk.size_bytes(one, two) == 768 * _KIB
    assert disk.freed_bytes(two) == 256 * _KIB
    assert disk.freed_bytes(one, two) == 768 * _KIB


def test_suites_say_which_environments_they_need() -> None:
    """By their engines, methods, tasks, and the engine hf's other environment for compressed-tensors."""
    needed = environments.needed()

    assert "demo" in needed["hf"]
    assert "demo" in needed["llamacpp"]
    assert "serving" in needed["vllm"]
    assert "libraries" in needed["llmcompressor"]
    assert "quality" in needed["lm_eval"]
    assert "core" not in needed
    assert set(needed) < set(environment.names())


def test_prune_removes_what_no_suite_needs(cache: Path, command: Command, tmp_path: Path) -> None:
    """An older build, an environment of no suite; sizes first, nothing without --yes. Today's build stays."""
    today = _folder(tmp_path, environment.spec("openvino").folder, 64)
    older = _folder(tmp_path, cache / "envs" / "openvino-0123456789ab", 2048)
    other = _folder(tmp_path, cache / "envs" / "tensorrt_llm-0123456789ab", 1024)
    source = _folder(tmp_path, cache / "built" / "llama-cpp-python-0123456789ab", 1024)
    first = command("bench", "envs", "prune")

    assert first.returncode == 2
    assert first.stdout.splitlines() == [
        "llama-cpp-python-0123456789ab: 1 MiB, of another version, Python or machine",
        "openvino-0123456789ab: 2 MiB, of another version, Python or machine",
        "tensorrt_llm-0123456789ab: 1 MiB, no suite needs it",
        "together 4 MiB, and downloads kept for builds",
    ]
    assert "nothing was removed: add --yes to remove these" in first.stderr
    assert older.is_dir()

    second = command("bench", "envs", "prune", "--yes")
    assert second.returncode == 0, second.stderr
    assert "removed 3 build(s), and 0 MiB of downloads" in second.stdout
    assert [folder.is_dir() for folder in (today, older, other, source)] == [True, False, False, False]
    assert "nothing to remove" in command("bench", "envs", "prune", "--yes").stdout


def test_a_build_that_runs_is_not_removed(cache: Path, command: Command, tmp_path: Path) -> None:
    """A process of it is named by the build, which stays."""
    older = _folder(tmp_path, cache / "envs" / "other-0123456789ab", 4)
    (older / "python").symlink_to(sys.executable)
    with subprocess.Popen([older / "python", "-c", "input()"], stdin=subprocess.PIPE) as process:
        done = command("bench", "envs", "prune", "--yes")
        process.communicate(b"\n")

    assert done.returncode == 2
    assert "other-0123456789ab is in use by a process: end it, then run the command again" in done.stderr
    assert older.is_dir()


def test_the_list_has_sizes(cache: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each build, and of all together; none of an interpreter of the user's."""
    folder = tmp_path / "mine" / "envs"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("requirements: []\nvariables: {}\nrecords: [pip]\n")
    monkeypatch.setenv("LLM_BENCH_PLUGINS", str(folder.parent))
    environment.spec.cache_clear()
    built = _folder(tmp_path, environment.spec("tiny").folder, 3000)
    environment.spec.cache_clear()
    (built / "READY.json").write_text('{"versions": {"pip": "1"}}')
    (state,) = [s for s in json.loads(command("bench", "envs", "list", "--json").stdout) if s["name"] == "tiny"]
    listed = command("bench", "envs", "list").stdout

    assert state["size_bytes"] == disk.size_bytes(built)
    assert f"tiny: ready, 3 MiB, {built}/bin/python (pip 1)" in listed
    assert f"together 3 MiB on disk in {cache}" in listed
