"""Perplexity against sums done by hand over a small model whose logits depend on the window's position."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep, LogitBlock
from eval import corpora
from eval.tasks import perplexity
from eval.tasks.perplexity import Options
from eval.text import tokens

_TEXT = "abc é cab 漢字 bca 😀 aabb " * 6
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_WORDS = ["<s>", *_BYTES, "a", "b", "c", " ", "ab"]


@dataclass(frozen=True)
class Bigram:
    """Logits of the next id from this id and its place in the window, in blocks of `rows`."""

    rows: int = 1000
    scale: float = 1.0

    def table(self, token: int, place: int) -> list[float]:
        """One row of logits, in Python floats that float32 holds exactly."""
        return [self.scale * ((token * 7 + k * 13 + place * 5) % 97) / 16 for k in range(len(_WORDS))]

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        for start in range(0, len(ids), self.rows):
            block = [self.table(token, start + i) for i, token in enumerate(ids[start : start + self.rows])]
            yield LogitBlock(start, np.array(block, dtype=np.float32))

    def nll(self, window: Sequence[int], first: int) -> float:
        """The same sum, term by term."""
        terms = []
        for place in range(first, len(window)):
            row = self.table(window[place - 1], place - 1)
            terms.append(math.log(math.fsum(map(math.exp, row))) - row[window[place]])
        return math.fsum(terms)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        del prompts, new_tokens
        return iter(())

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        raise NotImplementedError(text)

    def receipts(self) -> Mapping[str, str]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a byte-fallback tokenizer that adds <s>, a context of 64, and the text."""
    vocabulary = {word: i for i, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")], byte_fallback=True))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(10)  # as many published tokenizers are saved
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    (tmp_path / "wiki.test.raw").write_text(_TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def options(folder: Path) -> Options:
    return Options(corpus=f"path:{folder / 'wiki.test.raw'}", context=16)


def _ids(folder: Path, text: str = _TEXT) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return list(tokenizer.encode(text).ids)


def test_windows_are_the_gptq_papers(folder: Path, options: Options) -> None:
    """Full windows side by side, each scored from its second token on, the tail dropped."""
    model, ids = Bigram(), _ids(folder)
    windows = [ids[at : at + 16] for at in range(0, len(ids) // 16 * 16, 16)]
    expected = [model.nll(window, 1) for window in windows]

    facts = perplexity.evaluate(model, options, folder)

    assert len(ids) % 16 != 0
    assert facts["window_nll"] == pytest.approx(expected, rel=1e-6)
    assert facts["window_tokens"] == [15] * len(windows)
    assert facts["first_ids"] == ids[:8]
    assert facts["first_ids"][0] == 0
    metrics = perplexity.metrics(facts)
    assert metrics["perplexity"] == pytest.approx(math.exp(sum(expected) / (15 * len(windows))), rel=1e-6)
    assert metrics["scored_tokens"] == 15 * len(windows)


@pytest.mark.parametrize("stride", [1, 5, 8, 15])
def test_a_stride_scores_each_token_once_with_context_before_it(folder: Path, options: Options, stride: int) -> None:
    """After the first window only the last `stride` tokens are new; each sees context - stride before it."""
    model, ids = Bigram(), _ids(folder)
    expected = [model.nll(ids[:16], 1)]
    expected += [model.nll(ids[at : at + 16], 16 - stride) for at in range(stride, len(ids) - 15, stride)]

    facts = perplexity.evaluate(model, replace(options, stride=stride), folder)

    assert facts["window_nll"] == pytest.approx(expected, rel=1e-6)
    assert facts["window_tokens"] == [15] + [stride] * (len(expected) - 1)
    covered = 16 + stride * (len(expected) - 1)
    assert sum(facts["window_tokens"]) == covered - 1


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_the_size_of_the_engines_blocks_does_not_matter(folder: Path, options: Options, rows: int) -> None:
    """Blocks are an engine's way to bound memory, not part of the definition."""
    facts = perplexity.evaluate(Bigram(rows=rows), replace(options, stride=5), folder)

    whole = perplexity.evaluate(Bigram(), replace(options, stride=5), folder)
    assert facts["window_nll"] == pytest.approx(whole["window_nll"], rel=1e-12)


def test_the_bytes_of_a_character_are_shared_by_its_byte_tokens(folder: Path, options: Options) -> None:
    """In this tokenizer a token is one byte, two for 'ab', also where a window splits a character."""
    ids = _ids(folder)
    expected = [
        sum(2 if _WORDS[i] == "ab" else 1 for i in ids[at + 1 : at + 16]) for at in range(0, len(ids) // 16 * 16, 16)
    ]

    facts = perplexity.evaluate(Bigram(), options, folder)

    assert facts["window_bytes"] == expected
    bits = sum(facts["window_nll"]) / math.log(2) / sum(expected)
    assert perplexity.metrics(facts)["bits_per_byte"] == pytest.approx(bits, rel=1e-12)


def test_spaces_that_offsets_leave_out_are_counted(tmp_path: Path) -> None:
    """A byte-level tokenizer with trimmed offsets (GPT-2's) still covers every byte of the text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"Ġa": len(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    encoded = tokens.encode(Bigram(), _TEXT, tmp_path)

    assert sum(encoded.sizes) == len(_TEXT.encode())
    assert encoded.end == len(_TEXT)
    assert len(encoded.ids) == len(encoded.sizes)
    assert encoded.bos is None


def test_a_cut_text_is_its_first_tokens(folder: Path, options: Options) -> None:
    """`tokens` cuts after encoding, so that the windows kept are those of the whole text."""
    whole = perplexity.evaluate(Bigram(), options, folder)

    cut = perplexity.evaluate(Bigram(), replace(options, tokens=50), folder)

    assert cut["tokens"] == 50
    assert cut["window_nll"] == whole["window_nll"][:3]
    assert cut["sha256"] == whole["sha256"]


def test_the_name_says_the_convention_and_no_path(folder: Path, options: Options) -> None:
    """Everything that moves the figure is in the task's name; where the file lies is nowhere."""
    assert perplexity.title(Options()) == "perplexity-stdlib-hf-512"
    assert perplexity.title(replace(options, stride=16)) == "perplexity-wiki.test.raw-hf-16"
    assert perplexity.title(replace(options, stride=8, tokens=99)) == "perplexity-wiki.test.raw-hf-16-s8-99t"
    assert str(folder) not in json.dumps(perplexity.evaluate(Bigram(), options, folder))


def test_a_text_the_artifact_was_calibrated_on_is_refused(folder: Path, options: Options) -> None:
    """One paragraph in 50 is too much; one that is not in the text is no overlap; the share is a fact."""
    paragraphs = [f"{i} " + "abc " * 60 for i in range(50)]
    (folder / "wiki.test.raw").write_text("\n\n".join(paragraphs))
    calibration = folder / "calibration.json"

    def evaluate(text: str) -> Any:
        calibration.write_text(json.dumps({"sha256": "", "paragraphs": sorted(corpora.fingerprint(text))}, indent=1))
        return perplexity.evaluate(Bigram(), options, folder)["calibration_overlap_fraction"]

    assert evaluate("c" * 300) == 0.0
    with pytest.raises(UserError, match="calibrated on 2% of this text"):
        evaluate(paragraphs[7])
    options = replace(options, tokens=1000)  # the first 4 paragraphs: 7 is not among them
    assert evaluate(paragraphs[7]) == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context": 65}, "the model's context is 64 tokens"),
        ({"context": 64, "tokens": 40}, "40 tokens, fewer than one context of 64"),
        ({"stride": 17}, "stride 17 is outside"),
        ({"context": 1}, "at least 2 tokens"),
        ({"tokens": -1}, "invalid tokens -1"),
        ({"corpus": "stdlb"}, "unknown corpus"),
    ],
)
def test_what_has_no_meaning_is_refused(folder: Path, options: Options, change: dict[str, Any], words: str) -> None:
    """Each refusal is one sentence that says what is wrong."""
    with pytest.raises(UserError, match=words):
        perplexity.evaluate(Bigram(), replace(options, **change), folder)


def test_a_model_that_overflows_is_refused(folder: Path, options: Options) -> None:
    """Logits that are not finite make no perplexity."""
    with pytest.raises(UserError, match="not finite"), np.errstate(all="ignore"):
        perplexity.evaluate(Bigram(scale=1e39), options, folder)


def test_an_engine_that_leaves_positions_out_is_found(folder: Path, options: Options) -> None:
    """Fewer rows than ids is an error, never a smaller sum."""

    class Short(Bigram):
        def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
            return super().logits(ids[:-1])

    with pytest.raises(UserError, match="logits of 15 of 16"):
        perplexity.evaluate(Short(), options, folder)


def test_the_change_of_perplexity_is_exact_and_paired(folder: Path, options: Options) -> None:
    """A loss of 0.01 nats on every token is e^0.01 - 1 without any width: what windows share cancels."""
    baseline = perplexity.evaluate(Bigram(), options, folder)
    moved = [n + 0.01 * c for n, c in zip(baseline["window_nll"], baseline["window_tokens"], strict=True)]

    comparison = perplexity.compare_to_baseline({**baseline, "window_nll": moved}, baseline)

    assert set(comparison) == {f"perplexity_change{part}_fraction" for part in ("", "_low", "_high")}
    assert list(comparison.values()) == pytest.approx([math.expm1(0.01)] * 3, rel=1e-9)
    ratio = (
        perplexity.metrics({**baseline, "window_nll": moved})["perplexity"] / perplexity.metrics(baseline)["perplexity"]
    )
    assert comparison["perplexity_change_fraction"] == pytest.approx(ratio - 1, rel=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Over 1,000 simulated pairs of 60 unequal windows, 93 to 97 % of the intervals hold the true change."""
    random = np.random.default_rng(3)
    counts = random.integers(100, 500, size=60)
    facts: dict[str, Any] = dict.fromkeys(["sha256", "context", "stride", "tokens", "first_ids", "windows"], 0)
    facts["window_tokens"] = counts.tolist()
    base, covered = {**facts, "window_nll": [0.0] * 60}, 0
    for _ in range(1000):
        noise = random.normal(0.02, 0.05, size=60) * counts
        comparison = perplexity.compare_to_baseline({**facts, "window_nll": noise.tolist()}, base)
        low, high = comparison["perplexity_change_low_fraction"], comparison["perplexity_change_high_fraction"]
        covered += low <= math.expm1(0.02) <= high

    assert 930 <= covered <= 970


@pytest.mark.parametrize("key", ["sha256", "context", "stride", "windows", "first_ids"])
def test_different_items_are_not_compared(folder: Path, options: Options, key: str) -> None:
    """Another text, tokenizer or window makes another figure: there is no change to speak of."""
    facts = perplexity.evaluate(Bigram(), options, folder)

    with pytest.raises(UserError, match=key):
        perplexity.compare_to_baseline({**facts, key: "other"}, facts)
