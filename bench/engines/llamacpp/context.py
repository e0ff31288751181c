"""llama.cpp's context with its batch: what the llamacpp engine's session feeds and reads.

`Context` is one batch of sequences that stand apart, for generation and for logits. `Shared` scores choices:
the tokens of a question's context belong to the sequences of all its choices at once, in one unified KV
cache, as llama-perplexity does it for multiple choice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, Question

_FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type
_KV = {"f32": 0, "f16": 1, "q8_0": 8}  # enum ggml_type
_SEQUENCES = 64  # of a call that scores choices
_LOGIT_BYTES = 64 << 20
_PAD = 256  # the library rounds a context up to this many tokens


class Context:
    """A llama_context with its batch, whose arrays are NumPy's so that a step costs microseconds."""

    def __init__(self, session: Any, sequences: int, asked: int, batch: int, *, unified: bool = False) -> None:
        import numpy as np

        lib, options = session.lib, session.options
        self.lib, self.sequences, self.asked, self.batch = lib, sequences, asked, batch
        self.unified = unified
        self.vocab_size = session.vocab_size
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = asked * (1 if unified else sequences), sequences
        settings.n_batch = max(batch, sequences)
        settings.n_ubatch = min(options.ubatch, settings.n_batch)
        settings.n_threads = settings.n_threads_batch = session.threads
        settings.flash_attn_type = _FLASH[options.flash_attention]
        settings.type_k = settings.type_v = _KV[options.kv_dtype]
        settings.n_outputs_max = settings.n_outputs_max_per_seq = 0
        settings.no_perf, settings.kv_unified = True, unified
        self.handle = lib.llama_init_from_model(session.model, settings)
        if not self.handle:
            raise UserError(f"llama.cpp cannot make a context: {session.log.reason(Path())}")
        self.length = int(lib.llama_n_ctx_seq(self.handle))
        room = settings.n_batch
        self.token, self.pos = np.zeros(room, np.int32), np.zeros(room, np.int32)
        self.wanted, self.counts = np.zeros(room, np.int8), np.ones(room, np.int32)
        self.sequence = np.zeros(room, np.int32)
        self.places = self.sequence.ctypes.data + 4 * np.arange(room, dtype=np.uint64)  # seq_id is int32 **
        self.numbers = np.arange(sequences, dtype=np.int32)
        self.calls = _struct(lib, self)
        self.address, self.view = 0, np.zeros((0, 0), np.float32)
        # The binding's own prototype makes a ctypes array of the result; an address is all that is needed.
        self.logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("llama_get_logits", lib._lib))  # noqa: SLF001

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.handle), True)  # noqa: FBT003  (C)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Feed equally long prompts, in calls of at most `batch` tokens; each one's first new token."""
        import numpy as np

        length = len(prompts[0])
        token = np.asarray(prompts, np.int32).reshape(-1)
        pos = np.tile(np.arange(length, dtype=np.int32), len(prompts))
        sequence = np.repeat(np.arange(len(prompts), dtype=np.int32), length)
        made: list[int] = []
        for low in range(0, len(token), len(self.token)):
            n = min(len(self.token), len(token) - low)
            part = slice(low, low + n)
            self.token[:n], self.pos[:n], self.sequence[:n] = token[part], pos[part], sequence[part]
            self.wanted[:n] = pos[part] == length - 1
            made += self._decode(n, int(self.wanted[:n].sum()))
        self.sequence[: len(prompts)] = np.arange(len(prompts))
        self.wanted[: len(prompts)] = 1
        return made

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
        self.sequence[:n], self.wanted[:n] = 0, 1
        self._run(n)
        return self._rows(n).copy()

    def put(self, at: int, ids: Sequence[int], position: int, sequence: int, count: int) -> int:
        """Ids of `count` sequences from `sequence` on, from `position` on, at place `at`; the next place."""
        import numpy as np

        end = at + len(ids)
        self.token[at:end], self.pos[at:end] = ids, np.arange(position, position + len(ids))
        self.counts[at:end] = count
        self.places[at:end] = self.numbers.ctypes.data + 4 * sequence
        return end

    def logits_at(self, tokens: int, wanted: Sequence[int]) -> Any:
        """Feed the first `tokens` places; a row of logits for each wanted one, in the library's memory."""
        self.wanted[:tokens] = 0
        self.wanted[list(wanted)] = 1
        self._run(tokens)
        return self._rows(len(wanted))

    def _decode(self, tokens: int, outputs: int) -> list[int]:
        self._run(tokens)
        if not outputs:
            return []
        return [int(row.argmax()) for row in self._rows(outputs)]

    def _run(self, tokens: int) -> None:
        self.calls.n_tokens = tokens
        if code := self.lib.llama_decode(self.handle, self.calls):
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


