"""Environments that have a file of hashes hold what it lists and nothing else, whatever the index serves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.envs import checked, environment, pins
from bench.envs.build_log import Build
from tests.conftest import Command
from tests.envs import index as loopback
from tests.envs.index import Index

pytestmark = pytest.mark.slow  # venv and pip


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds nothing yet: making one takes longer than copying it."""
    folder = tmp_path_factory.mktemp("venv") / "empty"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def install(venv: Path, envs: Path, tmp_path: Path) -> Callable[..., set[str]]:
    """Install the package `wanted` into an empty venv by the file of hashes; returns what is there then."""

    def installed(requirements: Sequence[str] = ("wanted==1.0",), alone: Sequence[str] = ()) -> set[str]:
        folder = tmp_path / "venv"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(venv, folder, symlinks=True)
        python = str(folder / "bin" / "python")
        locked = pins.read(envs / "hashes" / "tiny.txt")
        checked.install(python, requirements, alone, None, locked, Build("tiny", tmp_path / "log", print))
        done = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return installed


def _lock(envs: Path, hashes: dict[str, str], *sources: str) -> None:
    entries = {(name, "1.0"): frozenset({digest}) for name, digest in hashes.items()}
    (envs / "hashes" / "tiny.txt").write_text(pins.text("of this test", entries, sources))


def test_what_is_listed_is_installed(index: Index, envs: Path, install: Callable[..., set[str]]) -> None:
    """What the requirement asks for too, where its marker and extra apply; what is listed and unneeded is not."""
    asks = ["needed>=1; python_version > '3'", "never; sys_platform == 'win32'", "extra; extra == 'more'"]
    hashes = {name: index.wheel(name) for name in ("needed", "extra")}
    _lock(envs, {"wanted": index.wheel("wanted", requires=asks), "unneeded": "a" * 64, **hashes})

    assert install() == {"wanted==1.0", "needed==1.0"}
    assert install(["wanted[more]==1.0"]) == {"wanted==1.0", "needed==1.0", "extra==1.0"}


@pytest.mark.parametrize("says", ["the altered hash", "nothing", "the pinned hash"])
def test_altered_bytes_under_a_pinned_name_are_refused(
    says: str, index: Index, envs: Path, install: Callable[..., set[str]]
) -> None:
    """Whatever the index's page says of the file: one sentence with both hashes and what to do."""
    pinned = index.wheel("needed")
    _lock(envs, {"wanted": index.wheel("wanted", requires=["needed"]), "needed": pinned})
    altered = index.wheel("needed", body="import os\n")
    filename = "needed-1.0-py3-none-any.whl"
    content = (index.folder / "simple" / "needed" / filename).read_bytes()
    index.serve("needed", filename, content, {"nothing": "", "the pinned hash": pinned}.get(says))

    with pytest.raises(UserError) as refused:
        install()
    assert "the file of needed==1.0 at http://127.0.0.1" in str(refused.value)
    assert f"its sha256 is {altered}, expected {pinned}" in str(refused.value)
    assert "python -m bench envs lock tiny --add needed" in str(refused.value)


def test_a_refused_file_leaves_no_environment(index: Index, envs: Path, command: Command, cache: Path) -> None:
    """The command's exit code is 2, it says so in one sentence, and what it had built is removed."""
    _lock(envs, {"wanted": index.wheel("wanted"), "needed": "a" * 64})
    index.wheel("wanted", body="import os\n")

    done = command("bench", "envs", "build", "tiny")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "environment 'tiny': the file of wanted==1.0 at" in done.stderr
    assert not [file for file in (cache / "envs").iterdir() if file.is_dir()]


def test_a_build_of_a_pin_in_a_folder_is_taken_if_it_is_listed(
    index: Index, envs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Callable[..., set[str]]
) -> None:
    """A wheel of PIP_FIND_LINKS (torch 2.13.0+cpu, say) goes before the index's own, as it does for pip.

    One of other bytes is refused, and where none is offered the index's file is taken.
    """
    with loopback.served(tmp_path / "other") as other:
        build = other.wheel("wanted", "1.0+cpu")
    listed = {
        ("wanted", "1.0"): frozenset({index.wheel("wanted", requires=["large"])}),
        ("large", "1.0"): frozenset({index.wheel("large")}),
        ("wanted", "1.0+cpu"): frozenset({build}),
    }
    file = envs / "hashes" / "tiny.txt"
    file.write_text(pins.text("of this test", listed, ()))

    assert install() == {"wanted==1.0", "large==1.0"}
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "other" / "simple" / "wanted"))
    assert install() == {"wanted==1.0+cpu"}
    file.write_text(pins.text("of this test", {**listed, ("wanted", "1.0+cpu"): frozenset({"d" * 64})}, ()))
    with pytest.raises(UserError, match=r"the file of wanted==1\.0\+cpu at file://.*is not one that was pinned"):
        install()


def test_a_package_that_is_not_listed_is_refused(index: Index, envs: Path, install: Callable[..., set[str]]) -> None:
    """What a listed package asks for and the file does not list is refused, though the index has it."""
    _lock(envs, {"wanted": index.wheel("wanted", requires=["needed", "another>=2"]), "needed": index.wheel("needed")})
    index.wheel("another", "2.0")

    with pytest.raises(
        UserError, match=r"wanted 1\.0 asks for another>=2, which .*tiny\.txt does not list: nothing is"
    ):
        install()


