"""Which tokens each convention puts into a window and scores, by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench.contract import phase
from bench.contract.errors import UserError
from eval.tasks import divergence, perplexity
from eval.text import tokens, windows
from eval.text.windows import Scope
from tests.eval.sessions import Given, letters, random_logits


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A corpus of 20 letters; its folder is the artifact's file, which has no tokenizer.json."""
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrst")
    return f"path:{tmp_path / 'text.txt'}"


def _session(bos: int | None = 0) -> Given:
    return Given(random_logits(32), words=partial(letters, bos=bos))


def test_llama_cpp_scores_the_second_half_of_each_chunk_after_bos(text: str, tmp_path: Path) -> None:
    """Context 8 over BOS a..t: two chunks, the tail dropped; each begins with BOS, tokens 5, 6, 7 count."""
    spans = windows.cut(_session(), Scope(text, 8, convention="llama.cpp"), tmp_path / "model.gguf")

    assert [list(w.ids) for w in spans.windows] == [
        [0, 1, 2, 3, 4, 5, 6, 7],  # BOS a b c d e f g
        [0, 9, 10, 11, 12, 13, 14, 15],  # BOS instead of h, i j k l m n o
    ]
    assert [(w.start, w.first, w.scored, w.size) for w in spans.windows] == [(0, 5, 3, 3), (8, 5, 3, 3)]


def test_a_model_without_bos_keeps_the_first_token_of_each_chunk(text: str, tmp_path: Path) -> None:
    """Nothing is replaced where the empty text has no token."""
    spans = windows.cut(_session(bos=None), Scope(text, 7, convention="llama.cpp"), tmp_path / "model.gguf")

    assert [list(w.ids) for w in spans.windows] == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14]]
    assert {(w.first, w.scored) for w in spans.windows} == {(4, 3)}  # 7 // 2 = 3: predictions at 3, 4, 5


def test_hf_scores_all_but_the_first_token(text: str, tmp_path: Path) -> None:
    """The other convention on the same text: BOS at the start of the text only."""
    spans = windows.cut(_session(), Scope(text, 8, convention="hf"), tmp_path / "model.gguf")

    assert [w.ids[0] for w in spans.windows] == [0, 8]
    assert [(w.first, w.scored) for w in spans.windows] == [(1, 7), (1, 7)]


def test_llama_cpp_perplexity_is_summed_over_those_positions(text: str, tmp_path: Path) -> None:
    """The negative log-likelihood of tokens 5, 6, 7 of each chunk, from logits at 4, 5, 6."""
    session = _session()
    options = perplexity.Options(text, 8, convention="llama.cpp")
    facts = perplexity.evaluate(session, options, tmp_path / "model.gguf")

    expected = []
    for window in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 9, 10, 11, 12, 13, 14, 15]):
        logits = session.table(window).astype(np.float32).astype(np.float64)
        share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected.append(-sum(np.log(share[at - 1, window[at]]) for at in (5, 6, 7)))
    assert facts["window_nll"] == pytest.approx(expected, rel=1e-6)
    assert facts["window_tokens"] == [3, 3]
    assert perplexity.title(perplexity.Options(convention="llama.cpp")) == "perplexity-stdlib-llama.cpp-512"


def test_the_tokenizer_beside_a_single_file_is_not_its_own(text: str, tmp_path: Path) -> None:
    """For a bare .gguf file the engine encodes, whatever lies in the same folder."""
    for name in ("tokenizer.json", "config.json", "calibration.json"):
        (tmp_path / name).write_text("not for this file")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    assert len(windows.cut(_session(), Scope(text, 8, convention="hf"), file).ids) == 21


def test_an_engines_own_tokens_cover_the_text_they_cover(tmp_path: Path) -> None:
    """A cut by tokens ends at the last whole character."""
    encoded = tokens.encode(Given(random_logits(8), words=letters), "aé", tmp_path, 3)

    assert (encoded.ids, encoded.sizes, encoded.end, encoded.bos) == ([0, 1, 99], [0, 1, 1], 1, 0)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (perplexity.Options(context=8, convention="llama.cpp", stride=8), "llama.cpp has no stride"),
        (Scope(context=2, convention="llama.cpp"), "at least 3 tokens"),
    ],
)
def test_what_the_convention_does_not_have_is_refused(scope: Scope, words: str, tmp_path: Path) -> None:
    """Stride is another convention of that tool; a context of 2 has nothing in its second half."""
    with pytest.raises(UserError, match=words):
        windows.cut(_session(), scope, tmp_path)


def test_the_items_are_the_same_only_for_the_same_tokens(text: str, tmp_path: Path) -> None:
    """Another tokenization, context or convention has another digest."""
    scopes = [Scope(text, 8, convention="hf"), Scope(text, 9, convention="hf"), Scope(text, 8, convention="llama.cpp")]
    spans = [windows.cut(_session(), scope, tmp_path).items for scope in scopes]
    spans.append(windows.cut(_session(bos=None), scopes[0], tmp_path).items)

    assert len(set(spans)) == 4
    assert spans[0] == windows.cut(_session(), scopes[0], tmp_path).items


@pytest.mark.parametrize("task", [perplexity, divergence])
def test_scored_tokens_are_told_to_the_last(
    task: ModuleType, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that will be scored; the baseline's predictions, which divergence needs first, likewise."""
    options, model = task.Options(text, 8, convention="llama.cpp"), tmp_path / "model.gguf"
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "phases"))
    if task is divergence:
        stored = divergence.prepare(_session(), options, model, tmp_path)
        named = {**stored, "digest": "", "engine": "", "artifact": ""}
        (tmp_path / "reference.json").write_text(json.dumps(named))
    task.evaluate(_session(), options, model, tmp_path)

    lines = (tmp_path / "phases").read_text().splitlines()
    assert lines == ["scoring: 0 of 6 tokens", "scoring: 6 of 6 tokens"] * (2 if task is divergence else 1)
