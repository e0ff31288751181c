from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import paths
from bench.contract.errors import UserError
from bench.contract.record import Gpu, Hardware
from bench.envs import environment
from bench.machine import hardware as machine
from bench.machine import nvml


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """The files of configs/envs are read once a process: read them anew after each test."""
    yield
    environment.spec.cache_clear()


def _spec(*requirements: str) -> environment.EnvSpec:
    return environment.EnvSpec("tiny", requirements, {"MINE": "1"}, ("pip",), "")


def _configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requirement: str, more: str = ""
) -> environment.EnvSpec:
    """A configs folder with one environment, `tiny`, that wants one requirement."""
    folder = tmp_path / "configs" / "envs"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(
        f"requirements: [{requirement}]\nvariables: {{MINE: '1'}}\nrecords: [pip, lone]\n{more}"
    )
    monkeypatch.setattr(paths, "CONFIGS", folder.parent)
    environment.spec.cache_clear()
    return environment.spec("tiny")


@pytest.mark.slow  # venv and pip
def test_an_environment_is_built_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venv is made in the cache and marked ready last; asked again, nothing is built."""
    reports: list[str] = []
    what = _configured(tmp_path, monkeypatch, "pip")
    first = environment.ensure("tiny", reports.append)
    built = list(reports)
    again = environment.ensure("tiny", reports.append)

    assert Path(first.python).is_relative_to(cache)
    assert first == again
    assert first.versions["pip"][0].isdigit()
    assert "ready in" in built[-1]
    assert reports == built
    (what.folder / "READY.json").unlink()
    assert environment.find("tiny") is None
    assert environment.remove("tiny") == [what.folder]


@pytest.mark.slow  # venv and pip
@pytest.mark.usefixtures("cache")
def test_a_build_that_fails_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirement that cannot be had is one sentence that names the log, and nothing counts as ready."""
    _configured(tmp_path, monkeypatch, "./no-such-folder-here")

    with pytest.raises(UserError, match="environment 'tiny' could not be built"):
        environment.ensure("tiny", print)
    assert environment.find("tiny") is None


@pytest.mark.usefixtures("cache")
def test_an_interpreter_of_ones_own_is_used_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLM_BENCH_PYTHON_<NAME> needs no build, its versions are probed, and they make its identity."""
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", sys.executable)
    mine = environment.ensure("hf", print)

    assert mine.python == sys.executable
    assert mine.versions["torch"] == "not installed"
    assert mine.identity != environment.spec("hf").digest
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", "/no/such/python")
    with pytest.raises(UserError, match="'/no/such/python' is not an executable file"):
        environment.find("hf")


def test_pins_name_the_build() -> None:
    """Another pin or requirement is another folder: an old build is never taken for the new one."""
    base = _spec("a==1")

    assert _spec("a==2").digest != base.digest
    assert environment.EnvSpec("tiny", ("a==1",), {}, (), "b==3").digest != base.digest


def test_a_variant_is_what_the_machine_calls_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU one set of requirements and pins, without one another: two builds with two names."""
    more = "variants:\n  cuda: {requirements: [b==2], pins: gpu.txt}\n  cpu: {no_deps: [c==3]}\n"
    monkeypatch.setattr(nvml, "gpus", tuple)
    without = _configured(tmp_path, monkeypatch, "a==1", more)
    (tmp_path / "configs" / "envs" / "gpu.txt").write_text("d==4\n")
    monkeypatch.setattr(nvml, "gpus", lambda: (Gpu(0, "GPU", 1, "9.0", "1"),))
    environment.spec.cache_clear()
    result = environment.spec("tiny")

    assert (without.requirements, without.no_deps, without.pins) == (("a==1",), ("c==3",), "")
    assert (result.requirements, result.no_deps, result.pins) == (("b==2",), (), "d==4\n")
    assert result.variables == without.variables
    assert result.digest != without.digest
    assert without.digest != _spec("a==1").digest


@pytest.mark.slow  # venv and pip
@pytest.mark.usefixtures("cache")
def test_an_invalid_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the key and what it expects."""
    with pytest.raises(UserError, match=r"tiny\.yaml: no_deps.*: Input should be"):
        _configured(tmp_path, monkeypatch, "pip", "no_deps: 3\n")


@pytest.mark.slow
def test_a_package_can_do_without_what_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that asks for something that cannot be had is installed, under `no_deps`, all the same."""
    wheel, about = tmp_path / "lone-1.0-py3-none-any.whl", "lone-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("lone.py", "")
        packed.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: lone\nVersion: 1.0\nRequires-Dist: no-such-package-here\n",
        )
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")
    _configured(tmp_path, monkeypatch, "pip", f"no_deps: [{wheel}]\n")

    assert environment.ensure("tiny", print).versions["lone"] == "1.0"


def _gpu(capability: str) -> Hardware:
    gpu = Gpu(0, "GPU", 1, capability, "1")
    return Hardware("cuda:0", "s", "GPU", 1, "c", 2, 1, (), "float16", "Linux", (gpu,))


@pytest.mark.parametrize(
    ("capability", "words"), [("6.1", "capability 7.5 or newer, and GPU has 6.1"), ("7.5", ""), ("0.0", "")]
)
def test_a_gpu_older_than_the_kernels_is_known_beforehand(
    capability: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the environment's file says; one that does not tell is tried, as is one's own build."""
    _configured(tmp_path, monkeypatch, "pip", "least_capability: '7.5'\n")
    assert words in (refusal := environment.too_old("tiny", _gpu(capability)))
    assert bool(refusal) == bool(words)
    monkeypatch.setenv("LLM_BENCH_PYTHON_TINY", sys.executable)
    assert environment.too_old("tiny", _gpu(capability)) == ""


def test_what_is_compiled_for_a_gpu_needs_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvcc, llama.cpp would be built for the CPU, and each of its cells on a GPU would fail."""
    monkeypatch.setenv("PATH", "")
    assert "takes nvcc" in environment.without_gpu("llamacpp", _gpu("9.0"))
    assert environment.without_gpu("hf", _gpu("9.0")) == ""
    assert environment.without_gpu("llamacpp", machine.detect("cpu")) == ""
