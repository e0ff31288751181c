"""A document written by hand whose numbers are filled in from records, so that none can be out of date.

`<!-- bench: COMMAND -->text<!-- /bench -->`: the text is what the command gives (document/commands.py).
`<!-- bench: holds NUMBER < NUMBER -->sentence<!-- /bench -->` keeps the sentence, with the passages in it
filled, and fails where the records contradict it (document/query.py defines the numbers).
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.contract.errors import UserError
from bench.publish.document import commands, query
from bench.publish.records import Records

_OPEN, _END, _CLAIM = "<!-- bench: ", "<!-- /bench -->", "holds "
_MARK = re.compile(rf"{_OPEN}(.*?) -->|{_END}", re.DOTALL)


def filled(path: Path, records: Records) -> str:
    """The document, every passage written anew; UserError, with the line, for what is invalid, unclosed or untrue."""
    text, at = _read(path), 0
    unclosed: list[re.Match[str]] = []
    parts: list[list[str]] = [[]]  # of the document, then of each unclosed passage
    for mark in _MARK.finditer(text):
        parts[-1].append(text[at : mark.start()])
        at = mark.end()
        if mark[1] is not None:
            if unclosed and not unclosed[-1][1].startswith(_CLAIM):
                break
            unclosed.append(mark)
            parts.append([])
        elif not unclosed:
            raise UserError(f"{_location(path, text, mark)}: {_END} without a passage before it")
        else:
            opening, body = unclosed.pop(), "".join(parts.pop())
            try:
                parts[-1].append(f"{opening[0]}{_body(opening[1], body, records)}{_END}")
            except UserError as error:
                raise UserError(f"{_location(path, text, opening)}: {opening[1]}: {error}") from None
    if unclosed:
        opening = unclosed[-1]
        raise UserError(f"{_location(path, text, opening)}: {opening[1]}: unclosed passage: end it with {_END}")
    return "".join([*parts[0], text[at:]])


def _body(command: str, body: str, records: Records) -> str:
    if command.startswith(_CLAIM):
        query.check(records, command.split()[1:])
        return body
    text = commands.write(command, records)
    return f"\n{text}\n" if body.startswith("\n") else text


def _location(path: Path, text: str, mark: re.Match[str]) -> str:
    return f"{path}:{text.count(chr(10), 0, mark.start()) + 1}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        problem = "does not exist" if isinstance(error, FileNotFoundError) else "is not UTF-8 text"
        raise UserError(f"{path} {problem}") from None
