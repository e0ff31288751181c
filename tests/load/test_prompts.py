from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bench.contract.errors import UserError
from bench.load import prompts

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo" / "tokenizer.json"
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]
TEXT = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(0, len(WORDS), 31)]


def _trainer(**options: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=1500, show_progress=False, **options)


def byte_level(file: Path) -> None:
    """As GPT-2: a space belongs to the word after it, and nothing is added."""
    tokenizer_ = Tokenizer(models.BPE())
    tokenizer_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer_.train_from_iterator(TEXT, _trainer(initial_alphabet=alphabet))
    tokenizer_.save(str(file))


def metaspace(file: Path) -> None:
    """As Llama: a space before the first word too, and BOS."""
    tokenizer_ = Tokenizer(models.BPE())
    tokenizer_.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer_.decoder = decoders.Metaspace()
    tokenizer_.train_from_iterator(TEXT, _trainer(special_tokens=["<s>"]))
    tokenizer_.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    tokenizer_.enable_truncation(10)  # as many published tokenizers are saved
    tokenizer_.enable_padding(length=20)
    tokenizer_.save(str(file))


def grown_together(file: Path) -> None:
    """Without a pre-tokenizer, as Llama's own: tokens may hold several words."""
    tokenizer_ = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106
    tokenizer_.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer_.train_from_iterator(TEXT, _trainer(special_tokens=["<unk>"]))
    tokenizer_.save(str(file))


def word_level(file: Path) -> None:
    """Whole words, some of which the lower-casing makes unknown."""
    known = {word: i for i, word in enumerate(["[UNK]", *WORDS, *(word.upper() for word in WORDS)])}
    tokenizer_ = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))  # noqa: S106
    tokenizer_.normalizer = normalizers.Lowercase()
    tokenizer_.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer_.save(str(file))


def word_piece(file: Path) -> None:
    """As BERT: a token before and one behind."""
    known = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *WORDS, "##s", "##ing"])}
    tokenizer_ = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))  # noqa: S106
    tokenizer_.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer_.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer_.save(str(file))


def letters(file: Path) -> None:
    """Bytes without merges: no word is one token."""
    known = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer_ = Tokenizer(models.BPE(known, []))
    tokenizer_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer_.save(str(file))


MAKERS = [byte_level, metaspace, grown_together, word_level, word_piece, letters]


@pytest.fixture(params=[*MAKERS, None], ids=lambda make: make.__name__ if make else "demo")
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tokenizer.json of each kind, and the demo model's."""
    if request.param is None:
        return DEMO
    file = tmp_path / "tokenizer.json"
    request.param(file)
    return file


def encoded(file: Path, texts: Sequence[str]) -> list[list[int]]:
    loaded = Tokenizer.from_file(str(file))
    loaded.no_truncation()
    loaded.no_padding()
    return [loaded.encode(text).ids for text in texts]


def test_unique_prompts_are_what_they_were() -> None:
    """Recorded results depend on these very ids."""
    assert prompts.of_lengths([5] * 3, 4096, "pin") == (
        (1193, 2339, 2586, 3532, 988),
        (2169, 984, 3132, 594, 2579),
        (2167, 3450, 3085, 2441, 3172),
    )
    assert prompts.of_lengths([3] * 4, 3, "few") == ((2, 2, 0), (1, 2, 0), (1, 0, 0), (0, 1, 2))


def test_prompts_have_their_lengths_and_different_firsts() -> None:
    """Each is as long as asked for; no two begin alike; ids avoid the low ones."""
    lengths = [1, 2, 500, 3, 64] * 40
    drawn = prompts.of_lengths(lengths, 4096, "s")

    assert [len(ids) for ids in drawn] == lengths
    assert len({ids[0] for ids in drawn}) == 200
    assert all(512 <= i < 4096 for ids in drawn for i in ids)


def test_shared_blocks_are_shared_prefixes() -> None:
    """Two prompts agree just as far as their blocks do, though the last block is cut."""
    one = prompts.blocked((0, 5, 6), 1100, 32000, "s")
    two = prompts.blocked((0, 5, 7, 8), 1600, 32000, "s")
    short = prompts.blocked((0, 5), 600, 32000, "s")

    assert (len(one), len(two), len(short)) == (1100, 1600, 600)
    assert one[:1024] == two[:1024]
    assert one[1024:1100] != two[1024:1100]
    assert short == one[:600]
    assert prompts.blocked((0, 5), 600, 32000, "t") != short
    assert prompts.blocked((3, 4), 5, 32000, "s", size=4)[:4] == prompts.blocked((3,), 4, 32000, "s")


