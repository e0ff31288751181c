"""Text that comes from outside (servers, models, logs, names in records), as it may be kept and shown.

`scrubbed` takes the values of secret variables out of it before it is kept or printed. `printable` is for a line on
a terminal or a page, `printable_lines` for several or a log; `markdown_text`, `markdown_prose` and `code` are for a
document, `csv_cell` for a spreadsheet.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any
from urllib.parse import quote

_SECRET_VARIABLE = re.compile(
    r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)(_|$)|APIKEY|PGPASSWORD"
)
_SECRET_FIELD = re.compile(
    r"authorization|cookie|api[-_]?key|subscription[-_]?key|(auth|access|session|id|security)[-_]?token|secret"
    r"|passw(or)?d|credential|^(key|token|sig|signature)$",
    re.IGNORECASE,
)
_SHORTEST, _SHORTEST_NAMED = 8, 4  # characters of a value; a shorter one is no secret, and within most words
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")
_BEARER = re.compile(r"(?<=\bbearer )\s*(?=\S*\d)[\w.~+/-]{16,}=*", re.IGNORECASE)
_MARKDOWN = re.compile(r"([\\|<>*_`\[\]])")
_PROSE = re.compile(r"([\\|<>*`\[\]]|(?<!\w)_|_(?!\w))")  # an underscore within a word is one
_UNCODED = str.maketrans("`|<>", "'/()")
_WIDE = "\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
_FORMULA = tuple(f"=+-@{_WIDE}")


def is_secret_field(name: str) -> bool:
    """Whether a header, a field of a body or of a query by this name holds a secret."""
    return _SECRET_FIELD.search(name) is not None


def scrubbed(text: str, *variables: str) -> str:
    """The text with <NAME> in place of each value of a secret variable, as it is or encoded.

    Secret are variables whose name says so (…_KEY, …_TOKEN, …), and the named `variables`. Passwords in URLs and
    bearer tokens are taken out whatever they are.
    """
    return scrubber(*variables)(text)


def scrubber(*variables: str) -> Callable[[str], str]:
    """The same as a function, for many texts: the environment is read once."""
    secrets = _secrets(variables)

    def scrub(text: str) -> str:
        for value, name in secrets:
            text = text.replace(value, f"<{name}>")
        if "://" in text:
            text = _URL_PASSWORD.sub("<password>", text)
        return _BEARER.sub("<token>", text) if "bearer" in text.lower() else text

    return scrub


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON form with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): each_text(nested, change) for key, nested in value.items()}
    return [each_text(nested, change) for nested in value] if isinstance(value, list | tuple) else value


def _secrets(named: Collection[str]) -> list[tuple[str, str]]:
    """(a form of a secret value, its variable), the longest first."""
    forms: dict[str, str] = {}
    for name, variable in os.environ.items():
        value = variable.strip()
        least = _SHORTEST_NAMED if name in named else _SHORTEST
        if len(value) >= least and (name in named or _SECRET_VARIABLE.search(name)):
            forms |= dict.fromkeys(_forms(value), name)
    return sorted(forms.items(), key=lambda pair: -len(pair[0]))


def _forms(value: str) -> Iterator[str]:
    """The value as it is, and as servers write it in JSON, a URL or basic authentication."""
    yield value
    yield (escaped := json.dumps(value)[1:-1])
    yield escaped.replace("/", "\\/")
    yield quote(value, safe="", errors="surrogateescape")
    yield base64.b64encode(value.encode(errors="surrogateescape")).decode().rstrip("=")


def printable(text: str) -> str:
    """On one line, without what steers a terminal, reorders or hides what is beside it: each such is a space."""
    if text.isprintable():
        return text
    return text.translate({ord(character): " " for character in set(text) if not character.isprintable()})


def printable_lines(text: str) -> str:
    """The same, but for the ends of lines and tabs."""
    return "\n".join(map(_tabbed, text.split("\n")))


def _tabbed(line: str) -> str:
    return line if line.isprintable() else "\t".join(map(printable, line.removesuffix("\r").split("\t")))


def markdown_text(text: str) -> str:
    """As Markdown text: no table cell, tag, link or line of its own."""
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))


def markdown_prose(text: str) -> str:
    """The same, with the underscores within words as they are."""
    return _PROSE.sub(r"\\\1", " ".join(printable(text).split()))


def code(text: str) -> str:
    """Within a code span in a table of Markdown: nothing that would end either, or is a tag where it is no span."""
    return " ".join(printable(text).split()).translate(_UNCODED)


def csv_cell(value: object) -> object:
    """A cell of a spreadsheet: text that it would run as a formula has an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
