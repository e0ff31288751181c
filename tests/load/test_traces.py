from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.load import traces
from bench.load.traces import TraceRequest

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:16:46.6805909,0,7
2023-11-16 18:16:46.6805909,20000,5
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118.5,GPT-4,417,276,693,API log
"""
SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
10,6a3d,2.5,ChatGPT,472,18,490,Conversation log
12,,,GPT-4,417,276,693,API log
"""
MOONCAKE = """{"timestamp": 27, "input_length": 1100, "output_length": 52, "hash_ids": [0, 46, 47]}
{"timestamp": 10535, "input_length": 512, "output_length": 26, "hash_ids": [0]}

{"timestamp": 10535, "input_length": 30, "output_length": 1}
"""
SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "a b c"}]},
    {"id": "b", "conversations": [{"from": "gpt", "value": "hello"}]},
    {"id": "c", "conversations": []},
    {"id": "d", "conversations": [{"from": "human", "value": "x"}, {"from": "human", "value": "y"}]},
    {"id": "e", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": ""}]},
    {"id": "f"},
    {
        "id": "g",
        "conversations": [
            {"from": "system", "value": "be kind"},
            {"from": "human", "value": "why"},
            {"from": "gpt", "value": "so so"},
            {"from": "human", "value": "and now"},
        ],
    },
]


def words(text: str) -> int:
    return len(text.split())


def file(folder: Path, text: str) -> Path:
    path = folder / "trace.txt"
    path.write_text(text, encoding="utf-8")
    return path


def bursty(count: int, seed: int = 0) -> tuple[TraceRequest, ...]:
    """A bursty trace of so many requests, each told apart by its prompt's length."""
    draw = random.Random(seed)  # noqa: S311
    times = sorted(draw.choices(range(count), k=count))
    return tuple(TraceRequest(float(t - times[0]), i + 1, draw.randint(1, 900)) for i, t in enumerate(times))


def test_azure_is_read(tmp_path: Path) -> None:
    """Times count from the first by time, to the microsecond; a request without a prompt is left out."""
    assert traces.read(file(tmp_path, AZURE)) == (
        TraceRequest(0.0, 374, 44),
        TraceRequest(4.314579, 396, 109),
        TraceRequest(60.0, 20000, 5),
    )


def test_azure_of_2024_is_read(tmp_path: Path) -> None:
    """Its times have a zone and six digits; a mark of the byte order and CR LF are nothing to it."""
    text = (
        "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\r\n"
        "2024-05-10 00:00:01.017335+00:00,2399,6\r\n"
    )

    assert traces.read(file(tmp_path, text)) == (TraceRequest(0.0, 2162, 5), TraceRequest(1.007405, 2399, 6))


def test_burstgpt_is_read(tmp_path: Path) -> None:
    """Failed requests have no answer and are left out."""
    assert traces.read(file(tmp_path, BURSTGPT)) == (TraceRequest(0.0, 472, 18), TraceRequest(113.5, 417, 276))


def test_burstgpt_with_sessions_is_read(tmp_path: Path) -> None:
    """Columns are found by name: two more in between change nothing."""
    assert traces.read(file(tmp_path, SESSIONS)) == (TraceRequest(0.0, 472, 18), TraceRequest(2.0, 417, 276))


