"""Mooncake (JSON lines, with the hashes of prefix blocks): https://github.com/kvcache-ai/Mooncake."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, TextIO

import orjson

from bench.load.traces.format import CountTokens, TraceRequest, damaged, lines, request

BLOCK_TOKENS = 512
_FIELDS = ("timestamp", "input_length", "output_length")
DESCRIPTION = f"Mooncake JSON lines ({', '.join(_FIELDS)}, hash_ids)"


def matches(first_line: str) -> bool:
    return first_line.startswith("{") and any(f'"{name}"' in first_line for name in _FIELDS)


def read(path: Path, stream: TextIO, _: CountTokens | None) -> list[TraceRequest]:
    requests = []
    for number, line in enumerate(lines(path, stream), 1):
        if not line.strip():
            continue
        try:
            requests.append(_request(orjson.loads(line)))
        except KeyError as error:
            raise damaged(path, number, f"missing field {error.args[0]}") from error
        except orjson.JSONDecodeError as error:
            raise damaged(path, number, f"not valid JSON ({error.msg})") from error
        except TypeError as error:
            raise damaged(path, number, "expected a time and two token counts") from error
        except ValueError as error:
            raise damaged(path, number, str(error)) from error
    return requests


def blocks_of(tokens: int) -> int:
    """How many blocks so many tokens fill, the last one partly."""
    return -(-tokens // BLOCK_TOKENS)


def _request(fields: dict[str, Any]) -> TraceRequest:
    time_ms, prompt, new = (fields[name] for name in _FIELDS)
    blocks = tuple(map(operator.index, fields.get("hash_ids") or ()))
    if blocks and len(blocks) != blocks_of(prompt):
        raise ValueError(f"{len(blocks)} hash_ids do not match {prompt} tokens in blocks of {BLOCK_TOKENS}")
    return request(time_ms / 1000, operator.index(prompt), operator.index(new), blocks)
