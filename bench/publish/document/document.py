"""A document written by hand whose numbers are filled in from records, so that none can be out of date.

`<!-- bench: COMMAND -->text<!-- /bench -->`: the text is what the command gives (document/commands.py).
`<!-- bench: holds NUMBER < NUMBER -->sentence<!-- /bench -->` keeps the sentence, with the passages in it
filled, and fails where the records contradict it (document/query.py defines the numbers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.contract.errors import UserError
from bench.publish.document import commands, query
from bench.publish.records import Records

_OPEN, _END, _CLAIM = "<!-- bench: ", "<!-- /bench -->", "holds "
_MARK = re.compile(rf"{_OPEN}(.*?) -->|{_END}", re.DOTALL)


def filled(path: Path, records: Records) -> str:
    """The document's text with every passage written anew.

    UserError, with the line, for an invalid command, an unclosed passage and a claim that does not hold.
    """
    text = _read(path)
    marks = _MARK.finditer(text)
    parts, at = [], 0
    for mark in marks:
        if mark[1] is None:
            raise UserError(f"{_location(path, text, mark)}: {_END} without a passage before it")
        parts.append(text[at : mark.start()])
        passage, at = _passage(path, text, mark, marks, records)
        parts.append(passage)
    return "".join([*parts, text[at:]])


def _passage(
    path: Path, text: str, mark: re.Match[str], marks: Iterator[re.Match[str]], records: Records
) -> tuple[str, int]:
    """The passage that begins with a mark, with its marks, and where it ends in the text."""
    command, parts, at = mark[1], [], mark.end()
    for inner in marks:
        parts.append(text[at : inner.start()])
        if inner[1] is None:
            try:
                body = _body(command, "".join(parts), records)
            except UserError as error:
                raise UserError(f"{_location(path, text, mark)}: {command}: {error}") from None
            return f"{mark[0]}{body}{_END}", inner.end()
        if not command.startswith(_CLAIM):
            break
        passage, at = _passage(path, text, inner, marks, records)
        parts.append(passage)
    raise UserError(f"{_location(path, text, mark)}: {command}: unclosed passage: end it with {_END}")


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