@pytest.mark.parametrize("blocks", [(1,), (1, 2, 3)])
def test_blocks_fill_the_length(blocks: tuple[int, ...]) -> None:
    """Too few would leave a prompt short, too many are of another size."""
    with pytest.raises(ValueError, match="must be as many as 600 tokens fill"):
        prompts.blocked(blocks, 600, 32000, "s")


def test_a_prompt_has_a_token() -> None:
    """A length of zero is an error, not a prompt of one token."""
    with pytest.raises(ValueError, match="must be at least 1"):
        prompts.of_lengths([4, 0], 4096, "s")


def test_texts_are_exact(tokenizer: Path) -> None:
    """Every length from the shortest on, special tokens included, for every kind of tokenizer."""
    least = len(encoded(tokenizer, [""])[0]) + 1
    lengths = [*range(least, 60), 512, 1000]
    drawn = prompts.exact_texts(lengths, tokenizer, "s")

    assert [len(ids) for ids in encoded(tokenizer, drawn)] == lengths
    assert drawn == prompts.exact_texts(lengths, tokenizer, "s")
    assert drawn != prompts.exact_texts(lengths, tokenizer, "t")


@pytest.mark.parametrize("make", [byte_level, metaspace, word_level, word_piece])
def test_texts_begin_differently(make: object, tmp_path: Path) -> None:
    """First tokens of the text's own are all different, so that no prefix cache hits."""
    file = tmp_path / "tokenizer.json"
    assert callable(make)
    make(file)
    special = 0 if make in (byte_level, word_level) else 1

    drawn = encoded(file, prompts.exact_texts([40] * 60, file, "s"))

    assert len({ids[special] for ids in drawn}) == 60


def test_more_texts_than_words_are_still_exact() -> None:
    """Then first words come again."""
    drawn = prompts.exact_texts([12] * 2000, DEMO, "s")

    assert {len(ids) for ids in encoded(DEMO, drawn)} == {12}
    assert len(set(drawn)) == 2000


def test_no_text_is_shorter_than_its_special_tokens(tmp_path: Path) -> None:
    """BOS alone is no prompt."""
    metaspace(tmp_path / "tokenizer.json")

    with pytest.raises(UserError, match=r"no text has 1 tokens.*adds 1 .*at least 2"):
        prompts.exact_texts([8, 1], tmp_path / "tokenizer.json", "s")


def test_a_tokenizer_that_cannot_be_met_says_what_to_do(tmp_path: Path) -> None:
    """One that makes a token of every text has none of two."""
    tokenizer_ = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1}, unk_token="[UNK]"))  # noqa: S106
    tokenizer_.save(str(tmp_path / "tokenizer.json"))

    assert prompts.exact_texts([1], tmp_path / "tokenizer.json", "s") == ("one",)
    with pytest.raises(UserError, match=r"exactly 5 tokens.*give the server token ids instead"):
        prompts.exact_texts([1, 5], tmp_path / "tokenizer.json", "s")


def test_a_file_that_is_no_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    """Whatever the library says of it is in the sentence."""
    with pytest.raises(UserError, match=r"cannot read .*tokenizer\.json as a tokenizer"):
        prompts.exact_texts([5], tmp_path / "tokenizer.json", "s")


def test_texts_are_cut_to_fit(tokenizer: Path) -> None:
    """A text that fits stays; a longer one keeps as much of its beginning as the tokenizer lets it."""
    text = "The naïve café — 東京 🙂 def f(x): return x\n" * 20
    whole = len(encoded(tokenizer, [text])[0])

    stays, long, short = prompts.texts([text] * 3, [whole, 60, 5], tokenizer)

    assert stays == text
    assert text.startswith(long)
    assert text.startswith(short)
    assert 50 <= len(encoded(tokenizer, [long])[0]) <= 60
    assert len(encoded(tokenizer, [short])[0]) <= 5
