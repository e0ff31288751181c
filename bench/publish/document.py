"""A document written by hand whose figures come from records, so that none of them can be out of date.

`<!-- bench: COMMAND -->text<!-- /bench -->`: the text is what the command gives (bench/publish/passages.py).
A command `holds` leaves the text and fails where the records no longer bear it out.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.contract.errors import UserError
from bench.publish import passages, selection
from bench.publish.selection import Source

_OPEN, _END = "<!-- bench: ", "<!-- /bench -->"
_MARKED = re.compile(rf"{_OPEN}(?P<command>.*?) -->(?P<body>.*?){_END}", re.DOTALL)


def filled(path: Path, source: Source) -> str:
    """The document's text with every passage written anew.

    UserError, with the line, for a command that cannot be followed, for a passage that does not end, and for
    a claim that does not hold.
    """
    text = _read(path)

    def written(found: re.Match[str]) -> str:
        command, body = found["command"], found["body"]
        try:
            if _OPEN in body:
                raise UserError(f"this passage has no end before the next begins; end it with {_END}")  # noqa: TRY301
            new = _passage(command, body, source)
        except UserError as error:
            line = text.count("\n", 0, found.start()) + 1
            raise UserError(f"{path}:{line}: {command}: {error}") from None
        return f"{_OPEN}{command} -->{new}{_END}"

    whole = _MARKED.sub(written, text)
    if whole.count(_OPEN) != whole.count(_END):
        raise UserError(f"{path}: {whole.count(_OPEN)} passages begin and {whole.count(_END)} end")
    return whole


def _passage(command: str, body: str, source: Source) -> str:
    if command.startswith("holds "):
        selection.check(source, command.split()[1:])
        return body
    text = passages.write(command, source)
    return f"\n{text}\n" if body.startswith("\n") else text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text") from None
