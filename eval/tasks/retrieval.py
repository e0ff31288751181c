"""Whether a model still finds what stands in its context, by how long that is and how deep it stands there.

A fact that nothing but the prompt tells is hidden at known depths of prompts of known lengths (eval/text/haystack.py):
one pair of many in a JSON object, or a pass key in a text. What is counted is whether the greedy answer begins with the
fact's tokens, each of them. The mean negative log-likelihood of these tokens, in nats, still moves where no answer is
right, or all are. What a cache of keys and values loses, it loses here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.columns import ACCURACY, PAIRED_CHANGES, Column, Group, Part
from bench.contract.errors import UserError
from bench.contract.hooks import Prompt, Session
from eval import corpora
from eval.scoring import likelihood
from eval.stats import paired, proportion
from eval.text import haystack, windows
from eval.text.haystack import Item, Place

VERSION = 1
REFERENCE = False
_NLL_CHANGE = Column(
    "answer_nll_change",
    "answer nll vs baseline",
    better="lower",
    groups=Group.CHANGE,
    interval=("answer_nll_change_low", "answer_nll_change_high"),
)
_NLL = Column(
    "answer_nll",
    "answer nll",
    better="lower",
    interval=("answer_nll_low", "answer_nll_high"),
    change=_NLL_CHANGE,
    text_unit="nats",
)
COLUMNS = (ACCURACY, _NLL, *PAIRED_CHANGES, _NLL_CHANGE)
PART_COLUMNS = (ACCURACY, _NLL, _NLL_CHANGE)
_LENGTHS, _DEPTHS = "512,2048,8192", "0,0.25,0.5,0.75,1"
_ALL = "all"
_TOKENS_AT_ONCE = 16384  # of prompts that an engine may continue together: their keys and values fill memory
# Facts that two comparable records share.
_SAME = ("items_sha256", "lengths", "depths", "items_per_place")


@dataclass(frozen=True)
class Options:
    """`lengths` in tokens and `depths` within 0 .. 1, each with commas between; `items` of every one of each.

    `corpus`: a text that a pass key is hidden in; without one pairs of a JSON object, of which one is asked for.
    """

    corpus: str = ""
    lengths: str | int = _LENGTHS
    depths: str | float = _DEPTHS
    items: int = 10
    seed: int = 0


def title(options: Options) -> str:
    """As retrieval-pairs-512-2048-8192, with -d0-50 for other depths, and -20items, -seed1.

    UserError for lengths and depths that are none.
    """
    shares = [f"{100 * depth:g}" for depth in _depths(options)]
    parts = {
        windows.label(options.corpus) or "pairs": True,
        "-".join(map(str, _lengths(options))): True,
        f"d{'-'.join(shares)}": options.depths != _DEPTHS,
        f"{options.items}items": options.items != Options.items,
        f"seed{options.seed}": options.seed != Options.seed,
    }
    return "-".join(["retrieval", *(part for part, applies in parts.items() if applies)])


def longest(options: Options) -> int:
    return max(_lengths(options))


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """Per item: its answer's negative log-likelihood (nats), its tokens, and whether the greedy answer is the same.

    UserError where a length is too short for a prompt, or longer than the text, and where scores are not finite.
    """
    del reference
    corpus = corpora.load(options.corpus) if options.corpus else None
    items = _items(session, options, folder, corpus)
    scores = likelihood.scores(session, [[item.prompt, [item.answer]] for item in items])
    nlls = [-score.logprob for (score,) in scores]
    if not all(map(math.isfinite, nlls)):
        raise UserError("log-probabilities of the answers are not finite: use a wider compute dtype")
    greedy = _greedy(session, items)
    plain = [[item.place.length, item.place.depth, item.prompt, item.answer] for item in items]
    return {
        "metric": "exact_match",
        "corpus": windows.label(options.corpus) or "pairs",
        "sha256": corpus.sha256 if corpus else "",
        "items_sha256": hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest(),
        "lengths": _lengths(options),
        "depths": _depths(options),
        "items_per_place": options.items,
        "item_scores": "".join("01"[right] for right in greedy),
        "item_nll": nlls,
        "answer_tokens": [len(item.answer) for item in items],
        "prompt_tokens": [len(item.prompt) for item in items],
        "fact_tokens": [item.fact for item in items],
    }


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """The share of right answers with Wilson's 95 % interval, and the answers' nats per token with Student's."""
    scores, count = list(map(int, facts["item_scores"])), len(facts["item_scores"])
    share = sum(scores) / count
    stderr = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else 0.0
    return {**_of(facts, range(count)), "exact_match": share, "exact_match_stderr": stderr}


