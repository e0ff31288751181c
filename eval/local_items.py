"""Items of an lm-eval task from a JSONL file on this machine, plain or gzip: configs/tasks/*_local.yaml name it.

Each text is what lm-eval's own task makes of the data set's row. Unlike lm-eval's own `dataset_path: json`, a broken
line is named by its number. Functions are `custom_dataset` of lm-eval: they give a test split.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

Item = dict[str, Any]
_CHOICE = {"query": str, "choices": list, "gold": int}
_LAST_WORD = {"context": str, "continuation": str}
_GZIP = b"\x1f\x8b"
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


def rows(file: str = "", data: str = "", **_: Any) -> Mapping[str, Any]:
    """{query, choices, gold} of `file` in the folder `data`, or of `data` itself."""
    return _dataset(read(_path(file, data)))


def hellaswag(file: str = "", data: str = "", **_: Any) -> Mapping[str, Any]:
    """As `rows`, with the queries of lm-eval's hellaswag."""
    return _dataset([{**item, "query": capitalized(item["query"])} for item in read(_path(file, data))])


def last_words(file: str = "", data: str = "", **_: Any) -> Mapping[str, Any]:
    """{context, continuation} of `file` in the folder `data`, or of `data` itself."""
    return _dataset(read_last_words(_path(file, data)))


def read(path: Path) -> list[Item]:
    """Every {query, choices, gold} of the file; UserError that names the first line that is none."""
    return _read(path, _choice)


def read_last_words(path: Path) -> list[Item]:
    """Every {context, continuation} of the file; UserError that names the first line that is none."""
    return _read(path, lambda line, where: _item(line, where, _LAST_WORD))


def capitalized(query: str) -> str:
    """The query with the sentence that breaks off at its end as str.capitalize has it.

    HellaSwag's rows have that beginning in a field of its own (`ctx_b`), which lm-eval capitalizes before it joins
    the two; files of joined text have it as it was, in lower case. A query that ends as a sentence does has none.
    What such files cannot tell is which endings of WikiHow's began with a mark as [step], of which lm-eval leaves a
    space: their items may differ from its own by that space.
    """
    if query.endswith((".", "!", "?", '"')):
        return query
    *_, start = [0, *(end.end() for end in _SENTENCE_END.finditer(query))]
    start = start or query.find(": ") + 2
    return query[:start] + query[start:].capitalize()


def _dataset(items: list[Item]) -> Mapping[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(items)}


def _path(file: str, data: str) -> Path:
    if not data:
        raise UserError(f"this task reads a local file: give data: path:FOLDER, where {file} is")
    place = Path(data)
    if not place.is_dir():
        return place
    packed = place / f"{file}.gz"
    return packed if packed.is_file() and not (place / file).exists() else place / file


def _read(path: Path, parse: Callable[[str, str], Item]) -> list[Item]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(_GZIP) else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} cannot be read as a JSONL file of items: {error}") from None
    # Not splitlines: a JSON string may hold what else ends a line in Unicode.
    lines = enumerate(text.split("\n"), 1)
    items = [parse(line, f"{path.name}, line {number}") for number, line in lines if line.strip()]
    if not items:
        raise UserError(f"{path.name} holds no item")
    return items


def _choice(line: str, where: str) -> Item:
    item = _item(line, where, _CHOICE)
    if not (0 <= item["gold"] < len(item["choices"]) and all(isinstance(c, str) for c in item["choices"])):
        raise UserError(f"{where}: gold {item['gold']} is none of its {len(item['choices'])} choices")
    return item


def _item(line: str, where: str, keys: Mapping[str, type]) -> Item:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    wrong = [key for key, kind in keys.items() if not isinstance(item, dict) or type(item.get(key)) is not kind]
    if wrong:
        raise UserError(
            f"{where}: {', '.join(wrong)} missing or of another type; an item is {{{', '.join(keys)}}}"
        )
    return {key: item[key] for key in keys}
