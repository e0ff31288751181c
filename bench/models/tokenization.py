"""Whether two models cut a text into the same tokens, as far as their files say: no library reads them here."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench import formats
from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import gguf_reader, tokenizer_files

_LARGEST = 1 << 27
_TOKENS, _TYPES, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
_NO_TEXT = frozenset({2, 3, 5})  # types of GGUF tokens: unknown, control, unused (padding)
_SPACE, _ENCODED_SPACE = "\N{LOWER ONE EIGHTH BLOCK}", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"
_SHOWN = 40  # characters of a token
# Settings of tokenizer.json that change no ids, and the values that others have where they are left out.
_WITHOUT_EFFECT = frozenset({"trim_offsets", "vocab", "merges", "unk_token", "dropout"})
_DEFAULTS: Mapping[str, Any] = {"use_regex": True, "split": True}


@dataclass(frozen=True)
class Tokenization:
    """`tokens` by id; `special`: ids that no text gives. The rest where the files have it.

    `merges`: the order in which tokens are put together, as the file has them. `rules`: parts of a tokenizer.json, as
    JSON without what changes nothing. `around`: ids before and behind each text.
    """

    tokens: Mapping[int, str]
    special: frozenset[int]
    merges: Sequence[Any] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    around: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def difference(baseline: Path, other: Path) -> str:
    """How the tokenizer of `other` cuts a text otherwise than the baseline's, in a clause; "" where it does not.

    Tokens that no text gives (special ones, padding) may be others, or be missing. Also "" where one of the two has no
    tokenizer that can be read.
    """
    first, second = (path / tokenizer_files.FAST for path in (baseline, other))
    if wire.is_file(first) and wire.is_file(second) and filecmp.cmp(first, second, shallow=False):
        return ""
    one, two = read(baseline), read(other)
    return "" if one is None or two is None else next(_differences(one, two), "")


def _differences(one: Tokenization, two: Tokenization) -> Iterator[str]:
    """In the order in which they are told."""
    for number in sorted(one.tokens.keys() | two.tokens.keys()):
        first, second = one.tokens.get(number), two.tokens.get(number)
        silent = [number in its.special or number not in its.tokens for its in (one, two)]
        if first != second and not all(silent):
            yield f"token {number} is {_shown(first)} in the baseline's and {_shown(second)} in its own"
    if one.merges and two.merges and one.merges != two.merges:
        pairs = zip_longest(map(_merge, one.merges), map(_merge, two.merges))
        for place, (first, second) in enumerate(pairs):
            if first != second:
                yield f"merge {place} is {_shown(first)} in the baseline's and {_shown(second)} in its own"
    for part in one.rules.keys() & two.rules.keys():
        if one.rules[part] != two.rules[part]:
            yield f"its {part} is another one, over the same tokens"
    if one.around is not None and two.around is not None and one.around != two.around:
        yield f"it puts other tokens around a text: {_put(two)} where the baseline's has {_put(one)}"


def read(path: Path) -> Tokenization | None:
    """Of a model's folder or file; None where it has no tokenizer that is known here."""
    file = path / tokenizer_files.FAST
    if path.is_dir() and file.is_file():
        return _fast(file, file.stat().st_size, file.stat().st_mtime_ns)
    if formats.tokenizer_env(formats.detect(path)):
        return _gguf(path)
    form = None if tokenizer_files.unusable(path) else tokenizer_files.form(path)
    if form is None:
        return None
    vocabulary = tokenizer_files.vocabulary(path, form)
    return Tokenization({n: text.replace(_SPACE, " ") for text, n in vocabulary.items()}, frozenset())