def test_a_pin_of_another_version_is_refused(index: Index, envs: Path, install: Callable[..., set[str]]) -> None:
    """What a package asks for, or the environment's pins, and the file of hashes disagree: nothing is installed."""
    _lock(envs, {"wanted": index.wheel("wanted", requires=["needed>=2"]), "needed": index.wheel("needed")})
    with pytest.raises(UserError, match=r"wanted 1\.0 asks for needed>=2, which .*tiny\.txt has 1\.0 of"):
        install()
    (envs / "tiny.txt").write_text("wanted==1.0\nneeded==2.0\n")
    environment.spec.cache_clear()
    with pytest.raises(UserError, match=r"pins needed 2\.0, and .*tiny\.txt has needed 1\.0: make it again"):
        environment.ensure("tiny", print)


def test_packages_alone_are_checked_too(index: Index, envs: Path, install: Callable[..., set[str]]) -> None:
    """One that is installed without what it asks for has its hash compared as well."""
    _lock(envs, {"wanted": index.wheel("wanted", requires=["needed"])})
    assert install([], ["wanted==1.0"]) == {"wanted==1.0"}
    index.wheel("wanted", body="import os\n")
    with pytest.raises(UserError, match=r"the file of wanted==1\.0 at"):
        install([], ["wanted==1.0"])


@pytest.mark.usefixtures("cache")
def test_without_a_file_of_hashes_the_build_says_so(index: Index, envs: Path) -> None:
    """A user's own environment without one is built as pip builds it, and a person is told."""
    index.wheel("wanted", requires=["needed"])
    index.wheel("needed")
    said: list[str] = []

    assert not (envs / "hashes" / "tiny.txt").exists()
    assert environment.ensure("tiny", said.append).versions["needed"] == "1.0"
    assert "environment tiny: no file of hashes covers it: pip installs what the index serves under these names" in said


@pytest.mark.engine
@pytest.mark.usefixtures("cache")
@pytest.mark.needs
def test_an_altered_source_archive_is_not_run(tmp_path: Path, envs: Path, request: pytest.FixtureRequest) -> None:
    """A source archive is built with checked tools; one of other bytes is refused before any line of it runs."""
    checked.builder(Build("tiny", tmp_path / "log", print))  # from the user's own index: ours has no setuptools
    index: Index = request.getfixturevalue("index")
    setup = f"from setuptools import setup; open({str(tmp_path / 'ran')!r}, 'w'); setup(name='wanted', version='1.0', "
    _lock(envs, {"wanted": index.source("wanted", setup + "py_modules=['wanted'])"), "needed": "a" * 64}, "wanted")
    first = environment.ensure("tiny", print)
    assert first.versions["wanted"] == "1.0"
    (tmp_path / "ran").unlink()
    environment.remove("tiny")
    index.source("wanted", setup + "py_modules=[])")

    with pytest.raises(
        UserError, match=r"the file of wanted==1\.0 at http://127\.0\.0\.1.*tar\.gz is not one that was"
    ):
        environment.ensure("tiny", print)
    assert not (tmp_path / "ran").exists()
    assert environment.find("tiny") is None


@pytest.mark.usefixtures("cache")
def test_files_of_hashes_are_made_by_the_command(index: Index, envs: Path, command: Command) -> None:
    """`envs lock` lists what the pins ask for with the index's hashes; builds that were added to a pin stay."""
    wanted, needed = index.wheel("wanted", requires=["needed", "loose"]), index.wheel("needed")
    index.wheel("needed", "2.0")
    loose = index.wheel("loose", "3.0")
    file = envs / "hashes" / "tiny.txt"
    file.write_text(pins.text("", {("needed", "1.0+cpu"): frozenset({"c" * 64})}, ()))

    done = command("bench", "envs", "lock", "tiny", "--index", index.url)

    assert done.returncode == 0, done.stderr
    assert pins.read(file).entries == {
        ("wanted", "1.0"): {wanted},
        ("needed", "1.0"): {needed},
        ("needed", "1.0+cpu"): {"c" * 64},
        ("loose", "3.0"): {loose},
    }
    altered = index.wheel("needed", body="import os\n")
    assert command("bench", "envs", "lock", "tiny", "--add", "needed").returncode == 0
    assert pins.read(file).entries["needed", "1.0"] == {needed, altered}


def test_a_pin_that_the_index_has_not_makes_no_file(index: Index, envs: Path, command: Command) -> None:
    """One sentence with what uv says; an environment without pins, and a package that is not pinned, likewise."""
    index.wheel("wanted")
    done = command("bench", "envs", "lock", "tiny", "--index", index.url)
    assert done.returncode == 2
    assert "the pins of 'tiny' cannot be resolved" in done.stderr
    assert "needed" in done.stderr
    assert not (envs / "hashes" / "tiny.txt").exists()
    for words, sentence in (
        (["core"], "environment 'core' has no pins"),
        (["tiny", "--add", "needed"], "no file of hashes of environment 'tiny' lists 'needed'"),
    ):
        done = command("bench", "envs", "lock", *words)
        assert done.returncode == 2
        assert sentence in done.stderr