def parts(facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Sequence[Part]:
    """By length and depth, and by length at all depths."""
    if baseline is not None:
        paired.require_same_items(facts, baseline, _SAME, ("item_nll", "answer_tokens"))
    return list(_parts(facts, baseline))


def compare_to_baseline(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """Answers lost and won on the same items, and the change of their tokens' likelihood; eval/stats/paired.py."""
    paired.require_same_items(facts, baseline, _SAME, ("item_scores", "item_nll", "answer_tokens"))
    score, base = (metrics(its)["accuracy_fraction"] for its in (facts, baseline))
    recovery = {"score_recovery_fraction": score / base} if base else {}
    items = [[float(item) for item in its["item_scores"]] for its in (facts, baseline)]
    return {**recovery, **paired.compare(*items), **_nll_change(facts, baseline, range(len(items[0])))}


def _items(session: Session, options: Options, folder: Path, corpus: corpora.Corpus | None) -> list[Item]:
    places = [Place(length, depth) for length in _lengths(options) for depth in _depths(options)]
    built = haystack.items(session, folder, corpus, places, options.items, options.seed)
    return list(phase.each(built, "building the prompts: {done:,} of {total:,}", len(places) * options.items))


def _greedy(session: Session, items: Sequence[Item]) -> list[bool]:
    """Whether the greedy continuation of each prompt begins with its answer: it is made as far as it does."""
    right: list[bool] = []
    steps = phase.Steps("answering: {done:,} of {total:,} prompts", len(items))
    steps.at(0)
    for batch in _batches(items):
        prompts = [Prompt(item.prompt, len(item.answer)) for item in batch]

        def ended(number: int, tokens: Sequence[int], batch: Sequence[Item] = batch) -> bool:
            return tuple(tokens) != batch[number].answer[: len(tokens)]

        answers = likelihood.continued(session, prompts, ended)
        right += [tuple(answers[number]) == item.answer for number, item in enumerate(batch)]
        steps.at(len(right))
    return right


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Neighbours, which are about as long, as far as their tokens are few enough."""
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) + 1) * item.place.length > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _parts(facts: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Iterator[Part]:
    depths, count = facts["depths"], facts["items_per_place"]
    for row, length in enumerate(facts["lengths"]):
        start = row * len(depths) * count
        for column, depth in enumerate(depths):
            first = start + column * count
            yield _part(facts, baseline, str(length), f"{100 * depth:g} %", range(first, first + count), depth)
        if len(depths) > 1:
            yield _part(facts, baseline, str(length), _ALL, range(start, start + len(depths) * count), 1.0)


def _part(
    facts: Mapping[str, Any], baseline: Mapping[str, Any] | None, length: str, depth: str, items: range, at: float
) -> Part:
    change = _nll_change(facts, baseline, items) if baseline is not None else {}
    return Part({"length": length, "depth": depth}, {**_of(facts, items), **change}, at)


def _of(facts: Mapping[str, Any], items: range) -> dict[str, float]:
    right = sum(int(facts["item_scores"][item]) for item in items)
    low, high = proportion.wilson(right / len(items), len(items))
    return {
        "accuracy_fraction": right / len(items),
        "accuracy_low_fraction": low,
        "accuracy_high_fraction": high,
        "scored_items": float(len(items)),
        **_per_token("answer_nll", [facts["item_nll"][item] for item in items], facts, items),
    }


def _nll_change(facts: Mapping[str, Any], baseline: Mapping[str, Any], items: range) -> dict[str, float]:
    changes = [facts["item_nll"][item] - baseline["item_nll"][item] for item in items]
    return _per_token("answer_nll_change", changes, facts, items)


def _per_token(name: str, sums: Sequence[float], facts: Mapping[str, Any], items: range) -> dict[str, float]:
    """The mean per token of the answers, from two items on with its interval."""
    value, half = paired.per_token(sums, [facts["answer_tokens"][item] for item in items])
    return {name: value, **({f"{name}_low": value - half, f"{name}_high": value + half} if len(items) > 1 else {})}


def _lengths(options: Options) -> list[int]:
    words = _words(options.lengths)
    if not words or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise UserError(f"lengths: {options.lengths!r} is no list of tokens: write numbers, as in '{_LENGTHS}'")
    return list(map(int, words))


def _depths(options: Options) -> list[float]:
    try:
        depths = [float(word) for word in _words(options.depths)]
    except ValueError:
        depths = []
    if not depths or not all(0 <= depth <= 1 for depth in depths):
        raise UserError(f"depths: {options.depths!r} is no list of numbers within 0 .. 1: write them as in '{_DEPTHS}'")
    if options.items < 1:
        raise UserError(f"items: {options.items} leaves nothing to measure: give 1 or more of each length and depth")
    return depths


def _words(values: object) -> list[str]:
    """What is between commas, each once; a single number is not quoted in YAML."""
    return list(dict.fromkeys(word.strip() for word in str(values).split(",") if word.strip()))