class Shared:
    """Scores choices, as many questions a call as there is room for. `apart`: each choice by itself."""

    def __init__(self, session: Any, questions: Sequence[Question], *, apart: bool) -> None:
        self.rows: list[tuple[int, int, Question]] = [
            (place, first, part)
            for place, question in enumerate(questions)
            for first, part in _parts(question, apart=apart)
        ]
        self.count = len(questions)
        longest = max((_length(q) for _, _, q in self.rows), default=1)
        room = -(-max(longest, session.options.ubatch) // _PAD) * _PAD
        self.context = Context(session, _SEQUENCES, room, room, unified=True)
        self.outputs_most = max(1, _LOGIT_BYTES // (4 * session.vocab_size))
        self.room = room

    def scores(self) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """The longest first, so that calls are full."""
        found: dict[int, dict[int, ChoiceScore]] = {place: {} for place in range(self.count)}
        batch: list[tuple[int, int, Question]] = []
        for row in sorted(self.rows, key=lambda row: -_length(row[2])):
            if batch and not self._fits([*batch, row]):
                self._call(batch, found)
                batch = []
            batch.append(row)
        if batch:
            self._call(batch, found)
        for place, scores in found.items():
            yield place, [scores[k] for k in range(len(scores))]

    def _fits(self, batch: Sequence[tuple[int, int, Question]]) -> bool:
        return (
            sum(_length(q) for _, _, q in batch) <= self.room
            and sum(len(q.choices) for _, _, q in batch) <= _SEQUENCES
            and sum(_outputs(q) for _, _, q in batch) <= self.outputs_most
        )

    def _call(self, batch: Sequence[tuple[int, int, Question]], found: dict[int, dict[int, ChoiceScore]]) -> None:
        context = self.context
        context.clear()
        n = 0
        predicting: list[list[int]] = []  # of each choice, the places whose logits predict its tokens
        for _, _, question in batch:
            n = context.put(n, question.context, 0, len(predicting), len(question.choices))
            last = n - 1
            for choice in question.choices:
                start, n = n, context.put(n, choice[:-1], len(question.context), len(predicting), 1)
                predicting.append([last, *range(start, n)])
        wanted = sorted({at for places in predicting for at in places})
        scored, rows = _Scored(context.logits_at(n, wanted)), {at: row for row, at in enumerate(wanted)}
        each = iter(predicting)
        for place, first, question in batch:
            for k, choice in enumerate(question.choices):
                found[place][first + k] = scored.of([rows[at] for at in next(each)], choice)


class _Scored:
    """Rows of logits, each one's log-softmax over the full vocabulary summed up in float64 once."""

    def __init__(self, logits: Any) -> None:
        import numpy as np

        top = logits.max(axis=1)
        sums = np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)
        self.logits, self.norm, self.best = logits, np.log(sums) + top, logits.argmax(axis=1)

    def of(self, rows: Sequence[int], choice: Sequence[int]) -> ChoiceScore:
        """The score of a choice whose k-th token is predicted by `rows[k]`."""
        import numpy as np

        wanted = self.logits[rows, choice].astype(np.float64)
        is_greedy = bool((self.best[rows] == np.asarray(choice)).all())
        return ChoiceScore(float((wanted - self.norm[rows]).sum()), is_greedy)


def _parts(question: Question, *, apart: bool) -> Iterator[tuple[int, Question]]:
    """The question, in parts of no more choices than there are sequences."""
    step = 1 if apart else _SEQUENCES
    for first in range(0, len(question.choices), step):
        yield first, Question(question.context, question.choices[first : first + step])


def _length(question: Question) -> int:
    return len(question.context) + sum(len(choice) - 1 for choice in question.choices)


def _outputs(question: Question) -> int:
    return 1 + sum(len(choice) - 1 for choice in question.choices)


def _struct(lib: Any, arrays: Any) -> Any:
    """A llama_batch over a context's arrays."""
    made = lib.llama_batch()
    for name, array in (
        ("token", arrays.token),
        ("pos", arrays.pos),
        ("n_seq_id", arrays.counts),
        ("seq_id", arrays.places),
        ("logits", arrays.wanted),
    ):
        kind = dict(lib.llama_batch._fields_)[name]
        setattr(made, name, ctypes.cast(array.ctypes.data, kind))
    return made
