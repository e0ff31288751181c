"""An engine that answers on a schedule: the pipeline's own test load, a clock whose error can be known.

It loads nothing. Tokens arrive at `ttft_s` and then every `itl_s`; logits are a fixed function of the ids.
`fail` makes the worker fail in one of the ways real engines do.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.hooks import ANY, DecodeStep, LogitBlock, Session
from bench.contract.record import Artifact, Hardware
from bench.contract.server import Server
from bench.contract.spec import Cell
from bench.contract.workload import Offline
from bench.formats import folder as model_folder

ENV = "core"
VERSION = 1
LOADS = ANY
MODES = frozenset({"offline", "online", "score"})
OPTIONS_SINCE = frozenset({"fill_s", "forgets", "answer_tokens", "prefix_caching", "block_tokens"})
DEPTH_MODES = frozenset({"offline", "online"})
_ROWS = 256


@dataclass(frozen=True)
class Options:
    """`fail`: how the worker dies on its first token, or its server on the request after `fail_after`.

    `only_batch`: the only batch size that it supports; 0: any. `slots`: requests that the server answers at a
    time, others waiting; 0: any number. `fill_s`: how long the contexts of a batch take. `forgets`: tokens that its
    server does not find again of a prompt that it has seen the beginning of. `answer_tokens`: of an answer that may end
    where the model ends it; 0: as many as are asked for. `prefix_caching`: the server's first token comes sooner by the
    share of a prompt that an earlier one began with, in blocks of `block_tokens`.
    """

    ttft_s: float = 0.01
    itl_s: float = 0.002
    load_s: float = 0.0
    fail: Literal["", "exception", "segfault", "hang", "memory", "exit", "noise"] = ""
    fail_after: int = 0
    only_batch: int = 0
    slots: int = 0
    fill_s: float = 0.0
    forgets: int = 0
    answer_tokens: int = 0
    prefix_caching: bool = False
    block_tokens: int = 16


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    only = cell.engine.options.get("only_batch")
    if only and isinstance(cell.workload, Offline) and cell.workload.batch != only:
        return f"the fake engine runs batch {only} only"
    return None


def may_offload(options: Options) -> bool:
    """It loads no weights."""
    return True


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[_Session]:  # noqa: A001
    time.sleep(options.load_s)
    vocab_size = artifact.audit.vocab_size
    if (folder / model_folder.CONFIG).is_file():
        vocab_size = model_folder.vocab_size(model_folder.read_config(folder))
    yield _Session(options, vocab_size, artifact.audit.weight_bytes)


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """This file as a program: a server that streams on the same schedule."""
    settings = json.dumps({**asdict(options), "port": port})
    return Server((python, "-m", "bench.engines.fake", settings), "fake", reuse={"cache_prompt": True})


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    return {"kernel": "schedule", "weight_dtype": "none"}, {"weights_bytes": 0}


@dataclass(frozen=True)
class _Session(Session):
    options: Options
    vocab_size: int
    weights_bytes: int

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        began = time.perf_counter()
        _fail(self.options.fail)
        for step in range(new_tokens):
            due = began + self.options.ttft_s + step * self.options.itl_s
            time.sleep(max(0.0, due - time.perf_counter()))
            tokens = tuple((p[0] * 31 + step * 17) % self.vocab_size for p in prompts)
            yield DecodeStep(time.perf_counter(), tokens)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        del contexts
        time.sleep(self.options.fill_s)
        start()
        yield from self.generate(prompts, new_tokens)

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Logits that favour the id one above the last one, in blocks of 256 rows."""
        import numpy as np

        _fail(self.options.fail)
        for start in range(0, len(ids), _ROWS):
            block = np.asarray(ids[start : start + _ROWS])
            distance = (np.arange(self.vocab_size)[None, :] - block[:, None] - 1) % self.vocab_size
            yield LogitBlock(start, (-np.log1p(distance)).astype(np.float32))

    def receipts(self) -> Mapping[str, str]:
        return {"kernel": "schedule", "weight_dtype": "none", "compute_dtype": "none", "device": "none"}

    def memory(self) -> Mapping[str, int]:
        return {"weights_bytes": 0}


def _fail(how: str) -> None:
    if how == "exception":
        raise RuntimeError("the fake engine was asked to raise")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(7)
    if how == "hang":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        time.sleep(3600)
    if how == "memory":
        blocks = []
        while True:
            blocks.append(bytearray(os.urandom(1 << 20)) * 16)
            time.sleep(0.1)  # slow enough that a supervisor on a loaded machine stops it near the limit
    if how == "noise":
        sys.stdout.writelines(["x" * 1023 + "\n"] * (256 * 1024))


async def _serve(port: int, options: Options) -> None:
    slots = asyncio.Semaphore(options.slots or 1 << 20)
    answered = 0
    prompts: list[list[int]] = []  # of the requests that it was to keep

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while line := await reader.readline():
            size = 0
            while (header := await reader.readline()).strip():
                name, _, value = header.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            body = await reader.readexactly(size)
            if line.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            if answered >= options.fail_after:
                _fail(options.fail)
            answered += 1
            async with slots:
                request = json.loads(body)
                cached = max((_shared(prompt, request["prompt"]) for prompt in prompts), default=options.forgets)
                cached -= options.forgets
                if request.get("cache_prompt") or options.prefix_caching:
                    prompts.append(request["prompt"])
                cached -= cached % options.block_tokens if options.prefix_caching else 0
                await _stream(writer, request, options, max(0, cached))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def _shared(prompt: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompt, other, strict=False)))


async def _stream(writer: asyncio.StreamWriter, request: Mapping[str, Any], options: Options, cached: int) -> None:
    """A chunk a token at its due time, then the usage and the end."""
    prompt, tokens = request["prompt"], int(request["max_tokens"])
    if options.answer_tokens and not request.get("ignore_eos"):
        tokens = min(tokens, options.answer_tokens)
    usage: dict[str, Any] = {
        "prompt_tokens": len(prompt if isinstance(prompt, list) else prompt.split()),
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    ttft_s = options.ttft_s * (1 - cached / len(prompt) if options.prefix_caching else 1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for token in range(tokens):
        await asyncio.sleep(max(0.0, began + ttft_s + token * options.itl_s - loop.time()))
        _event(writer, {"choices": [{"index": 0, "text": f" {token}"}]})
    _event(writer, {"choices": [], "usage": usage})
    _event(writer, None)
    writer.write(b"0\r\n\r\n")


def _event(writer: asyncio.StreamWriter, data: Any) -> None:
    text = f"data: {'[DONE]' if data is None else json.dumps(data)}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(text), text))


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    asyncio.run(_serve(settings.pop("port"), Options(**settings)))
