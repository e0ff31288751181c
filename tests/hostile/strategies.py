"""Inputs as a stranger, a full disk or a broken tool may leave them: sound ones with something else put in."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bench.contract.errors import UserError

T = TypeVar("T")
DEEP = "<deep>"  # stands for brackets nested deeper than a parser can follow
_SECONDS = 2.0  # of the processor, for one input

_ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**63),
        10**400,
        1e308,
        -1e308,
        5e-324,
        math.inf,
        math.nan,
        "",
        "0",
        "1e999",
        "x" * 999,
        "\0",
        "\u202e",
        "\ud7ff",
        DEEP,
    ]
)
_ANY = st.recursive(
    _ODD | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ODD = _ODD | _ANY


def dumps(value: Any) -> str:
    """The JSON of a value, as Python's own library writes it (NaN too), with DEEP as what it stands for."""
    return json.dumps(value).replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000)


def examples(count: int) -> Callable[[T], T]:
    """The same inputs in every run, so many of them, and none kept on disk."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def only_user_errors(read: Callable[[], object]) -> None:
    """The reader ends in a value or in a sentence, and soon."""
    began = time.process_time()
    try:
        read()
    except UserError as error:
        assert str(error)  # noqa: PT017  (what else it may raise passes through)
    assert time.process_time() - began < _SECONDS


@st.composite
def changed(draw: Any, sound: Any) -> Any:
    """A JSON value with up to three of its parts replaced, dropped or doubled under another name."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add"]))
        if what == "replace":
            parent[key] = draw(ODD)
        elif what == "drop":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(ODD)
        else:
            parent.append(draw(ODD))
    return value


@st.composite
def spliced(draw: Any, sound: bytes) -> bytes:
    """Bytes with up to three runs overwritten, cut out, doubled or cut off."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["write", "write", "write", "cut", "double", "end"]))
        run = draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7]))
        if what == "write":
            data[at : at + len(run)] = run
        elif what == "cut":
            del data[at : at + len(run)]
        elif what == "double":
            data[at:at] = data[at : at + 64]
        else:
            del data[at:]
    return bytes(data)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
