"""A document written by hand whose figures come from records, so that none of them can be out of date.

`<!-- bench: COMMAND -->text<!-- /bench -->`: the text is what the command gives (bench/publish/passages.py).
`<!-- bench: holds NUMBER < NUMBER -->sentence<!-- /bench -->` leaves the sentence, with the passages in it
filled, and fails where the records do not bear it out (bench/publish/selection.py has the numbers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.contract.errors import UserError
from bench.publish.document import commands, records
from bench.publish.document.records import Source

_OPEN, _END, _CLAIM = "<!-- bench: ", "<!-- /bench -->", "holds "
_MARK = re.compile(rf"{_OPEN}(.*?) -->|{_END}", re.DOTALL)


def filled(path: Path, source: Source) -> str:
    """The document's text with every passage written anew.

    UserError, with the line, for a command that cannot be followed, for a passage that does not end, and for
    a claim that does not hold.
    """
    text = _read(path)
    marks = _MARK.finditer(text)
    parts, at = [], 0
    for mark in marks:
        if mark[1] is None:
            raise UserError(f"{_place(path, text, mark)}: no passage begins before this end")
        parts.append(text[at : mark.start()])
        written, at = _passage(path, text, mark, marks, source)
        parts.append(written)
    return "".join([*parts, text[at:]])


def _passage(
    path: Path, text: str, mark: re.Match[str], marks: Iterator[re.Match[str]], source: Source
) -> tuple[str, int]:
    """The passage that begins with a mark, with its marks, and where it ends in the text."""
    command, parts, at = mark[1], [], mark.end()
    for inner in marks:
        parts.append(text[at : inner.start()])
        if inner[1] is None:
            try:
                body = _written(command, "".join(parts), source)
            except UserError as error:
                raise UserError(f"{_place(path, text, mark)}: {command}: {error}") from None
            return f"{mark[0]}{body}{_END}", inner.end()
        if not command.startswith(_CLAIM):
            break
        written, at = _passage(path, text, inner, marks, source)
        parts.append(written)
    raise UserError(f"{_place(path, text, mark)}: {command}: the passage does not end; end it with {_END}")


def _written(command: str, body: str, source: Source) -> str:
    if command.startswith(_CLAIM):
        records.check(source, command.split()[1:])
        return body
    text = commands.write(command, source)
    return f"\n{text}\n" if body.startswith("\n") else text


def _place(path: Path, text: str, mark: re.Match[str]) -> str:
    return f"{path}:{text.count(chr(10), 0, mark.start()) + 1}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no {path}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text") from None