@lru_cache(maxsize=2)  # of which one is the baseline's, compared with each checkpoint's
def _fast(file: Path, size: int, mtime_ns: int) -> Tokenization:  # noqa: ARG001  (a file that changed is another one)
    try:
        parsed = wire.read_json(file, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read: {error}") from None
    its = _mapping(parsed)
    model = _mapping(its.get("model"))
    vocabulary, merges = model.get("vocab"), _list(model.get("merges"))
    tokens: dict[int, str] = {}
    if isinstance(vocabulary, dict):
        tokens = {number: text for text, number in vocabulary.items() if isinstance(number, int)}
    elif isinstance(vocabulary, list):  # a unigram model's, with the logarithms of their probabilities
        pieces = [piece for piece in vocabulary if isinstance(piece, list) and len(piece) == 2]
        tokens = {number: str(text) for number, (text, _) in enumerate(pieces)}
        merges = [f"{text} {score:.4f}" for text, score in pieces if isinstance(score, int | float)]
    added = [entry for entry in map(_mapping, _list(its.get("added_tokens"))) if isinstance(entry.get("id"), int)]
    tokens |= {entry["id"]: str(entry.get("content")) for entry in added}
    rules = {
        "normalizer": its.get("normalizer"),
        "pre_tokenizer": its.get("pre_tokenizer"),
        "model": {key: value for key, value in model.items() if not isinstance(value, dict | list)},
    }
    return Tokenization(
        {number: text.replace(_SPACE, " ") for number, text in tokens.items()},
        frozenset(entry["id"] for entry in added if entry.get("special")),
        merges,
        {part: json.dumps(_plain(rule), sort_keys=True) for part, rule in rules.items()},
        _around(_mapping(its.get("post_processor"))),
    )


def _gguf(path: Path) -> Tokenization:
    stored = gguf_reader.arrays(path, (_TOKENS, _TYPES, _MERGES))
    types = stored.get(_TYPES, [])
    return Tokenization(
        {number: str(text).replace(_SPACE, " ") for number, text in enumerate(stored.get(_TOKENS, []))},
        frozenset(number for number, kind in enumerate(types) if kind in _NO_TEXT),
        stored.get(_MERGES, []),
    )


def _merge(pair: Any) -> str:
    """Two tokens, one space between; spaces in a token as the converter to GGUF writes them."""
    if isinstance(pair, list | tuple):
        pair = " ".join(str(part).replace(" ", _ENCODED_SPACE) for part in pair)
    return str(pair).replace(_SPACE, _ENCODED_SPACE)


def _plain(value: Any) -> Any:
    """A part of tokenizer.json without what has no effect on ids: a sequence of one is its only element."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    steps = next((value[key] for key in ("normalizers", "pretokenizers") if isinstance(value.get(key), list)), None)
    if value.get("type") == "Sequence" and steps is not None and len(steps) == 1:
        return _plain(steps[0])
    ignored = {*_WITHOUT_EFFECT, *(("add_prefix_space",) if "prepend_scheme" in value else ())}
    effective = {key: _plain(each) for key, each in value.items() if key not in ignored}
    plain = effective.items()
    return {key: each for key, each in plain if each != _DEFAULTS.get(key, False) and each not in (None, "", [])}


def _around(processor: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a post-processor puts before and behind a text."""
    before: list[int] = []
    behind: list[int] = []
    for step in _steps(processor):
        ids = {name: _mapping(its).get("ids") for name, its in _mapping(step.get("special_tokens")).items()}
        into = before
        for part in map(_mapping, _list(step.get("single"))):
            if "Sequence" in part:
                into = behind
            into += [n for n in _list(ids.get(str(_mapping(part.get("SpecialToken")).get("id")))) if isinstance(n, int)]
        for key, into in (("cls", before), ("sep", behind)):  # of BERT and RoBERTa
            pair = _list(step.get(key))
            into += [n for n in pair[1:] if isinstance(n, int)]
    return tuple(before), tuple(behind)


def _steps(processor: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if processor.get("type") == "Sequence":
        yield from map(_mapping, _list(processor.get("processors")))
    else:
        yield processor


def _put(its: Tokenization) -> str:
    numbers = [n for side in its.around or () for n in side]
    return " and ".join(_shown(its.tokens.get(n)) for n in numbers) or "none"


def _shown(text: str | None) -> str:
    return "none" if text is None else repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
