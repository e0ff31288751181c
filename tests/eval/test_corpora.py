"""The texts: held out as said, hashed as said, and refused with a word that helps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from eval import corpora

_SPLITS: tuple[corpora.Split, ...] = ("train", "calibration", "evaluation")
_PARAGRAPH = "x" * 199 + "y"


def test_the_splits_of_the_standard_library_share_no_module() -> None:
    """A module that calibrates or trains is never scored."""
    modules = {split: {name for name, _ in corpora.stdlib_modules(split)} for split in _SPLITS}

    assert all(modules.values())
    assert sum(map(len, modules.values())) == len(set().union(*modules.values()))


def test_calibrating_on_the_standard_library_leaves_its_evaluation_text_unseen() -> None:
    """Licence headers and copied docstrings shared by the two are below the 1 % that perplexity refuses."""
    evaluation, calibration = (
        corpora.fingerprint(corpora.load("stdlib", split).text) for split in ("evaluation", "calibration")
    )

    assert len(evaluation) > 100
    assert len(evaluation & calibration) < 0.01 * len(evaluation)


def test_a_module_keeps_its_split() -> None:
    """The split is a function of the dotted name: so these three were when the demo model was trained."""
    assert [corpora.split_of(name) for name in ("json", "re", "collections")] == list(_SPLITS)


def test_a_file_is_read_as_utf8_and_hashed(tmp_path: Path) -> None:
    """The hash is of the file's own bytes."""
    file = tmp_path / "text.raw"
    file.write_bytes("één\n\n漢字".encode())

    corpus = corpora.load(f"path:{file}")

    assert corpus.text == "één\n\n漢字"
    assert corpus.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["stdlb", "path:absent.txt", "path:latin.txt"])
def test_what_cannot_be_read_is_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name, a missing file and a file that is not UTF-8 are each the user's to mend."""
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"caf\xe9")

    with pytest.raises(UserError, match=r"unknown corpus|does not exist|UTF-8"):
        corpora.load(name)


def test_a_fingerprint_is_the_set_of_long_paragraphs() -> None:
    """Blocks between blank lines, stripped, of 200 characters or more; order and repetition do not count."""
    short = "z" * 199
    text = f"\n\n  {_PARAGRAPH}\n \t\n{short}\n\n{_PARAGRAPH}  \n"

    assert corpora.fingerprint(text) == {hashlib.sha256(_PARAGRAPH.encode()).hexdigest()[:16]}
    assert corpora.fingerprint("") == set()
