"""Files of real prompts: Spec-Bench's questions, ShareGPT's conversations, or a `prompt` or `messages` a line.

Each line is recognised by its keys. ShareGPT's one JSON list is read as lines of objects are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.outside import printable
from bench.contract.prompt import TextPrompt

_BYTES_MAX = 1 << 31
_VALUES_MAX = 40_000_000  # lists, objects and their members, by the signs that open and part them
_LABEL_LENGTH = 80  # characters of an id and of a category that are kept
_IDS = ("question_id", "id", "prompt_id", "task_id")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant"}
_ROLES |= {"bing": "assistant", "assistant": "assistant", "system": "system"}
FORMATS = (
    "Spec-Bench's question.jsonl (question_id, category, turns), ShareGPT's JSON or JSON lines (conversations), "
    "or JSON lines with a prompt or messages"
)


@dataclass(frozen=True)
class PromptFile:
    """`prompts` in the file's order; `kinds`: the keys by which its lines were recognised."""

    name: str
    sha256: str
    prompts: tuple[TextPrompt, ...]
    kinds: tuple[str, ...]


def read(path: Path) -> PromptFile:
    """The prompts of a file; UserError, which names the file and the line, for what is none."""
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read the prompts {path}: {error.strerror}") from None


@lru_cache(maxsize=4)
def _read(path: Path, size: int, _: int) -> PromptFile:
    if size > _BYTES_MAX:
        raise UserError(f"{path} has over {_BYTES_MAX >> 30} GiB: give a part of it")
    data = wire.read_bytes(path, _BYTES_MAX)
    if sum(map(data.count, (b"[", b"{", b","))) > _VALUES_MAX:
        raise UserError(f"{path} has over {_VALUES_MAX:,} values: give a part of it")
    read = [_prompt(path, line, fields) for line, fields in _objects(path, data)]
    prompts = tuple(prompt for prompt, _ in read if prompt is not None)
    if not prompts:
        raise UserError(f"{path} has no prompt in it: expected {FORMATS}")
    return PromptFile(path.name, wire.sha256(path), prompts, tuple(sorted({kind for _, kind in read})))


def _objects(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    """(line, value) of each line, or of each member of the one list; of a list the line is the member's number."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip().startswith(b"["):
        try:
            yield from enumerate(orjson.loads(data), 1)
        except orjson.JSONDecodeError as error:
            raise _damaged(path, error.lineno, f"not valid JSON ({error.msg})") from None
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _damaged(path, number, f"not valid JSON ({error.msg})") from None


def _prompt(path: Path, line: int, fields: Any) -> tuple[TextPrompt | None, str]:
    """The prompt of a line and the key it was recognised by; None for a conversation that nobody begins."""
    if not isinstance(fields, Mapping):
        raise _damaged(path, line, "it is no JSON object")
    kind = next((name for name in ("turns", "conversations", "messages", "prompt") if name in fields), "")
    if not kind:
        keys = ", ".join(map(repr, list(fields)[:4])) or "none"
        raise UserError(f"unknown prompt format in {path}, line {line} (keys: {keys}): expected {FORMATS}")
    messages, later = _READERS[kind](path, line, fields[kind])
    if not messages:
        return None, kind
    name = next((str(fields[key]) for key in _IDS if isinstance(fields.get(key), str | int)), f"line {line}")
    category = fields.get("category")
    labels = (_label(name), _label(category if isinstance(category, str) else ""))
    return TextPrompt(labels[0], tuple(messages), labels[1], line, later_turns=later), kind


def _of_turns(path: Path, line: int, turns: Any) -> tuple[list[tuple[str, str]], int]:
    """The first of Spec-Bench's turns: the next ones wait for the model's answers."""
    if not isinstance(turns, Sequence) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise _damaged(path, line, "turns: expected a list of texts")
    return [("user", _text(path, line, "turns", turns[0]))], len(turns) - 1


def _of_conversation(path: Path, line: int, turns: Any) -> tuple[list[tuple[str, str]], int]:
    """What a person says first in one of ShareGPT's, after a system's words; nothing where an answer comes first."""
    messages = _messages(path, line, "conversations", turns, ("from", "value"))
    first = next((i for i, (role, _) in enumerate(messages) if role != "system"), len(messages))
    if first == len(messages) or messages[first][0] != "user" or not messages[first][1].strip():
        return [], 0
    return messages[: first + 1], sum(role == "user" for role, _ in messages[first + 1 :])


def _of_messages(path: Path, line: int, messages: Any) -> tuple[list[tuple[str, str]], int]:
    """All of a conversation up to its last question: an answer after that is what a model is to give."""
    pairs = _messages(path, line, "messages", messages, ("role", "content"))
    while pairs and pairs[-1][0] == "assistant":
        pairs.pop()
    if not pairs or not pairs[-1][1].strip():
        raise _damaged(path, line, "messages: none of them asks anything")
    return pairs, 0


def _of_prompt(path: Path, line: int, prompt: Any) -> tuple[list[tuple[str, str]], int]:
    return [("user", _text(path, line, "prompt", prompt))], 0


_READERS = {"turns": _of_turns, "conversations": _of_conversation, "messages": _of_messages, "prompt": _of_prompt}


def _messages(path: Path, line: int, name: str, messages: Any, keys: tuple[str, str]) -> list[tuple[str, str]]:
    if not isinstance(messages, list):
        raise _damaged(path, line, f"{name}: expected a list of {{{keys[0]}, {keys[1]}}}")
    pairs = []
    for message in messages:
        role, content = (message.get(key) for key in keys) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise _damaged(path, line, f"{name}: expected a list of {{{keys[0]}, {keys[1]}}}, both texts")
        pairs.append((_ROLES.get(role, role), content))
    return pairs


def _text(path: Path, line: int, name: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise _damaged(path, line, f"{name}: expected a text that is not empty")
    return text


def _label(text: str) -> str:
    return printable(text)[:_LABEL_LENGTH]


def _damaged(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {problem}; fix or remove that line")
