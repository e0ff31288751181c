"""Whether an answer is right: the same text, the same part by a regular expression, or the same call of a function."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.questions.items import Item

_MOST_CALLS = 64  # beginnings of objects that are looked at for a call


@dataclass(frozen=True)
class Verdict:
    """`right` in all; `part`: of the answer, that was compared.

    Of a call whether it `is_json`, and whether the function's `name` is right.
    """

    right: bool
    part: str
    is_json: bool | None = None
    name: bool | None = None


def judge(item: Item, answer: str, pattern: str) -> Verdict:
    """The verdict on an answer; `pattern` is the task's, over which an item's own goes."""
    if item.call is not None:
        return _judge_call(item.call, answer)
    wanted = item.pattern or pattern
    part = extracted(answer, wanted)
    right = any(part == extracted(reference, wanted) for reference in item.answers) and bool(part)
    return Verdict(right, part)


def extracted(text: str, pattern: str) -> str:
    """The last match of a pattern (its first group where it has one) without commas in numbers; the text without one.

    "" where the pattern has no match.
    """
    if not pattern:
        return " ".join(text.split())
    last = deque(re.finditer(pattern, text), maxlen=1)
    if not last:
        return ""
    part = last[0].group(1 if last[0].re.groups else 0) or ""
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(part.split())).removesuffix(".")


def _judge_call(call: Mapping[str, Any], answer: str) -> Verdict:
    given = _first_call(answer)
    if given is None:
        return Verdict(right=False, part="", is_json=False, name=False)
    part = json.dumps({"name": given["name"], "arguments": given["arguments"]}, sort_keys=True, ensure_ascii=False)
    name = given["name"] == call["name"]
    return Verdict(name and _same(given["arguments"], call["arguments"]), part, is_json=True, name=name)


def _first_call(answer: str) -> Mapping[str, Any] | None:
    """The first JSON object of the answer that is a call; of OpenAI's form the function within it."""
    decoder, start = json.JSONDecoder(), -1
    for _ in range(_MOST_CALLS):
        if (start := answer.find("{", start + 1)) < 0:
            return None
        try:
            given, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        given = given.get("function", given) if isinstance(given, dict) else given
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            arguments = given.get("arguments", given.get("parameters"))
            if isinstance(arguments, str):  # OpenAI's are a text of JSON
                try:
                    arguments = json.loads(arguments)
                except (ValueError, RecursionError):
                    continue
            if isinstance(arguments, dict):
                return {"name": given["name"], "arguments": arguments}
    return None


def _same(one: Any, other: Any) -> bool:
    """JSON values that mean the same: 2 and 2.0 do, 1 and true do not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
