"""Choices and continuations in Transformers, by batches: what the hf engine's session does for lm-eval.

A question is one row: its context, fed once, with all its choices behind it, each of which sees the context
and itself and is at the place where it would stand alone (the tree attention of speculative decoding,
Miao et al. 2024). That needs a model that takes such a mask: the first question is scored both ways, and
where the two differ, as everywhere else, each choice is a row of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.contract.hooks import ChoiceScore, Ended, Prompt, Question

_FED_TOKENS = {"cpu": 1024, "cuda": 16384}  # of one pass: what keeps it busy, and little padding
_UNPACKING = 4  # times as many where every pass unpacks the weights
_LOGIT_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_MASK_BYTES = 256 << 20
_BUCKET = 16  # tokens by which rows that are sorted as equally long may differ
_SAME_NATS, _ROUNDED_NATS = 0.01, 0.1  # a token, in 32 bits and in fewer; another mask is off by far more
_WRITTEN = 16  # prompts continued together


@dataclass(frozen=True)
class _Row:
    """Choices `first`, first + 1, … of a question, in one row behind its context."""

    place: int
    first: int
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        return len(self.context) + self.tail - 1

    @property
    def tail(self) -> int:
        """Places at the end of the row whose logits are needed: the context's last one and all behind."""
        return 1 + sum(len(choice) - 1 for choice in self.choices)

    @property
    def predicting(self) -> Iterator[int]:
        """Where in the tail each token of each choice is predicted: the first one by the context's last."""
        start = 1
        for choice in self.choices:
            yield from (0, *range(start, start + len(choice) - 1))
            start += len(choice) - 1

    @property
    def branches(self) -> list[int]:
        """Of each token, 0 for the context, k for the k-th choice."""
        behind = [k for k, choice in enumerate(self.choices, 1) for _ in choice[:-1]]
        return [0] * len(self.context) + behind

    @property
    def places(self) -> list[int]:
        """Of each token, its position as if its choice stood alone."""
        length = len(self.context)
        return [*range(length), *(length + k for choice in self.choices for k in range(len(choice) - 1))]


