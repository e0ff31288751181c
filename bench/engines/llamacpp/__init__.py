"""llama.cpp, in process, through the C API that llama-cpp-python binds: GGUF files on CPUs and GPUs.

The C API and not the binding's `Llama` class: static batches, no reuse of a prefix, a stamp at every step.
Where the library tells of itself only in its log (buffers, offloaded layers, flash attention), the log is
what is read.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, LogitBlock, Question, Server
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines.llamacpp import receipts as reads
from bench.engines.llamacpp.context import Context, Shared

ENV = "llamacpp"
VERSION = 1
LOADS = frozenset({"gguf"})
MODES = frozenset({"offline", "online", "score"})
_BLOCK_BYTES = 64 << 20
_SLOTS, _SLOT_TOKENS = 16, 4096  # of the server: requests computed together, and tokens for each
_PAD = 256  # the library rounds a context up to this many tokens
_DEBUG, _ERROR, _CONTINUED = 1, 4, 5  # of enum ggml_log_level
_BUFFER = re.compile(r":\s+(\S+)\s+(model|KV|RS|compute|output) buffer size =\s+([\d.]+) MiB")


@dataclass(frozen=True)
class Options:
    """`n_gpu_layers` -1: every layer, on a CUDA device. `threads` 0: one per physical core.

    `context`: tokens per sequence; 0: what the workload needs. `batch`, `ubatch`: the most tokens of one
    call, and of one pass over the weights.
    """

    n_gpu_layers: int = -1
    threads: int = 0
    flash_attention: Literal["auto", "on", "off"] = "auto"
    kv_dtype: Literal["f16", "f32", "q8_0"] = "f16"
    context: int = 0
    batch: int = 2048
    ubatch: int = 512


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    del artifact_format, hardware
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if cell.device.startswith("cuda") and options.n_gpu_layers == 0:
        return "n_gpu_layers is 0, which leaves the GPU unused: ask for the device cpu instead"
    if options.kv_dtype == "q8_0" and options.flash_attention == "off":
        return "a quantized KV cache needs flash attention"
    return None


def may_offload(options: Options) -> bool:
    """Layers that are not on the GPU are in the host's memory."""
    return options.n_gpu_layers >= 0


@contextmanager
def open(  # noqa: A001  (the protocol's word)
    folder: Path, artifact: Artifact, options: Options, device: str
) -> Iterator[LlamaSession]:
    """Load the GGUF file that `folder` is or holds; UserError when it, or the GPU asked for, is not there."""
    del artifact
    import llama_cpp.llama_cpp as lib

    log = Log()
    callback = lib.llama_log_callback(log.add)
    lib.llama_log_set(callback, None)
    on_gpu = device.startswith("cuda")
    if on_gpu and not lib.llama_supports_gpu_offload():
        raise UserError(
            f"the cell asks for {device}, and this llama.cpp has no GPU to use: "
            "build it where nvcc and a GPU are (bench envs remove llamacpp; bench envs build llamacpp)"
        )
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = options.n_gpu_layers if on_gpu else 0
    settings.split_mode = 0  # one device
    model = lib.llama_model_load_from_file(str(_file(folder)).encode(), settings)
    if not model:
        raise UserError(f"llama.cpp cannot load the file: {log.reason(folder)}")
    session = LlamaSession(lib, model, options, device, log, _file(folder))
    try:
        if on_gpu and not log.held(on_gpu=True).get("weights_bytes"):
            raise UserError(f"the cell asks for {device}, and llama.cpp put no layer on it")
        yield session
    finally:
        session.close()
        lib.llama_model_free(model)
        lib.llama_log_set(lib.llama_log_callback(), None)


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """llama-server, with as many slots as it computes together, and no reuse of prompts."""
    program = Path(python).with_name("llama-server")
    if not program.is_file():
        build = "python -m bench envs build llamacpp --tools"
        raise UserError(f"there is no llama-server beside {python}: put one there, or `{build}`")
    room = options.context or min(artifact.audit.context or _SLOT_TOKENS, _SLOT_TOKENS)
    on_gpu = device.startswith("cuda")
    words = {
        "--model": _file(folder),
        "--host": "127.0.0.1",
        "--port": port,
        "--alias": "model",
        "--ctx-size": room * _SLOTS,
        "--parallel": _SLOTS,
        "--batch-size": options.batch,
        "--ubatch-size": options.ubatch,
        "--flash-attn": options.flash_attention,
        "--cache-type-k": options.kv_dtype,
        "--cache-type-v": options.kv_dtype,
        "--cache-ram": 0,
        "--gpu-layers": (options.n_gpu_layers if options.n_gpu_layers >= 0 else "all") if on_gpu else 0,
    }
    threads = ("--threads", str(options.threads)) if options.threads else ()
    plain = ("--no-kv-unified", "--no-cache-prompt", "--no-webui", *threads)
    argv = (str(program), *(str(word) for pair in words.items() for word in pair), *plain)
    return Server(argv, "model")


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """What the server's log says it runs, and its buffers in bytes."""
    log = Log(text)
    receipts = {**log.said(), "slots": str(_SLOTS), "system": log.find(r"system_info: (.+)")}
    return receipts, log.held(on_gpu=any(_on_gpu(name) for name, _, _ in log.buffers()))


