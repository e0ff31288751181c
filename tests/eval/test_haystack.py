"""Prompts with a hidden fact: the same for the same seed, as long and the fact as deep as they say."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from tokenizers import Tokenizer

from bench.contract.errors import UserError
from eval.corpora import Corpus
from eval.text import haystack
from eval.text.haystack import Item, Place
from tests.conftest import ROOT
from tests.eval.sessions import Given, random_logits

_DEMO = ROOT / "models/demo"
_SESSION = Given(random_logits(5))
_PLACES = [Place(length, depth) for length in (256, 700) for depth in (0, 0.5, 1)]
_STORY = Corpus("path:/a/story.txt", "evaluation", "".join(f"Sentence {n} says nothing new. " for n in range(2000)))
# Of the prompts below, by models/demo: prompts that change are another measurement, and VERSION is raised.
_SHA256 = {
    "pairs": "3301ff84f717949e1f1aa6cdae4ee9263b80a8eeeff254743976b7b5d0615b9d",
    "text": "0b1f722a4efc2cbb9f0438fab0cd4c6f4e4b4b5dbbbffa75fdef0d273f33059e",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(_DEMO / "tokenizer.json"))


def _items(corpus: Corpus | None, seed: int = 0, places: list[Place] = _PLACES) -> list[Item]:
    return list(haystack.items(_SESSION, _DEMO, corpus, places, 2, seed))


def _sha256(items: list[Item]) -> str:
    return hashlib.sha256(json.dumps([[item.prompt, item.answer] for item in items]).encode()).hexdigest()


@pytest.mark.parametrize(("name", "corpus"), [("pairs", None), ("text", _STORY)])
def test_prompts_are_those_of_the_seed(name: str, corpus: Corpus | None) -> None:
    """On any machine and in any version; another seed has others, and no two items are the same."""
    items = _items(corpus)

    assert _sha256(items) == _SHA256[name]
    assert _sha256(_items(corpus, seed=1)) != _SHA256[name]
    assert len({item.prompt for item in items}) == len({item.answer for item in items}) == len(items)


@pytest.mark.parametrize("corpus", [None, _STORY])
def test_a_prompt_with_its_answer_is_just_short_of_its_length(corpus: Corpus | None) -> None:
    """By less than one pair or sentence more."""
    for item in _items(corpus):
        tokens = len(item.prompt) + len(item.answer)
        assert item.place.length - 48 < tokens < item.place.length


@pytest.mark.parametrize("corpus", [None, _STORY])
def test_the_fact_is_as_deep_as_it_is_said_to_be(corpus: Corpus | None, tokenizer: Tokenizer) -> None:
    """At the beginning, in the middle, at the end of what comes before the question; the answer is there once."""
    for item in _items(corpus):
        before = tokenizer.decode(item.prompt[: item.fact])
        text, answer = tokenizer.decode(item.prompt), tokenizer.decode(item.answer).strip()
        question = text.rindex("Values of keys" if corpus is None else "What is the pass key")
        assert len(before) / question == pytest.approx(item.place.depth, abs=0.2)
        assert before.count(answer) == 0
        assert text.count(answer) == (1 if corpus is None else 2)
        assert text.startswith(before)


def test_the_pairs_are_json_and_the_question_is_one_of_its_keys(tokenizer: Tokenizer) -> None:
    """All keys and values are different; the two examples before the question are right."""
    for item in _items(None):
        text = tokenizer.decode(item.prompt).removeprefix("<s>")
        pairs = json.loads(text[: text.index("}") + 1])
        lookups = re.findall(r'"(\w+)": "(\w*)', text[text.index("}") :])
        assert len({*pairs, *pairs.values()}) == 2 * len(pairs)
        assert len(lookups) == 3
        assert [pairs[key] for key, _ in lookups] == [
            *(value for _, value in lookups[:2]),
            tokenizer.decode(item.answer),
        ]


def test_the_text_is_the_corpus_around_the_fact(tokenizer: Tokenizer) -> None:
    """Whole sentences that follow each other, from another place in each item."""
    starts = set()
    for item in _items(_STORY):
        text = tokenizer.decode(item.prompt)
        numbers = [int(number) for number in re.findall(r"Sentence (\d+) says nothing new\.", text)]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        starts.add(numbers[0])
    assert len(starts) > 6


def test_what_cannot_be_built_is_one_sentence() -> None:
    """A length that its question fills says what is needed; a text that is too short is named without its folder."""
    with pytest.raises(UserError, match=r"a prompt of 16 tokens has no room for its question: \d+ are needed"):
        _items(None, places=[Place(16, 0.5)])
    with pytest.raises(UserError, match=r"the text 'story\.txt' has fewer tokens than a prompt of 90000"):
        _items(_STORY, places=[Place(90000, 0.5)])
