"""Packages that are compiled on this machine: once, kept, and shared by environments."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import paths
from bench.contract.errors import UserError
from bench.envs import environment, source_build
from bench.envs.build_log import milestone
from bench.machine import nvml

_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny-native"
version = "1.0"
[tool.setuptools]
py-modules = ["tiny_native"]
"""
_SOURCE = """
package: tiny-native==1.0
cmake: [-DTINY=ON]
cuda: [-DTINY_CUDA=ON]
keeps: [extra/script.py]
tools: []
tools_folder: ""
tools_cmake: []
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    environment.spec.cache_clear()


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two environments with the same source; its distribution lies in a folder that pip looks into."""
    files = {"pyproject.toml": _PROJECT, "tiny_native.py": "ANSWER = 42\n", "extra/script.py": "kept = True\n"}
    (tmp_path / "index").mkdir()
    with tarfile.open(tmp_path / "index" / "tiny_native-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"tiny_native-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    folder = tmp_path / "configs" / "envs"
    folder.mkdir(parents=True)
    indented = "".join(f"  {line}\n" for line in _SOURCE.strip().splitlines())
    for name, wants in (("one", "[]"), ("two", "[pip]")):
        text = f"requirements: {wants}\nsource:\n{indented}variables: {{}}\nrecords: [tiny-native]\n"
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(paths, "CONFIGS", folder.parent)
    environment.spec.cache_clear()
    return folder


@pytest.mark.engine
@pytest.mark.usefixtures("cache", "configured")
@pytest.mark.needs
def test_a_source_is_compiled_once_for_all_environments() -> None:
    """The first environment builds the wheel, the second takes it; both hold the files worth keeping."""
    first: list[str] = []
    second: list[str] = []
    one = environment.ensure("one", first.append)
    two = environment.ensure("two", second.append)

    assert any("fetching the source of tiny-native==1.0" in line for line in first)
    assert not any("fetching" in line for line in second)
    for env in (one, two):
        done = subprocess.run(
            [env.python, "-c", "import tiny_native; print(tiny_native.ANSWER)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "42\n"
        assert (Path(env.python).parents[1] / "share/tiny-native/script.py").read_text() == "kept = True\n"
        assert env.versions["tiny-native"] == "1.0"


@pytest.mark.usefixtures("cache", "configured")
def test_without_a_compiler_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the environment, the compiler to install and the way around."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(UserError, match=r"no C\+\+ compiler: install one .* LLM_BENCH_PYTHON_ONE"):
        environment.ensure("one", print)


def test_what_is_compiled_names_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other arguments, or another CPU, are another build; an environment without a source keeps its name."""
    what = environment.spec("llamacpp")
    assert what.source is not None
    other = replace(what.source, cmake=("-DGGML_NATIVE=OFF",))
    before = (what.digest, environment.spec("hf").digest)

    assert replace(what, source=other).digest != what.digest
    monkeypatch.setattr(source_build, "_cpu_flags", lambda: "another CPU")
    assert what.digest != before[0]
    assert environment.spec("hf").digest == before[1]


def test_cuda_is_built_where_nvcc_and_a_gpu_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The device's architectures are added; either one alone leaves a CPU build."""
    from bench.contract.record import Gpu

    source = environment.spec("llamacpp").source
    assert source is not None
    gpus = tuple(Gpu(i, "GPU", 0, capability, "") for i, capability in enumerate(("9.0", "8.6", "9.0")))
    (tmp_path / "nvcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvml, "gpus", lambda: gpus)
    assert source.arguments[-2:] == ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=86;90")
    monkeypatch.setattr(nvml, "gpus", tuple)
    assert "-DGGML_CUDA=ON" not in source.arguments
    monkeypatch.setattr(nvml, "gpus", lambda: gpus)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "-DGGML_CUDA=ON" not in source.arguments


def test_progress_is_read_from_pip_and_ninja() -> None:
    """A person sees what is compiled and fetched, not the compiler's command lines."""
    assert milestone("[37/140] /usr/bin/g++ -DGGML -c x.cpp") == "compiling, 37 of 140 files"
    assert milestone("Collecting numpy==2.2.6 (from -c x)") == "Collecting numpy==2.2.6"
    assert milestone("-- Detecting CXX compiler ABI info") == ""


def test_an_environment_without_tools_says_so() -> None:
    """`envs build hf --tools` is a sentence, not a build."""
    with pytest.raises(UserError, match="environment 'hf' has no tools to build"):
        environment.tools("hf", print)