@dataclass
class Log:
    """What the library says, debug lines left out, in one text."""

    text: str = ""
    errors: list[str] = field(default_factory=list)
    level: int = 0

    def add(self, level: int, text: bytes, user: Any) -> None:
        del user
        self.level = self.level if level == _CONTINUED else level
        if self.level != _DEBUG:
            self.text += text.decode(errors="replace")
        if self.level == _ERROR:
            self.errors.append(text.decode(errors="replace").strip())

    def reason(self, folder: Path) -> str:
        """The first error, without the library's function name and this machine's paths."""
        first = next((line for line in self.errors if line), "it gives no reason")
        return first.split(": ", 1)[-1].replace(str(folder), folder.name)[:300]

    def find(self, pattern: str, otherwise: str = "unknown") -> str:
        """The first group of the last match."""
        found = re.findall(pattern, self.text)
        return str(found[-1]) if found else otherwise

    def types(self) -> dict[str, str]:
        """How many tensors there are of each type."""
        return dict(re.findall(r"- type\s+(\S+):\s+(\d+) tensors", self.text))

    def said(self) -> dict[str, str]:
        """Architecture, tensors by type, and layers on the GPU."""
        return {
            "architecture": self.find(r"print_info: arch\s+= (\S+)"),
            "kernel": ", ".join(f"{name} x{count}" for name, count in self.types().items()),
            "weight_dtype": self.find(r"print_info: file type\s+= (.+)"),
            "offloaded_layers": self.find(r"offloaded (\d+/\d+) layers to GPU", "0: no GPU in use"),
        }

    def buffers(self) -> list[tuple[str, str, int]]:
        """(device, what, bytes) of each buffer; the log gives hundredths of a MiB."""
        return [(b, kind, int(float(mib) * 2**20)) for b, kind, mib in _BUFFER.findall(self.text)]

    def held(self, *, on_gpu: bool) -> dict[str, int]:
        """Bytes by use. On CUDA what lies there, and its peak: all of it is allocated at the start.

        Empty where the log says nothing of buffers, as a server's may.
        """
        if not self.buffers():
            return {}
        held: Counter[str] = Counter()
        for name, kind, size in self.buffers():
            if _on_gpu(name) or not on_gpu:
                held[kind] += size
        found = {"weights_bytes": held["model"], "kv_bytes": held["KV"] + held["RS"], "compute_bytes": held["compute"]}
        return {**found, "peak_bytes": sum(held.values())} if on_gpu else found


