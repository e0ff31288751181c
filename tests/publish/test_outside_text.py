"""Names and reasons of a stranger's records, in everything that is written of them."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.publish import report
from tests.conftest import Command

RESULTS = Path(__file__).resolve().parents[2] / "results"
TAG = "<img src=x onerror=alert(1)>"
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
NAMES = {
    "recipe": f"=cmd|' /C calc'!A0{TAG}",
    "engine": "\x1b]0;owned\x07\x1b[2Jllamacpp | `x`",
    "suite": "lim\u202eits</script><script>alert(2)</script>",
    "device": "../../evil\x1b[31m<b>",
    "reason": f"\x9b31m{TAG} [click](javascript:alert(3)) <!-- /bench --> \u2066x",
    "cpu": f"CPU {TAG}\x1b[0m",
}
DOCUMENT = """<!-- bench: machines -->
<!-- /bench -->
<!-- bench: suites -->
<!-- /bench -->
<!-- bench: reasons lim* -->
<!-- /bench -->
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a committed suite under hostile names, one of its rounds failed; everything is written."""
    root = tmp_path_factory.mktemp("hostile") / "a" / "b" / "results"
    shutil.copytree(min(RESULTS.glob("*/limits")), root / "x" / "limits")
    for number, file in enumerate(sorted(root.rglob("r*.json"))):
        record = json.loads(file.read_text())
        record["cell"]["recipe"]["name"] = NAMES["recipe"] + record["cell"]["recipe"]["name"]
        record["cell"]["engine"]["label"] = NAMES["engine"] + record["cell"]["engine"]["name"]
        record["suite"], record["hardware"]["slug"], record["hardware"]["cpu"] = (
            NAMES[name] for name in ("suite", "device", "cpu")
        )
        record["receipts"]["kernel"] = NAMES["reason"]
        if number % 3 == 0 or record["status"] != "ok":
            record |= {"status": "failed", "reason": NAMES["reason"], "metrics": {}}
        file.write_text(json.dumps(record))
    (root.parent / "REPORT.md").write_text(DOCUMENT)
    report.write(root)
    return root


def test_nothing_is_written_outside_the_results(hostile: Path) -> None:
    """A device whose name is a path is a folder below all the same."""
    written = [path for path in hostile.parents[2].rglob("*") if path.is_file()]

    assert {"TABLES.md", "tables.csv", "README.md", "report.html"} <= {path.name for path in written}
    assert all(path.is_relative_to(hostile) or path.name == "REPORT.md" for path in written)


def test_documents_hold_no_tag_link_or_control(hostile: Path) -> None:
    """TABLES.md, README.md and a document's passages: names and reasons are text, in cells of their own."""
    texts = [path.read_text() for path in (hostile.parent / "REPORT.md", *hostile.rglob("*.md"))]
    assert len(texts) == 3
    assert "onerror" in texts[0]
    for text in texts:
        assert not STEERS.search(text.replace("\n", ""))
        passages = re.sub(r"<!-- /?bench.*?-->", "", text)
        assert not re.search(r"(?<!\\)<(?!b?r?>)", passages)
        assert not re.search(r"(?<!\\)\[click", passages)
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
        assert all(width > 3 for width in widths)


def test_a_sheet_has_no_formula(hostile: Path) -> None:
    """The recipe is text with an apostrophe before it, and numbers are numbers."""
    [sheet] = hostile.rglob("tables.csv")
    text = sheet.read_text()
    rows = list(csv.reader(io.StringIO(text)))

    assert not STEERS.search(text.replace("\n", ""))
    assert any(cell.startswith("'=cmd") for row in rows for cell in row)
    assert not any(cell.startswith(("=", "+", "@", "\t")) for row in rows for cell in row)


def test_the_page_has_no_script_but_its_own(hostile: Path) -> None:
    """Its data cannot end their element, and the records packed in it turn no text around."""
    page = (hostile / "report.html").read_text()
    data = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert "alert(2)" in data[1]
    assert "<" not in data[1]
    chunks = re.findall(r'class="chunk">([^<]*)<', page)
    packed = "".join(gzip.decompress(base64.b64decode(chunk)).decode() for chunk in chunks)
    assert "alert(3)" in packed
    assert not STEERS.search(data[1] + packed)


def test_figures_are_pictures_without_scripts(hostile: Path) -> None:
    """Well-formed XML whose elements draw."""
    figures = list(hostile.rglob("*.svg"))
    assert figures
    for figure in figures:
        tree = ET.fromstring(figure.read_bytes())  # noqa: S314  (drawn by this test)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "img", "foreignObject"}


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["table"], 0, ["../../evil [31m<b>", "=cmd|' /C calc'!A0<img", " ]0;owned  [2Jllamacpp | `x`"]),
        (
            ["compare", f"{NAMES['recipe']}gguf-q4_k_m", f"{NAMES['recipe']}gguf-f16"],
            0,
            ["../../evil [31m<b>", "=cmd|' /C calc'!A0<img", "[click](javascript:alert(3))"],
        ),
        (["compare", f"{NAMES['engine']}llamacp", f"{NAMES['engine']}hf"], 2, ["did you mean  ]0;owned  [2Jllamacpp"]),
    ],
    ids=["table", "compare", "refused"],
)
def test_a_terminal_gets_no_escape(
    hostile: Path, command: Command, words: list[str], code: int, printed: list[str]
) -> None:
    """On stdout and stderr alike, in tables, comparisons and refusals, which show the text without it."""
    done = command("bench", *words, "--results", str(hostile))
    text = done.stdout + done.stderr

    assert done.returncode == code, done.stderr
    assert all(part in text for part in printed), text
    assert not STEERS.search(text.replace("\n", ""))
    assert "Traceback" not in done.stderr


def test_a_list_of_files_has_no_escape(hostile: Path, command: Command) -> None:
    """Neither of what is to be written, nor of what was."""
    [sheet] = hostile.rglob("tables.csv")
    sheet.unlink()
    checked = command("bench", "report", "--check", "--results", str(hostile))
    written = command("bench", "report", "--results", str(hostile))

    assert (checked.returncode, written.returncode) == (2, 0)
    assert "evil" in sheet.parent.name
    for text in (checked.stderr, written.stdout):
        assert str(sheet) in text
        assert not STEERS.search(text.replace("\n", ""))
