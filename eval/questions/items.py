"""A JSONL file of questions: {question, answer}, or {question, functions, call} for a call of a function."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

_FORMS = "{question, answer} or {question, functions, call}"
_MOST_BYTES = 1 << 28
_CALL = (
    "You can call these functions, each a JSON object with its name and the JSON schema of its parameters:\n"
    "{functions}\n"
    "Answer with nothing but the call, as a JSON object. A call of get_time with the city Rome would be\n"
    '{{"name": "get_time", "arguments": {{"city": "Rome"}}}}'
)


@dataclass(frozen=True)
class Item:
    """`answers`: each of them is right; `pattern`: of this item alone; `call`: a function's name and arguments."""

    line: int
    question: str
    answers: tuple[str, ...] = ()
    pattern: str = ""
    functions: tuple[Mapping[str, Any], ...] = ()
    call: Mapping[str, Any] | None = None

    def messages(self, template: str) -> tuple[tuple[str, str], ...]:
        """What it asks as a conversation; `template` has {question} where the question is."""
        message = ("user", template.replace("{question}", self.question))
        if self.call is None:
            return (message,)
        listed = "\n".join(json.dumps(function, ensure_ascii=False) for function in self.functions)
        return (("system", _CALL.format(functions=listed)), message)


def read(path: Path, limit: int = 0) -> list[Item]:
    """The items of a file, the first `limit` where that is above 0; UserError names the first line that is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path.name} has over {_MOST_BYTES >> 20} MiB: give a part of it")
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read as a JSONL file of questions: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} cannot be read as a JSONL file of questions: {error}") from None
    # Not splitlines: a JSON string may hold what else ends a line in Unicode.
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    items = [_item(path.name, number, line) for number, line in lines]
    if not items:
        raise UserError(f"{path.name} holds no question: expected a line of {_FORMS} for each")
    return items[: limit or None]


def _item(name: str, number: int, line: str) -> Item:
    where = f"{name}, line {number}"
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has half of a character (a lone surrogate), which no text has: correct it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): expected {_FORMS}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where} is no JSON object: expected {_FORMS}")
    question = fields.get("question")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: question is missing or no text: expected {_FORMS}")
    if "call" in fields or "functions" in fields:
        return Item(number, question, functions=_functions(where, fields), call=_call(where, fields))
    answers = fields.get("answer")
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) for a in answers):
        raise UserError(f"{where}: answer is missing, or neither a text nor a list of texts: expected {_FORMS}")
    return Item(number, question, tuple(answers), _pattern(where, fields.get("pattern", "")))


def _pattern(where: str, pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise UserError(f"{where}: pattern is no text: expected a regular expression")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: pattern is no regular expression ({error}): correct it") from None
    return pattern


def _functions(where: str, fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    functions = fields.get("functions")
    if not isinstance(functions, list) or not functions or not all(map(_is_named, functions)):
        raise UserError(f"{where}: functions is missing, or no list of objects with a name: expected {_FORMS}")
    return tuple(functions)


def _call(where: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    call = fields.get("call")
    if not isinstance(call, dict) or not _is_named(call) or not isinstance(call.get("arguments"), dict):
        raise UserError(f"{where}: call is missing, or not {{name, arguments}}: expected {_FORMS}")
    known: Sequence[str] = [function["name"] for function in fields["functions"]]
    if call["name"] not in known:
        raise UserError(f"{where}: call names {call['name']!r}, which is none of its functions: {', '.join(known)}")
    return call


def _is_named(function: Any) -> bool:
    return isinstance(function, dict) and isinstance(function.get("name"), str)
