"""Calibration windows, drawn with the demo model's tokenizer."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.spec import Step
from bench.run import artifacts
from eval import corpora
from quantize import calibration

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


def test_windows_have_the_asked_number_and_length() -> None:
    """Exactly as many windows as asked for, each exactly as long as asked for."""
    drawn = calibration.samples(DEMO, "stdlib", 32, 256, 0)

    assert [len(window) for window in drawn.ids] == [256] * 32
    assert drawn.tokens == 32 * 256


def test_the_seed_decides() -> None:
    """The same seed draws the same windows, another seed others."""
    first, again, other = (calibration.samples(DEMO, "stdlib", 8, 128, seed) for seed in (1, 1, 2))

    assert first == again
    assert first.ids != other.ids
    assert first.sha256 == other.sha256


@pytest.mark.parametrize("seed", range(20))
def test_windows_do_not_overlap_and_span_the_text(seed: int) -> None:
    """Starts are a window apart at least, inside the text, and not only at its beginning."""
    starts = calibration._starts(10_000, 50, 100, seed)

    assert starts is not None
    assert all(later - earlier >= 100 for earlier, later in pairwise(starts))
    assert starts[0] >= 0
    assert 7_000 < starts[-1] <= 9_900


def test_windows_may_fill_the_text() -> None:
    """A text with room for exactly so many windows is cut from end to end; one token less is too few."""
    assert calibration._starts(300, 3, 100, 0) == [0, 100, 200]
    assert calibration._starts(299, 3, 100, 0) is None


def test_windows_are_pieces_of_the_text(tmp_path: Path) -> None:
    """A window decodes to text that stands in the corpus."""
    from tokenizers import Tokenizer

    text = "\n".join(f"def function_{i}(value):\n    return value * {i}" for i in range(200))
    (tmp_path / "some.txt").write_text(text, encoding="utf-8")
    drawn = calibration.samples(DEMO, f"path:{tmp_path / 'some.txt'}", 4, 64, 0)
    decoded = Tokenizer.from_file(str(DEMO / "tokenizer.json")).decode(list(drawn.ids[1]))

    assert decoded.strip() in text
    assert drawn.corpus == "path:some.txt"


def test_windows_begin_with_bos_where_it_is_chosen_and_the_model_adds_one(tmp_path: Path) -> None:
    """In place of the first token, all others as they were; a tokenizer that adds none changes nothing."""
    plain, begun = (
        calibration.from_options(DEMO, calibration.Options(samples=4, length=64, bos=bos)) for bos in (False, True)
    )
    tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    without = calibration.from_options(tmp_path, calibration.Options(samples=4, length=64, bos=True))

    assert [window[0] for window in begun.ids] == [1] * 4 != [window[0] for window in plain.ids]
    assert [window[1:] for window in begun.ids] == [window[1:] for window in plain.ids]
    assert begun.facts() == {**plain.facts(), "calibration_bos": 1}
    assert (without.ids, without.facts()) == (plain.ids, plain.facts())


@pytest.mark.parametrize("name", plugins.names(plugins.METHODS))
def test_samples_without_bos_are_the_artifact_of_before(name: str) -> None:
    """Naming the option at its default leaves the digest of every method that has it; choosing it does not."""
    if not issubclass(plugins.load(plugins.METHODS, name).Options, calibration.Options):
        pytest.skip("it draws no samples")
    unnamed, named, chosen = (
        artifacts.digests("model", (Step(name, options),)) for options in ({}, {"bos": False}, {"bos": True})
    )
    assert unnamed == named != chosen


def test_a_text_too_short_says_how_much_fits(tmp_path: Path) -> None:
    """The error has the number of samples that would fit."""
    (tmp_path / "short.txt").write_text("import os\n" * 100, encoding="utf-8")

    with pytest.raises(UserError, match=r"\d+ samples of 64 fit, not 1000"):
        calibration.samples(DEMO, f"path:{tmp_path / 'short.txt'}", 1000, 64, 0)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    """No tokenizer.json: one sentence."""
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        calibration.samples(tmp_path, "stdlib", 1, 8, 0)


def test_what_was_seen_can_be_read_back(tmp_path: Path) -> None:
    """calibration.json has the corpus, the text's hash, and every long paragraph's fingerprint, sorted."""
    drawn = calibration.samples(DEMO, "stdlib", 2, 16, 0)
    drawn.write(tmp_path)
    read = json.loads((tmp_path / "calibration.json").read_text())
    text = corpora.load("stdlib", "calibration")

    assert read["corpus"] == "stdlib"
    assert read["sha256"] == text.sha256
    assert read["paragraphs"] == sorted(corpora.fingerprint(text.text))
    assert read["paragraphs"]