class Chooser:
    """Scores choices with one loaded model. `packs`: behind one context, else a row each."""

    def __init__(self, model: Any, device: str) -> None:
        text, kind = model.config.get_text_config(), device.partition(":")[0]
        self.model, self.device = model, device
        self.fed_most = _FED_TOKENS[kind] * (_UNPACKING if _unpacks(model) else 1)
        self.rows_most = max(1, _LOGIT_BYTES[kind] // (4 * text.vocab_size))
        self.keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        attends = kinds == {"full_attention"} and not getattr(text, "sliding_window", None)
        masked = model.config._attn_implementation in ("sdpa", "eager")  # noqa: SLF001  (the only place that tells)
        self.packs = attends and masked

    @property
    def way(self) -> str:
        """For receipts: how choices were scored."""
        return "behind one context" if self.packs else "a row each"

    def scores(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """The longest first: what does not fit into memory fails at once."""
        several = [q for q in questions if len(q.choices) > 1]
        self.packs = self.packs and all(self._same(question) for question in several[:1])
        rows = [row for place, question in enumerate(questions) for row in self._rows(place, question)]
        found: list[list[Any]] = [[None] * len(question.choices) for question in questions]
        for batch in self._batches(sorted(rows, key=lambda r: (-(r.length // _BUCKET), -r.tail))):
            for row, scores in zip(batch, self._scored(batch), strict=True):
                found[row.place][row.first : row.first + len(scores)] = scores
        yield from enumerate(found)

    def _same(self, question: Question) -> bool:
        """Whether the model scores choices in one row as it scores them alone."""
        whole = _Row(0, 0, question.context, question.choices)
        (packed,) = self._scored([whole])
        alone = [self._scored([_Row(0, 0, question.context, (choice,))])[0][0] for choice in question.choices]
        exact = self.model.dtype.itemsize >= 4 and not getattr(self.model.config, "quantization_config", None)
        most = _SAME_NATS if exact else _ROUNDED_NATS  # LLM.int8 rounds by what else is in the batch
        return all(
            abs(a[0] - b[0]) <= most * len(choice) for a, b, choice in zip(packed, alone, question.choices, strict=True)
        )

    def _rows(self, place: int, question: Question) -> list[_Row]:
        whole = _Row(place, 0, question.context, question.choices)
        if self.packs and 4 * whole.length**2 <= _MASK_BYTES and whole.tail <= self.rows_most:
            return [whole]
        return [_Row(place, k, question.context, (choice,)) for k, choice in enumerate(question.choices)]

    def _batches(self, rows: Iterable[_Row]) -> Iterator[list[_Row]]:
        """Neighbours for as long as memory allows; a row with several choices is beside its like only."""
        for _, likes in groupby(rows, key=lambda row: len(row.choices) > 1):
            batch: list[_Row] = []
            for row in likes:
                if batch and not self._fits([*batch, row]):
                    yield batch
                    batch = []
                batch.append(row)
            yield batch

    def _fits(self, batch: Sequence[_Row]) -> bool:
        width, tail = max(row.length for row in batch), max(row.tail for row in batch)
        return (
            len(batch) * width <= self.fed_most
            and len(batch) * tail <= self.rows_most
            and 4 * len(batch) * width**2 <= _MASK_BYTES
        )

    def _scored(self, batch: Sequence[_Row]) -> list[list[ChoiceScore]]:
        """float32 log-softmax over the full vocabulary at the places before each choice's tokens."""
        import torch

        width = max(row.length for row in batch)
        packed = any(len(row.choices) > 1 for row in batch)
        # Packed rows end together, others begin together: nothing there sees the padding, without a mask.
        first = [width - row.tail if packed else len(row.context) - 1 for row in batch]
        with torch.inference_mode():
            fed = self._packed(batch, width) if packed else self._plain(batch, width)
            kept = {"logits_to_keep": width - min(first)} if self.keeps else {}
            logits = self.model(**fed, use_cache=False, **kept).logits[:, min(first) - width :]
            owner = [r for r, row in enumerate(batch) for choice in row.choices for _ in choice]
            at = [start - min(first) + p for start, row in zip(first, batch, strict=True) for p in row.predicting]
            picked = logits[self._tensor(owner), self._tensor(at)].float()
            targets = self._tensor([token for row in batch for choice in row.choices for token in choice])
            values = (picked.gather(1, targets[:, None])[:, 0] - picked.logsumexp(dim=1)).tolist()
            hits = (picked.argmax(dim=1) == targets).tolist()
        each = iter(zip(values, hits, strict=True))
        found = [[[next(each) for _ in choice] for choice in row.choices] for row in batch]
        return [[ChoiceScore(sum(v for v, _ in one), all(h for _, h in one)) for one in row] for row in found]

    def _plain(self, batch: Sequence[_Row], width: int) -> dict[str, Any]:
        ids = [(*row.context, *row.choices[0][:-1]) for row in batch]
        return {"input_ids": self._tensor([[*row, *([0] * (width - len(row)))] for row in ids])}

    def _packed(self, batch: Sequence[_Row], width: int) -> dict[str, Any]:
        import torch

        pads = [width - row.length for row in batch]
        ids = [(*row.context, *(t for choice in row.choices for t in choice[:-1])) for row in batch]
        places, branches = [row.places for row in batch], [row.branches for row in batch]
        ids, places, branches = (
            self._tensor([[fill] * pad + list(row) for pad, row in zip(pads, rows, strict=True)])
            for fill, rows in ((0, ids), (0, places), (-1, branches))
        )
        seen, sees = branches[:, None, :], branches[:, :, None]
        order = torch.arange(width, device=self.device)
        allowed = (order[None, :] <= order[:, None]) & ((seen == 0) | ((seen == sees) & (seen >= 0)))
        allowed |= order[None, :] == order[:, None]  # padding sees itself: a row of nothing is not a number
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype, device=self.device)
        mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)
        return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": places}

    def _tensor(self, values: Any) -> Any:
        import torch

        return torch.tensor(values, device=self.device)


def _unpacks(model: Any) -> bool:
    """Weights of 4 bits are unpacked in each pass; LLM.int8 multiplies as they are."""
    config = getattr(model.config, "quantization_config", None)
    return config is not None and not getattr(config, "load_in_8bit", False)


def generate_until(model: Any, device: str, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    """By `generate`, prompts of about one length together, padded at the left behind a mask."""
    order = sorted(range(len(prompts)), key=lambda i: (-prompts[i].new_tokens, -len(prompts[i].ids)))
    for new, places in groupby(order, key=lambda i: prompts[i].new_tokens):
        rest = list(places)
        while rest:
            batch, rest = rest[:_WRITTEN], rest[_WRITTEN:]
            yield from zip(batch, _written(model, device, batch, prompts, new, ended), strict=True)


def _written(
    model: Any, device: str, batch: Sequence[int], prompts: Sequence[Prompt], new: int, ended: Ended
) -> list[list[int]]:
    import torch

    width = max(len(prompts[i].ids) for i in batch)
    pads = [width - len(prompts[i].ids) for i in batch]
    fed = torch.tensor([[0] * pad + list(prompts[i].ids) for pad, i in zip(pads, batch, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    lengths = [0] * len(batch)  # of what a row has become, once it has ended

    def stop(ids: Any, scores: Any, **_: Any) -> Any:
        del scores
        for row, place in enumerate(batch):
            if not lengths[row] and ended(place, ids[row, width:].tolist()):
                lengths[row] = ids.shape[1] - width
        return torch.tensor([length > 0 for length in lengths], device=ids.device)

    made = model.generate(
        fed.to(device), attention_mask=mask.to(device), max_new_tokens=new, stopping_criteria=[stop], pad_token_id=0
    )
    return [made[row, width : width + (length or new)].tolist() for row, length in enumerate(lengths)]
