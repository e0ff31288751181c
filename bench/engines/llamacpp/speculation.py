"""Speculative decoding in llama.cpp: flags of its server, and the same in process for one sequence.

In process n-grams are looked up by llama-cpp-python's prompt lookup (any match of `speculative_match` tokens, then of
fewer), in the server by llama.cpp's ngram-simple (matches of just so many).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import DecodeStep
from bench.contract.spec import Cell
from bench.engines.llamacpp.context import Context

Propose = Callable[[Sequence[int], int], Sequence[int]]  # (text so far, at most so many) to a draft
_IN_PROCESS = ("ngram", "draft")
_TYPES = {"ngram": "ngram-simple", "draft": "draft-simple", "mtp": "draft-mtp", "eagle": "draft-eagle3"}


def unsupported(options: Any, cell: Cell) -> str | None:
    """Why llama.cpp cannot speculate so; None where it can."""
    online = cell.workload is not None and cell.workload.online
    if not online and options.speculative_method not in _IN_PROCESS:
        return f"llama.cpp drafts by {options.speculative_method} in its server alone: use a workload of kind: closed"
    if online and options.speculative_method == "ngram" and options.speculative_tokens < options.speculative_match:
        return (
            f"llama.cpp's n-gram drafts are no shorter than what they match, {options.speculative_match} tokens: raise "
            "tokens, or lower match"
        )
    return None


def flags(options: Any, model_file: Callable[[Path], Path], *, on_gpu: bool) -> Mapping[str, object]:
    """llama-server's flags; its own defaults where a suite has no option."""
    method = options.speculative_method
    result: dict[str, object] = {"--spec-type": _TYPES[method]}
    if method == "ngram":
        lookup, most = "--spec-ngram-simple-size-n", "--spec-ngram-simple-size-m"
        return {**result, lookup: options.speculative_match, most: options.speculative_tokens}
    if options.speculative_draft:
        result |= {"--model-draft": model_file(Path(options.draft_path)), "--gpu-layers-draft": "all" if on_gpu else 0}
    return {**result, "--spec-draft-n-max": options.speculative_tokens}


def check_log(text: str) -> None:
    """UserError where the server went on without speculation, which it only logs."""
    for sign in ("failed to initialize speculative decoding context", "speculative decoding not supported"):
        if sign in text:
            line = next(line for line in text.splitlines() if sign in line)
            raise UserError(f"llama-server does not speculate: {line.partition(sign)[2].strip(' :') or sign}")


def receipts(options: Any, draft: DraftModel | None) -> dict[str, str]:
    """`speculation`: by what, and how far ahead; nothing where there is none."""
    if not options.speculates:
        return {}
    by = f"draft model of {draft.bytes / 2**20:.1f} MiB" if draft else f"n-grams of {options.speculative_match}"
    return {"speculation": f"{by}, {options.speculative_tokens} tokens ahead"}


def lookup(options: Any) -> Propose:
    """N-grams of the text itself."""
    import numpy as np
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    def propose(text: Sequence[int], most: int) -> Sequence[int]:
        ids = np.asarray(text, np.intc)
        tokens = LlamaPromptLookupDecoding.find_candidate_pred_tokens(ids, options.speculative_match, most)
        return [int(token) for token in tokens]

    return propose


class DraftModel:
    """A smaller model that proposes its own greedy continuation. It was fed `text`, rejected tokens among it."""

    def __init__(self, session: Any, model: Any) -> None:
        """UserError where its vocabulary is not as large as the session's."""
        lib = session.lib
        size = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        if size != session.vocab_size:
            raise UserError(
                f"the draft has {size} tokens and the model {session.vocab_size}: give a draft of the same vocabulary"
            )
        self.session, self.model, self.bytes = session, model, int(lib.llama_model_size(model))
        self.context: Context | None = None
        self.text: list[int] = []

    def forget(self) -> None:
        """Before another prompt, which must not find its beginning."""
        self.text = []

    def propose(self, text: Sequence[int], most: int) -> Sequence[int]:
        context = self._context()
        shared = next((i for i, (a, b) in enumerate(zip(self.text, text, strict=False)) if a != b), len(self.text))
        shared = min(shared, len(text) - 1)
        context.forget(shared)
        self.text, draft = list(text), list[int]()
        unread = text[shared:]
        while len(draft) < most:
            draft += context.predict(unread, len(self.text) - len(unread), 1)
            unread = draft[-1:]
            self.text += unread
        del self.text[-1:]  # the last one was not fed
        return draft

    def close(self) -> None:
        if self.context is not None:
            self.session.lib.llama_free(self.context.handle)
            self.context = None

    def _context(self) -> Context:
        """As long as the session's own."""
        length = self.session.context.length
        if self.context is None or self.context.length < length:
            self.close()
            self.context = Context(self.session, 1, length, self.session.options.batch, model=self.model)
            self.text = []
        return self.context


def generate(
    context: Context, prompt: Sequence[int], new_tokens: int, most: int, propose: Propose, drafts: list[tuple[int, int]]
) -> Iterator[DecodeStep]:
    """Greedy decoding of one sequence; the tokens of a pass have its time. (proposed, accepted) goes to `drafts`."""
    text = [*prompt, *context.predict(prompt, 0, 1)]
    yield DecodeStep(time.perf_counter(), (text[-1],))
    end = len(prompt) + new_tokens
    while len(text) < end:
        room = min(most, end - len(text) - 1)  # a pass adds a token of its own
        draft = list(propose(text, room)) if room else []
        predicted = context.predict([text[-1], *draft], len(text) - 1, len(draft) + 1)
        accepted = next((i for i, (a, b) in enumerate(zip(draft, predicted, strict=False)) if a != b), len(draft))
        text += predicted[: accepted + 1]
        context.forget(len(text) - 1)
        if draft:
            drafts.append((len(draft), accepted))
        now = time.perf_counter()
        for token in predicted[: accepted + 1]:
            yield DecodeStep(now, (token,))
