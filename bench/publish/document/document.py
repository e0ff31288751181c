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
    return _filled(path, text, _MARK.finditer(text), records)[0]


def _filled(
    path: Path, text: str, marks: Iterator[re.Match[str]], records: Records, opening: re.Match[str] | None = None
) -> tuple[str, int]:
    """The passage that begins with a mark, or else the whole text, filled; and where it ends in the text."""
    command, parts, at = opening[1] if opening else "", [], opening.end() if opening else 0
    for mark in marks:
        parts.append(text[at : mark.start()])
        if mark[1] is not None:
            if opening and not command.startswith(_CLAIM):
                break
            passage, at = _filled(path, text, marks, records, mark)
            parts.append(passage)
        elif opening is None:
            raise UserError(f"{_location(path, text, mark)}: {_END} without a passage before it")
        else:
            try:
                body = _body(command, "".join(parts), records)
            except UserError as error:
                raise UserError(f"{_location(path, text, opening)}: {command}: {error}") from None
            return f"{opening[0]}{body}{_END}", mark.end()
    if opening is not None:
        raise UserError(f"{_location(path, text, opening)}: {command}: unclosed passage: end it with {_END}")
    return "".join([*parts, text[at:]]), len(text)


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