class LlamaSession:
    """A loaded model, and the one context that is in use: another batch or length makes another."""

    def __init__(self, lib: Any, model: Any, options: Options, device: str, log: Log, file: Path) -> None:
        self.file, self.on_gpu = file, device.startswith("cuda")
        self.lib, self.model, self.options, self.device, self.log = lib, model, options, device, log
        self.vocab = lib.llama_model_get_vocab(model)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self.vocab))
        self.trained = int(lib.llama_model_n_ctx_train(model))
        self.threads = options.threads or os.cpu_count() or 1
        self.loaded = log.text
        self.context: Context | None = None

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """The KV cache is emptied first: no prompt finds its prefix there."""
        context = self._context(len(prompts), len(prompts[0]) + new_tokens, self.options.batch)
        tokens = context.prefill(prompts)
        yield DecodeStep(time.perf_counter(), tuple(tokens))
        for step in range(new_tokens - 1):
            tokens = context.step(tokens, len(prompts[0]) + step)
            yield DecodeStep(time.perf_counter(), tuple(tokens))

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Blocks of at most 64 MiB, each one call over the KV cache of those before it."""
        rows = min(self.options.batch, max(1, _BLOCK_BYTES // (4 * self.vocab_size)))
        context = self._context(1, len(ids), rows)
        for start in range(0, len(ids), rows):
            yield LogitBlock(start, context.score(ids[start : start + rows], start))

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Some questions a call, each context fed once for all its choices, in an empty KV cache.

        Where a model keeps a state instead of keys and values, a context cannot be shared, and is not.
        """
        longest = max((len(q.context) + len(c) - 1 for q in questions for c in q.choices), default=0)
        if longest > (most := self.options.context or self.trained):
            raise UserError(f"{longest} tokens exceed the model's context of {most}: give a lower max_length")
        kept = self.lib.llama_model_is_recurrent(self.model) or self.lib.llama_model_is_hybrid(self.model)
        self.close()
        self.log.text = self.loaded
        shared = Shared(self, questions, apart=bool(kept))
        self.context = shared.context
        yield from shared.scores()

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """By the vocabulary in the file; the space that some of them put before a text counts for nothing."""
        raw = text.encode()
        room = len(raw) + 8
        found = (self.lib.llama_token * room)()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), found, room, True, False)  # noqa: FBT003  (C)
        if count < 0:
            raise UserError("llama.cpp cannot tokenize the text with the vocabulary of the file")
        ids = list(found[:count])
        sizes = [self._piece_bytes(token) for token in ids]
        surplus = sum(sizes) - len(raw)
        first = next((i for i, size in enumerate(sizes) if size), None)
        if first is not None and 0 < surplus <= sizes[first]:
            sizes[first] -= surplus
        elif surplus:
            raise UserError(
                f"the file's vocabulary spells the text in {sum(sizes)} bytes where it has {len(raw)}: "
                "score the model in a folder with its tokenizer.json, by which bytes can be counted"
            )
        return ids, sizes

    def receipts(self) -> Mapping[str, str]:
        system = " ".join(self.lib.llama_print_system_info().decode().split())
        return {
            **self.log.said(),
            "compute_dtype": "float32 activations",
            "product_dtype": reads.product_dtype(self.log.types(), system, on_gpu=self.on_gpu),
            "buffers": ", ".join(sorted({name for name, _, size in self.log.buffers() if size})),
            "flash_attention": self._flash(),
            "kv_dtype": self.options.kv_dtype,
            "threads": str(self.threads),
            "context": f"{self.context.length} tokens x {self.context.sequences}" if self.context else "none",
            "batch": f"{self.options.batch}, ubatch {self.options.ubatch}",
            "device": self.log.find(r"using device (CUDA\d+ \([^)]+\))", self.device),
            "system": system,
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        }

    def memory(self) -> Mapping[str, int]:
        """From the library's log."""
        held = self.log.held(on_gpu=self.on_gpu)
        return {**held, **reads.unread_bytes(self.lib, self.model, self.file, held, on_gpu=self.on_gpu)}

    def close(self) -> None:
        if self.context is not None:
            self.lib.llama_free(self.context.handle)
            self.context = None

    def _context(self, sequences: int, tokens: int, batch: int) -> Context:
        """An empty context for `sequences` of `tokens` each, the one in use where it fits."""
        asked = self.options.context or -(-tokens // _PAD) * _PAD
        if tokens > self.trained or self.options.context > self.trained:
            raise UserError(
                f"{max(tokens, self.options.context)} tokens exceed the model's context of {self.trained}: "
                "use a shorter one"
            )
        if tokens > asked:
            raise UserError(f"{tokens} tokens do not fit the context of {asked} that the engine was given")
        now = self.context
        if now is None or (now.sequences, now.asked, now.batch, now.unified) != (sequences, asked, batch, False):
            self.close()
            self.log.text = self.loaded
            self.context = now = Context(self, sequences, asked, batch)
        now.clear()
        return now

    def _flash(self) -> str:
        auto = self.options.flash_attention == "auto"
        off = "Flash Attention not supported" in self.log.text
        return f"{'off' if off else 'on'}, chosen by the library" if auto else self.options.flash_attention

    def _piece_bytes(self, token: int) -> int:
        room = ctypes.create_string_buffer(256)
        size: int = self.lib.llama_token_to_piece(self.vocab, token, room, len(room), 0, False)  # noqa: FBT003  (C)
        return abs(size)  # below zero: the room it would have needed


def _file(folder: Path) -> Path:
    """The model's file. Of a split one the first part, which sorts first; several models failed the audit."""
    if folder.is_file():
        return folder
    if not (files := sorted(folder.glob("*.gguf"))):
        raise UserError("the artifact has no GGUF file: make it again, or name the file itself")
    return files[0]


def _on_gpu(buffer: str) -> bool:
    """CUDA0 is, CUDA_Host is the host's memory."""
    return re.match(r"CUDA\d", buffer) is not None