def test_mooncake_is_read(tmp_path: Path) -> None:
    """Times are milliseconds; block ids are kept where there are any."""
    assert traces.read(file(tmp_path, MOONCAKE)) == (
        TraceRequest(0.0, 1100, 52, (0, 46, 47)),
        TraceRequest(10.508, 512, 26, (0,)),
        TraceRequest(10.508, 30, 1),
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_sharegpt_is_read(tmp_path: Path, indent: int | None) -> None:
    """The first human turn that the next turn answers; conversations without one are left out."""
    assert traces.read(file(tmp_path, json.dumps(SHAREGPT, indent=indent)), words) == (
        TraceRequest(0.0, 2, 3, text="one two"),
        TraceRequest(0.0, 1, 2, text="why"),
    )


def test_sharegpt_asks_for_a_tokenizer(tmp_path: Path) -> None:
    """Texts have no length without one."""
    with pytest.raises(UserError, match=r"give a model with a tokenizer\.json"):
        traces.read(file(tmp_path, json.dumps(SHAREGPT)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TIMESTAMP,ContextTokens\n", r"line 1: missing column GeneratedTokens"),
        (BURSTGPT.replace("Response tokens", "Output"), r"line 1: missing column Response tokens"),
        (AZURE + "2023-11-16 18:20:00.0,12\n", r"line 6: expected a time and two token counts"),
        (AZURE + "16/11/2023 18:20,12,3\n", r"line 6: expected a time"),
        (AZURE + "2023-11-16 18:20:00.0,12,-3\n", r"line 6: expected a time"),
        (BURSTGPT + "130,GPT-4,many,3,4,API log\n", r"line 5: expected a time"),
        (BURSTGPT + "nan,GPT-4,1,3,4,API log\n", r"line 5: expected a time"),
        (MOONCAKE + '{"timestamp": 20000, "input_le', r"line 5: not valid JSON"),
        (MOONCAKE + '{"timestamp": 20000, "input_length": 5}\n', r"line 5: missing field output_length"),
        (MOONCAKE + '{"timestamp": "1", "input_length": 5, "output_length": 1}\n', r"line 5: expected a time"),
        (MOONCAKE + '{"timestamp": 1, "input_length": -5, "output_length": 1}\n', r"line 5: invalid request: time"),
        (MOONCAKE + "[1]\n", r"line 5: expected a time"),
        (MOONCAKE.replace("[0]", "[0, 1, 2, 3, 4, 5, 6, 7]"), r"line 2: 8 hash_ids do not match 512 tokens"),
        ('[{"conversations": []},\n{"conversations": [}]\n', r"line 2: .*fix or remove"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The sentence has the file, the line and what is wrong with it."""
    with pytest.raises(UserError, match=rf"trace\.txt, {message}"):
        traces.read(file(tmp_path, text), words)


@pytest.mark.parametrize(
    "text", ["when,how long\n1,2\n", '{"prompt": "hello"}\n', '[{"prompt": "hello"}]', "[1, 2]", "GIF89a", "\n\n"]
)
def test_an_unknown_format_names_the_four(tmp_path: Path, text: str) -> None:
    """The sentence says what could be given instead."""
    with pytest.raises(
        UserError, match=r"unknown trace format in .*trace\.txt: expected .*Azure.*BurstGPT.*Mooncake.*ShareGPT"
    ):
        traces.read(file(tmp_path, text), words)


def test_bytes_that_are_no_text_are_an_unknown_format(tmp_path: Path) -> None:
    """A compressed file is not read as lines."""
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")

    with pytest.raises(UserError, match="unknown trace format"):
        traces.read(path)


@pytest.mark.parametrize("text", ["", AZURE.splitlines()[0], "[]", BURSTGPT.replace("18", "0").replace("276", "0")])
def test_an_empty_trace_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing, a header alone, or no request that was answered."""
    with pytest.raises(UserError, match=r"trace\.txt has no request"):
        traces.read(file(tmp_path, text), words)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """Without a traceback."""
    with pytest.raises(UserError, match=r"cannot read the trace .*: No such file"):
        traces.read(tmp_path / "none.csv")


def test_a_sample_is_a_window_of_the_trace() -> None:
    """Neighbours stay neighbours with the gaps they had; times count from the first of them."""
    requests = bursty(1000)
    part = traces.sample_window(requests, 100, "s")
    start = part[0].prompt_tokens - 1

    assert [c.prompt_tokens for c in part] == [c.prompt_tokens for c in requests[start : start + 100]]
    assert part[0].time_s == 0
    assert [b.time_s - a.time_s for a, b in pairwise(part)] == pytest.approx(
        [b.time_s - a.time_s for a, b in pairwise(requests[start : start + 100])]
    )


def test_the_seed_draws_the_window() -> None:
    """Every engine meets the same requests; seeds reach both ends of the trace."""
    requests = bursty(40)
    starts = {seed: traces.sample_window(requests, 10, str(seed))[0].prompt_tokens for seed in range(1000)}

    assert traces.sample_window(requests, 10, "7") == traces.sample_window(requests, 10, "7")
    assert set(starts.values()) == set(range(1, 32))
    assert traces.sample_window(requests, 40, "s") == requests


def test_texts_without_times_are_sampled() -> None:
    """There is no order to keep, and a file may be sorted by subject."""
    requests = tuple(TraceRequest(0.0, i + 1, 5, text=str(i)) for i in range(1000))
    part = traces.sample_window(requests, 100, "s")

    assert part == traces.sample_window(requests, 100, "s") != traces.sample_window(requests, 100, "t")
    assert len({c.text for c in part}) == 100
    assert max(c.prompt_tokens for c in part) - min(c.prompt_tokens for c in part) > 500


def test_more_than_there_is_cannot_be_taken() -> None:
    """A short trace is not repeated in silence."""
    with pytest.raises(UserError, match="has 10 requests, fewer than the 11"):
        traces.sample_window(bursty(10), 11, "s")


def test_speed_divides_times() -> None:
    """Twice as fast is half the time; lengths stay."""
    assert traces.rescale((TraceRequest(0.0, 1, 2), TraceRequest(3.0, 4, 5)), 2) == (
        TraceRequest(0.0, 1, 2),
        TraceRequest(1.5, 4, 5),
    )


@pytest.mark.parametrize("context", [4, 5, 64, 1000, 4096])
@pytest.mark.parametrize("seed", range(5))
def test_fitted_requests_fit(context: int, seed: int) -> None:
    """Prompt and answer together never exceed the context, and an answer has two tokens at least."""
    draw = random.Random(seed)  # noqa: S311
    requests = [TraceRequest(float(i), draw.randint(1, 9000), draw.randint(1, 9000)) for i in range(500)]
    requests += [
        TraceRequest(500.0, 1, 1),
        TraceRequest(501.0, 1, context),
        TraceRequest(502.0, context, 1),
        TraceRequest(503.0, context, context),
    ]

    fitted, changed = traces.fit_to_context(requests, context)

    assert all(c.prompt_tokens + c.new_tokens <= context for c in fitted)
    assert all(c.prompt_tokens >= 1 and 2 <= c.new_tokens <= context // 2 for c in fitted)
    assert changed == sum(a != b for a, b in zip(requests, fitted, strict=True)) > 0


def test_what_fits_is_left_as_it_is() -> None:
    """A request within the context is no change; one token of answer is raised and counted."""
    requests = (TraceRequest(0.0, 1000, 24), TraceRequest(1.0, 10, 1))

    assert traces.fit_to_context(requests, 1024) == ((TraceRequest(0.0, 1000, 24), TraceRequest(1.0, 10, 2)), 1)


def test_a_fitted_prompt_has_its_blocks() -> None:
    """As many block ids as the shorter prompt fills."""
    fitted, _ = traces.fit_to_context((TraceRequest(0.0, 1500, 300, (7, 8, 9)),), 800)

    assert fitted == (TraceRequest(0.0, 500, 300, (7,)),)


@pytest.mark.parametrize(
    "call",
    [
        lambda: traces.sample_window(bursty(3), 0, ""),
        lambda: traces.rescale(bursty(3), 0.0),
        lambda: traces.rescale(bursty(3), float("inf")),
        lambda: traces.fit_to_context(bursty(3), 3),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    """No requests, no speed, no room."""
    with pytest.raises(ValueError, match="must be"):
        call()


_AZURE_HEADER = AZURE.partition("\n")[0]
_LONG = 64 << 20  # characters of a line


@pytest.mark.parametrize(
    "text",
    [
        f"{_AZURE_HEADER}\n{'a' * _LONG}",
        f"{_AZURE_HEADER}\n{'1,' * (_LONG // 2)}",
        f"{_AZURE_HEADER},{'a' * _LONG}\n",
        f'{{"timestamp": 1, "input_length": 5, "output_length": 4, "a": "{"a" * _LONG}"}}\n',
    ],
    ids=["row", "fields", "header", "json"],
)
def test_a_line_longer_than_a_request_is_not_read_whole(tmp_path: Path, text: str) -> None:
    """A sentence with the line's number, for a tenth of the memory that the line would take."""
    path = file(tmp_path, text)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"trace\.txt, line [12]: it is longer than 1,048,576 characters; fix or"):
            traces.read(path)
        assert tracemalloc.get_traced_memory()[1] < _LONG / 5
    finally:
        tracemalloc.stop()


def test_a_header_with_a_field_that_no_csv_has_is_damaged(tmp_path: Path) -> None:
    """Longer than the csv module takes, and shorter than a line may be."""
    with pytest.raises(UserError, match=r"line 1: field larger than field limit"):
        traces.read(file(tmp_path, f"{_AZURE_HEADER},{'a' * 200_000}\n"))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress], ids=["gz", "xz", "bz2"])
def test_a_compressed_trace_is_not_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """A kilobyte could become any number of them; what can be read is named."""
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(pack(AZURE.encode() * 5_000))

    with pytest.raises(UserError, match=r"unknown trace format .*: expected an Azure LLM inference CSV"):
        traces.read(path)


def test_a_zip_is_not_unpacked(tmp_path: Path) -> None:
    """As any compressed trace."""
    path = tmp_path / "trace.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trace.csv", AZURE * 50_000)

    with pytest.raises(UserError, match="unknown trace format"):
        traces.read(path)


def test_a_file_of_small_values_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """Each list takes thirty times its signs in memory."""
    with pytest.raises(UserError, match=r"is longer than a ShareGPT file that fits into memory: .* give a part of it"):
        traces.read(file(tmp_path, f"[{'[],' * 21_000_000}[]]"), words)


@pytest.mark.parametrize("count", ["99999999999999999999", "1000000000", str((1 << 24) + 1), "9" * 5_000])
def test_more_tokens_than_any_model_takes_are_damage(tmp_path: Path, count: str) -> None:
    """A prompt of so many would be built."""
    for row in (f"{count},3", f"3,{count}"):
        with pytest.raises(UserError, match="line 2: expected a time and two token counts"):
            traces.read(file(tmp_path, f"{_AZURE_HEADER}\n2023-11-16 18:15:50,{row}\n"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe has no end until somebody writes, and a device may have none at all."""
    os.mkfifo(pipe := tmp_path / "pipe")

    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=r"cannot read the trace .*: (it is no regular file|Is a directory)"):
            traces.read(path)
