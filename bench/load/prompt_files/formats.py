"""What a line of a file of prompts asks, by the key that it is recognised by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.outside import printable
from bench.contract.prompt import TextPrompt

_LABEL_LENGTH = 80  # characters of an id and of a category that are kept
_IDS = ("question_id", "id", "prompt_id", "task_id")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant"}
_ROLES |= {"bing": "assistant", "assistant": "assistant", "system": "system"}
FORMATS = (
    "Spec-Bench's question.jsonl (question_id, category, turns), ShareGPT's JSON or JSON lines (conversations), "
    "or JSON lines with a prompt or messages"
)


def prompt(path: Path, line: int, fields: Any) -> tuple[TextPrompt | None, str]:
    """The prompt of a line and the key it was recognised by; None for a conversation that nobody begins."""
    if not isinstance(fields, Mapping):
        raise damaged(path, line, "it is no JSON object")
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
        raise damaged(path, line, "turns: expected a list of texts")
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
        raise damaged(path, line, "messages: none of them asks anything")
    return pairs, 0


def _of_prompt(path: Path, line: int, prompt: Any) -> tuple[list[tuple[str, str]], int]:
    return [("user", _text(path, line, "prompt", prompt))], 0


_READERS = {"turns": _of_turns, "conversations": _of_conversation, "messages": _of_messages, "prompt": _of_prompt}


def _messages(path: Path, line: int, name: str, messages: Any, keys: tuple[str, str]) -> list[tuple[str, str]]:
    if not isinstance(messages, list):
        raise damaged(path, line, f"{name}: expected a list of {{{keys[0]}, {keys[1]}}}")
    pairs = []
    for message in messages:
        role, content = (message.get(key) for key in keys) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise damaged(path, line, f"{name}: expected a list of {{{keys[0]}, {keys[1]}}}, both texts")
        pairs.append((_ROLES.get(role, role), content))
    return pairs


def _text(path: Path, line: int, name: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise damaged(path, line, f"{name}: expected a text that is not empty")
    return text


def _label(text: str) -> str:
    return printable(text)[:_LABEL_LENGTH]


def damaged(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {problem}; fix or remove that line")
