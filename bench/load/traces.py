"""Recorded traffic: when requests came and how long they were, from files in four published formats.

Azure LLM inference (2023 and 2024, CSV), BurstGPT (CSV, with or without its session columns), Mooncake (JSON
lines) and ShareGPT (JSON: texts without times). What is replayed is a stretch of such a file, at its own pace
or scaled, with lengths that fit the model.
"""

from __future__ import annotations

import csv
import math
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import orjson

from bench.contract.errors import UserError

BLOCK_TOKENS = 512  # of Mooncake's hash_ids
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
_MOONCAKE = ("timestamp", "input_length", "output_length")
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded request.

    `time_s` counts from the first of the file or stretch, to the microsecond. `blocks` are Mooncake's ids of
    the prompt's 512-token blocks, the last one partly filled: equal leading ids are equal prefixes. `text` is
    ShareGPT's prompt.
    """

    time_s: float
    prompt_tokens: int
    new_tokens: int
    blocks: tuple[int, ...] = ()
    text: str = ""


def read(path: Path, count_tokens: Callable[[str], int] | None = None) -> tuple[Call, ...]:
    """A file's requests by time; its format is told from its content.

    Requests without a prompt or an answer (BurstGPT's failed ones) are left out. ShareGPT has the first human
    turn of a conversation that is answered by the next turn, all at time 0; its lengths are `count_tokens` of
    prompt and answer. UserError where the file is none of the four formats, has a broken line or no request.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline(4096)
            stream.seek(0)
            found = _parsed(path, stream, first, count_tokens)
    except OSError as error:
        raise UserError(f"the trace {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _unknown(path) from error
    kept = sorted((c for c in found if c.prompt_tokens and c.new_tokens), key=lambda c: c.time_s)
    if not kept:
        raise UserError(f"{path} has no request with a prompt and an answer: give another trace")
    zero_s = kept[0].time_s
    return tuple(replace(call, time_s=round(call.time_s - zero_s, 6)) for call in kept)


def taken(calls: Sequence[Call], count: int, seed: str) -> tuple[Call, ...]:
    """`count` of the requests: a stretch without gaps, so that it is as bursty as the trace.

    The seed draws where it starts; times count from its first. Of a trace without times (all 0) a random
    sample instead. UserError where there are fewer.
    """
    if count < 1:
        raise ValueError(f"{count} requests of a trace: must be at least 1")
    if len(calls) < count:
        raise UserError(f"the trace has {len(calls)} requests, not {count}: ask for fewer")
    draw = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    if not any(call.time_s for call in calls):
        return tuple(draw.sample(calls, count))
    start = draw.randrange(len(calls) - count + 1)
    zero_s = calls[start].time_s
    return tuple(replace(c, time_s=round(c.time_s - zero_s, 6)) for c in calls[start : start + count])


def scaled(calls: Sequence[Call], speed: float) -> tuple[Call, ...]:
    """The same requests `speed` times as fast: 2 halves every time."""
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"speed {speed}: must be above zero; 1 is the trace's own pace")
    return tuple(replace(call, time_s=call.time_s / speed) for call in calls)


def capped(calls: Sequence[Call], context: int) -> tuple[tuple[Call, ...], int]:
    """The requests with lengths that fit a context of so many tokens, and how many had to be changed.

    The answer gets at most half of the context, the prompt at most what is left. An answer of one token
    becomes two, for there is no time per output token in one; that counts as a change. A text is not cut
    here: see `prompts.texts`.
    """
    if context < 4:
        raise ValueError(f"context {context}: must be at least 4")
    fitted = tuple(_fitted(call, context) for call in calls)
    return fitted, sum(map(operator.ne, fitted, calls))


def _fitted(call: Call, context: int) -> Call:
    new = min(max(call.new_tokens, 2), context // 2)
    prompt = min(call.prompt_tokens, context - new)
    return replace(call, prompt_tokens=prompt, new_tokens=new, blocks=call.blocks[: _blocks(prompt)])


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def _parsed(path: Path, stream: TextIO, first: str, count_tokens: Callable[[str], int] | None) -> Sequence[Call]:
    if not first:
        return ()
    if first.lstrip().startswith("["):
        return _sharegpt(path, count_tokens)
    if first.startswith("{") and any(f'"{name}"' in first for name in _MOONCAKE):
        return _mooncake(path, stream)
    columns = {name.strip() for name in first.split(",")}
    if columns & set(_AZURE):
        return _from_csv(path, stream, _AZURE, _moment_s)
    if columns & set(_BURSTGPT):
        return _from_csv(path, stream, _BURSTGPT, float)
    raise _unknown(path)


def _from_csv(path: Path, stream: TextIO, names: tuple[str, str, str], seconds: Callable[[str], float]) -> list[Call]:
    """The columns of these names (time, prompt, answer), wherever they stand."""
    rows = csv.reader(stream)
    header = [name.strip() for name in next(rows)]
    if missing := [name for name in names if name not in header]:
        raise _broken(path, 1, f"there is no column {' and no '.join(missing)}")
    time, prompt, new = map(header.index, names)
    try:
        return [_call(seconds(row[time]), int(row[prompt]), int(row[new])) for row in rows if row]
    except (ValueError, IndexError, csv.Error) as error:
        raise _broken(path, rows.line_num, "it has no time and two numbers of tokens") from error


def _moment_s(text: str) -> float:
    """Azure's date and time; digits beyond the microsecond are dropped."""
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


def _mooncake(path: Path, stream: TextIO) -> list[Call]:
    found = []
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            found.append(_mooncake_call(orjson.loads(line)))
        except KeyError as error:
            raise _broken(path, number, f"there is no {error.args[0]}") from error
        except orjson.JSONDecodeError as error:
            raise _broken(path, number, f"it is no JSON ({error.msg})") from error
        except TypeError as error:
            raise _broken(path, number, "it has no time and two numbers of tokens") from error
        except ValueError as error:
            raise _broken(path, number, str(error)) from error
    return found


def _mooncake_call(line: dict[str, Any]) -> Call:
    time_ms, prompt, new = (line[name] for name in _MOONCAKE)
    blocks = tuple(map(operator.index, line.get("hash_ids") or ()))
    if blocks and len(blocks) != _blocks(prompt):
        raise ValueError(f"{len(blocks)} hash_ids are not {prompt} tokens in blocks of {BLOCK_TOKENS}")
    return _call(time_ms / 1000, operator.index(prompt), operator.index(new), blocks)


def _sharegpt(path: Path, count_tokens: Callable[[str], int] | None) -> list[Call]:
    try:
        entries = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _broken(path, error.lineno, error.msg) from error
    if entries and not (isinstance(entries[0], dict) and "conversations" in entries[0]):
        raise _unknown(path)
    if count_tokens is None:
        raise UserError(f"{path} has texts and no lengths: give a model with a tokenizer.json")
    pairs = filter(None, map(_pair, entries))
    return [Call(0.0, count_tokens(p), count_tokens(reply), text=p) for p, reply in pairs]


def _pair(entry: Any) -> tuple[str, str] | None:
    """The first human turn and the answer that follows it, or None."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    said = [(turn.get("from"), turn.get("value")) for turn in turns or () if isinstance(turn, dict)]
    for (asker, prompt), (answerer, reply) in pairwise(said):
        if asker == "human":
            whole = answerer == "gpt" and isinstance(prompt, str) and isinstance(reply, str)
            return (str(prompt), str(reply)) if whole else None
    return None


def _call(time_s: float, prompt: int, new: int, blocks: tuple[int, ...] = ()) -> Call:
    if not math.isfinite(time_s) or prompt < 0 or new < 0:
        raise ValueError(f"time {time_s} s, prompt {prompt} and answer {new} tokens are no request")
    return Call(time_s, prompt, new, blocks)


def _broken(path: Path, line: int, why: str) -> UserError:
    return UserError(f"{path}, line {line}: {why}; mend or remove that line, or fetch the file again")


def _unknown(path: Path) -> UserError:
    return UserError(
        f"{path} is no trace known here: give a CSV of Azure LLM inference ({','.join(_AZURE)}), one of "
        f"BurstGPT ({','.join(_BURSTGPT)}), JSON lines of Mooncake ({', '.join(_MOONCAKE)}, hash_ids) "
        "or a ShareGPT JSON (a list of conversations)"
    )
