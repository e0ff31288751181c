"""README and docs/ say what is so today: their examples are run, and what they print is compared."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_UNCOMMITTED = ("demo", "smoke")  # suites whose records .gitignore leaves out
_OF_RECORDS = re.compile(r"recommend|compare|predict|load_results")
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _examples() -> Iterator[tuple[str, str, str]]:
    """Page, command and output of each console block; page, "" and code of each python block."""
    for page in _PAGES:
        for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == "python":
                yield page.name, "", text
            else:
                command, _, output = text.removeprefix("$ ").partition("\n")
                yield page.name, command, output


def _marked(page: str, command: str, text: str) -> Any:
    """What a page shows of the committed records is checked with them, by `make check`."""
    marks = [pytest.mark.records] if _OF_RECORDS.search(command or text) else []
    return pytest.param(page, command, text, marks=marks, id=f"{page}: {command or 'python'}")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkout, or one as it was before `make demo` put records beside the committed ones."""
    uncommitted = [folder for suite in _UNCOMMITTED for folder in (ROOT / "results").glob(f"*/{suite}")]
    if not uncommitted:
        return ROOT
    clean = tmp_path_factory.mktemp("checkout")
    for entry in ROOT.iterdir():
        if entry.name != "results":
            (clean / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "results", clean / "results")
    for folder in uncommitted:
        shutil.rmtree(clean / folder.relative_to(ROOT))
    return clean


def _run(argv: list[str], folder: Path) -> str:
    env = {**os.environ, "COLUMNS": "120", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


@pytest.mark.parametrize(("page", "command", "text"), [_marked(*e) for e in _examples() if e[1]])
def test_a_console_example_prints_what_the_page_shows(page: str, command: str, text: str, checkout: Path) -> None:
    """Line by line; `…` stands for anything."""
    printed = _run([sys.executable if word == "python" else word for word in shlex.split(command)], checkout)
    expected = "\n".join(line.rstrip() for line in text.splitlines())

    pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
    assert re.fullmatch(pattern, printed, re.DOTALL), f"{page} shows\n{expected}\nand {command} prints\n{printed}"


@pytest.mark.parametrize(("page", "command", "code"), [_marked(*e) for e in _examples() if not e[1]])
def test_a_python_example_runs(page: str, command: str, code: str, checkout: Path) -> None:
    """From the checkout, on the records that ship, and without a word."""
    assert _run([sys.executable, "-W", "error", "-c", code], checkout) == command, page


def test_every_page_has_an_example() -> None:
    """One that the tests above run, but for the start page."""
    pages = {page for page, _, _ in _examples()}

    assert {page.name for page in _PAGES} - pages <= {"index.md"}
