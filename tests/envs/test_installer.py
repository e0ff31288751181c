"""uv in pip's place: the same packages from the same places, linked from one cache, and downloads that begin again."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.envs import checked, environment, installer, pins
from bench.envs.build_log import Build
from tests.envs.index import Index

_PAD = "x = '" + 200_000 * "y" + "'"


def test_what_pip_is_told_of_places_is_told_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, and variables over them; several values of one setting; what a place is reached by."""
    lines = [
        "global.find-links='/wheels'",
        "global.extra-index-url='https://a.example/simple https://b.example/simple'",
        "global.constraint='/etc/constraints.txt'",
        "install.no-index='true'",
        ":env:.find-links='/other /third'",
    ]

    assert installer.parsed(lines)["find-links"] == "/other /third"
    assert installer.parsed(lines)["no-index"] == "true"
    for name, value in {
        "PIP_FIND_LINKS": "/other /third",
        "PIP_INDEX_URL": "https://c.example/simple",
        "PIP_NO_INDEX": "1",
        "PIP_CERT": "/etc/certs.pem",
        "PIP_DEFAULT_TIMEOUT": "7",
    }.items():
        monkeypatch.setenv(name, value)
    options, variables = installer.settings(sys.executable)
    pairs = list(pairwise(options))
    for pair in (
        ("--find-links", "/other"),
        ("--find-links", "/third"),
        ("--default-index", "https://c.example/simple"),
    ):
        assert pair in pairs
    assert "--no-index" in options
    assert (variables["SSL_CERT_FILE"], variables["UV_HTTP_TIMEOUT"]) == ("/etc/certs.pem", "7")


def test_a_configuration_that_pip_cannot_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else uv would take packages from the public index, whatever place the file names."""
    (tmp_path / "pip.conf").write_text("[global\nindex-url = https://a.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))

    with pytest.raises(UserError, match=r"pip does not say where packages come from: .*pip\.conf"):
        installer.settings(sys.executable)


def test_an_installer_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`uv` and `pip` are known, and nothing chooses for itself."""
    monkeypatch.setenv(installer.CHOSEN, "conda")
    with pytest.raises(UserError, match="LLM_BENCH_INSTALLER: 'conda' is no installer: set it to uv or pip"):
        installer.command()
    monkeypatch.setenv(installer.CHOSEN, "pip")
    assert installer.command() == ()
    monkeypatch.delenv(installer.CHOSEN)
    assert installer.command() == (sys.executable, "-m", "uv")


@pytest.mark.slow
def test_environments_share_what_both_have(
    index: Index, envs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By uv two environments link to one file; by pip each has its own. Digest and versions are the same."""
    monkeypatch.delenv("PIP_NO_CACHE_DIR")
    entries = {("wanted", "1.0"): frozenset({index.wheel("wanted", requires=["needed"])})}
    entries["needed", "1.0"] = frozenset({index.wheel("needed", body=_PAD)})
    for name in ("tiny", "other"):
        for file in ("{}.yaml", "{}.txt"):
            (envs / file.format(name)).write_text((envs / file.format("tiny")).read_text())
        (envs / "hashes" / f"{name}.txt").write_text(pins.text("of this test", entries, ()))
    environment.spec.cache_clear()
    built = {name: environment.ensure(name, print) for name in ("tiny", "other")}
    files = [next(Path(env.python).parents[1].rglob("needed.py")) for env in built.values()]

    assert files[0].samefile(files[1])
    assert list(files[0].parent.glob("__pycache__/needed*.pyc"))
    monkeypatch.setenv(installer.CHOSEN, "pip")
    environment.remove("tiny")
    again = environment.ensure("tiny", print)
    assert next(Path(again.python).parents[1].rglob("needed.py")).stat().st_nlink == 1
    assert (again.identity, again.versions) == (built["tiny"].identity, built["tiny"].versions)
    assert cache in files[0].parents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("uv", r"Downloading wanted \(.*\), again: it stalled or broke off"),
        ("pip", r"a download stalled or broke off: trying again, 2 of 3"),
    ],
)
def test_a_download_that_stalls_begins_again(
    index: Index, envs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, words: str
) -> None:
    """The server stops in the middle of the first answer: it is told, and the package is installed."""
    monkeypatch.setenv(installer.CHOSEN, chosen)
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "2")
    folder, lines = tmp_path / "venv", list[str]()
    digest = index.wheel("wanted", body=f"x = '{3_000_000 * 'y'}'")
    (envs / "hashes" / "tiny.txt").write_text(pins.text("of this test", {("wanted", "1.0"): frozenset({digest})}, ()))
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    with _stalling(index.folder) as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        locked, build = pins.read(envs / "hashes" / "tiny.txt"), Build("tiny", tmp_path / "log", lines.append)
        checked.install(str(folder / "bin" / "python"), ["wanted==1.0"], (), None, locked, build)

    assert [line for line in lines if re.fullmatch(f"environment tiny: {words}", line)], lines
    assert list(folder.rglob("wanted.py"))


@contextmanager
def _stalling(folder: Path) -> Iterator[str]:
    """The folder served; the first wheel stops half way for as long as nobody gives up."""
    release, stalled = threading.Event(), list[str]()

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if not self.path.endswith(".whl") or stalled:
                super().copyfile(source, outputfile)
                return
            stalled.append(self.path)
            outputfile.write(source.read(100_000))
            outputfile.flush()
            release.wait(20)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's word)
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        release.set()
        server.shutdown()
        thread.join()
