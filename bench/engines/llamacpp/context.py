"""llama.cpp's context with its batch: what the llamacpp engine's session feeds and reads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

_FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type
_KV = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20}  # ggml_type
PAD = 256  # the library rounds a context up to this many tokens


class Context:
    """A llama_context with its batch, whose arrays are NumPy's so that a step costs microseconds."""

    def __init__(
        self, session: Any, sequences: int, tokens: int, batch: int, *, unified: bool = False, model: Any = None
    ) -> None:
        """For `sequences` of `tokens` each, or of `tokens` together in a `unified` KV cache.

        `model`: another one than the session's, of the same vocabulary.
        """
        import numpy as np

        lib, options = session.lib, session.options
        self.lib, self.sequences, self.vocab_size = lib, sequences, session.vocab_size
        self.shape = (sequences, tokens, batch, unified)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = tokens * (1 if unified else sequences), sequences
        settings.n_batch = max(batch, sequences)
        settings.n_ubatch = min(options.ubatch, settings.n_batch)
        settings.n_threads = settings.n_threads_batch = session.threads
        settings.flash_attn_type = _FLASH[options.flash_attention]
        settings.type_k, settings.type_v = _KV[options.key_type], _KV[options.value_type]
        settings.n_outputs_max = settings.n_outputs_max_per_seq = 0
        settings.no_perf, settings.kv_unified = True, unified
        self.handle = lib.llama_init_from_model(model or session.model, settings)
        if not self.handle:
            raise UserError(f"llama.cpp cannot make a context: {session.log.reason(Path())}")
        if other := [c for c in session.log.caches() if c[:2] != (options.key_type, options.value_type)]:
            raise UserError(
                f"llama.cpp was asked for keys in {options.key_type} and values in {options.value_type}, and keeps "
                f"them in {other[0].key_type} and {other[0].value_type}: ask for these"
            )
        self.length = int(lib.llama_n_ctx_seq(self.handle))
        capacity = settings.n_batch
        self.token, self.pos = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
        self.outputs, self.n_seq_id = np.zeros(capacity, np.int8), np.ones(capacity, np.int32)
        self.sequence = np.zeros(capacity, np.int32)
        self.seq_id = self.sequence.ctypes.data + 4 * np.arange(capacity, dtype=np.uint64)  # int32 **
        self.numbers = np.arange(sequences, dtype=np.int32)
        self.batch = _batch(lib, self)
        self.address, self.view = 0, np.zeros((0, 0), np.float32)
        self.filled: tuple[tuple[int, ...], ...] = ()  # what the sequences begin with, for the next `fill`
        # The binding's own prototype makes a ctypes array of the result; an address is all that is needed.
        self.logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("llama_get_logits", lib._lib))  # noqa: SLF001

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.handle), True)  # noqa: FBT003  (C)
        self.filled = ()

    def fill(self, contexts: Sequence[Sequence[int]], *, keeps: bool) -> None:
        """Let the sequences hold just these; with `keeps` those of the last call stay, and what followed goes."""
        ids = tuple(map(tuple, contexts))
        if keeps and self.filled == ids and self._cut(len(ids[0])):
            return
        self.clear()
        self.prefill(ids)
        self.filled = ids

    def _cut(self, length: int) -> bool:
        """Take away what comes after the first `length` tokens of each sequence; False where the library cannot."""
        memory = self.lib.llama_get_memory(self.handle)
        return all(self.lib.llama_memory_seq_rm(memory, each, length, -1) for each in range(len(self.filled)))

    def prefill(self, prompts: Sequence[Sequence[int]], start: int = 0) -> list[int]:
        """Feed equally long prompts, from position `start`, in calls of at most `batch` tokens; their first new tokens.

        In sync when it returns.
        """
        import numpy as np

        length = len(prompts[0])
        token = np.asarray(prompts, np.int32).reshape(-1)
        pos = np.tile(np.arange(start, start + length, dtype=np.int32), len(prompts))
        sequence = np.repeat(np.arange(len(prompts), dtype=np.int32), length)
        tokens: list[int] = []
        for at in range(0, len(token), len(self.token)):
            n = min(len(self.token), len(token) - at)
            part = slice(at, at + n)
            self.token[:n], self.pos[:n], self.sequence[:n] = token[part], pos[part], sequence[part]
            self.outputs[:n] = pos[part] == start + length - 1
            tokens += self._decode(n, int(self.outputs[:n].sum()))
        self.sequence[: len(prompts)] = np.arange(len(prompts))
        self.outputs[: len(prompts)] = 1
        return tokens

    def step(self, tokens: Sequence[int], position: int) -> list[int]:
        """One more token of each sequence; `prefill` left the sequences and flags as they are needed."""
        for row, token in enumerate(tokens):  # cheaper than a slice for few
            self.token[row], self.pos[row] = token, position
        return self._decode(len(tokens), len(tokens))

    def score(self, ids: Sequence[int], start: int) -> Any:
        """float32 [len(ids), vocab], a copy."""
        import numpy as np

        n = len(ids)
        self.token[:n], self.pos[:n] = ids, np.arange(start, start + n)
        self.sequence[:n], self.outputs[:n] = 0, 1
        self._run(n)
        return self._rows(n).copy()

    def put(self, at: int, ids: Sequence[int], position: int, sequence: int, count: int) -> int:
        """Write ids, from `position`, of `count` sequences from `sequence`, into the batch at `at`; the next index."""
        import numpy as np

        end = at + len(ids)
        self.token[at:end], self.pos[at:end] = ids, np.arange(position, position + len(ids))
        self.n_seq_id[at:end] = count
        self.seq_id[at:end] = self.numbers.ctypes.data + 4 * sequence
        return end

    def logits_at(self, tokens: int, indices: Sequence[int]) -> Any:
        """Feed the first `tokens` of the batch; a row of logits for each index, in the library's memory."""
        self.outputs[:tokens] = 0
        self.outputs[list(indices)] = 1
        self._run(tokens)
        return self._rows(len(indices))

    def predict(self, ids: Sequence[int], position: int, count: int) -> list[int]:
        """Feed ids to the first sequence, from `position`; what it predicts behind each of the last `count` of them."""
        predicted: list[int] = []
        for start in range(0, len(ids), len(self.token)):
            part = ids[start : start + len(self.token)]
            self.put(0, part, position + start, 0, 1)
            self.outputs[: len(part)] = 0
            wanted = min(count, len(part)) if start + len(part) == len(ids) else 0
            self.outputs[len(part) - wanted : len(part)] = 1
            predicted += self._decode(len(part), wanted)
        return predicted

    def forget(self, position: int) -> None:
        """Drop the first sequence from `position` on; UserError where a model keeps a state that cannot go back."""
        if not self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.handle), 0, position, -1):
            raise UserError("the model keeps a state that cannot go back to before a rejected draft: do not speculate")

    def _decode(self, tokens: int, outputs: int) -> list[int]:
        self._run(tokens)
        if not outputs:
            return []
        return [int(row.argmax()) for row in self._rows(outputs)]

    def _run(self, tokens: int) -> None:
        self.batch.n_tokens = tokens
        if code := self.lib.llama_decode(self.handle, self.batch):
            raise UserError(f"llama.cpp could not decode a batch of {tokens} tokens (code {code})")

    def _rows(self, count: int) -> Any:
        """The last call's logits, float32 [count, vocab], in the library's own memory; waits for them."""
        import numpy as np

        address = self.logits(self.handle)
        if address != self.address or count > len(self.view):
            raw = (ctypes.c_float * (count * self.vocab_size)).from_address(address)
            self.view = np.ctypeslib.as_array(raw).reshape(count, self.vocab_size)
            self.address = address
        return self.view[:count]


def _batch(lib: Any, context: Context) -> Any:
    """A llama_batch over a context's arrays."""
    batch = lib.llama_batch()
    types = dict(lib.llama_batch._fields_)
    for field in ("token", "pos", "n_seq_id", "seq_id", "logits"):
        array = context.outputs if field == "logits" else getattr(context, field)
        setattr(batch, field, ctypes.cast(array.ctypes.data, types[field]))
    return batch
