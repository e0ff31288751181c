"""Choices and continuations in Transformers, by batches: what the hf engine's session does for lm-eval.

A question is one row: its context with all choices after it, each of which attends to the context and itself and
has the positions it would have alone (the tree attention of speculative decoding, Miao et al. 2024). The first
question is scored both ways: where a model does not support such a mask, each choice is a row of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from bench.contract.hooks import ChoiceScore, Ended, Prompt, Question
from bench.engines import _choices
from bench.engines._choices import Row

_PASS_TOKENS = {"cpu": 1024, "cuda": 16384}  # of one pass: what keeps it busy, and little padding
_UNPACKING = 4  # times as many where every pass unpacks the weights
_LOGIT_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_MASK_BYTES = 256 << 20
_BUCKET = 16  # tokens by which rows that are sorted as equally long may differ
_EXACT_NATS, _ROUNDED_NATS = 0.01, 0.1  # a token, in 32 bits and in fewer; another mask is off by far more
_PROMPTS = 16  # continued together


class ChoiceScorer:
    """Scores choices with one loaded model. `packs`: behind one context, else a row each."""

    def __init__(self, model: Any, device: str) -> None:
        config, kind = model.config.get_text_config(), device.partition(":")[0]
        self.model, self.device = model, device
        self.max_tokens = _PASS_TOKENS[kind] * (_UNPACKING if _unpacks(model) else 1)
        self.max_logits = max(1, _LOGIT_BYTES[kind] // (4 * config.vocab_size))
        self.takes_logits_to_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
        full_attention = layer_types == {"full_attention"} and not getattr(config, "sliding_window", None)
        masked = model.config._attn_implementation in ("sdpa", "eager")  # noqa: SLF001  (the only place that tells)
        self.packs = full_attention and masked and not keeps_state(model)

    @property
    def receipt(self) -> str:
        return "behind one context" if self.packs else "a row each"

    def scores(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """The longest first: what does not fit into memory fails at once."""
        several = [q for q in questions if len(q.choices) > 1]
        self.packs = self.packs and all(self._packing_is_exact(question) for question in several[:1])
        rows = [row for index, question in enumerate(questions) for row in self._rows(index, question)]
        rows.sort(key=lambda row: (-(row.length // _BUCKET), -row.tail))
        return _choices.scores(questions, self._batches(rows), self._score)

    def _packing_is_exact(self, question: Question) -> bool:
        """Whether the model takes such a mask, and scores choices in one row as it scores them alone."""
        import torch

        try:
            (packed,) = self._score([Row(0, 0, question.context, question.choices)])
        except torch.OutOfMemoryError:
            raise
        except (
            ValueError,
            TypeError,
            RuntimeError,
            IndexError,
            AttributeError,
        ):  # BLOOM reads a mask of two dimensions
            return False
        alone = [self._score([Row(0, 0, question.context, (choice,))])[0][0] for choice in question.choices]
        is_exact = self.model.dtype.itemsize >= 4 and not getattr(self.model.config, "quantization_config", None)
        nats = _EXACT_NATS if is_exact else _ROUNDED_NATS  # LLM.int8 rounds by what else is in the batch
        return all(
            abs(a.logprob - b.logprob) <= nats * len(choice)
            for a, b, choice in zip(packed, alone, question.choices, strict=True)
        )

    def _rows(self, index: int, question: Question) -> list[Row]:
        whole = Row(index, 0, question.context, question.choices)
        if self.packs and 4 * whole.length**2 <= _MASK_BYTES and whole.tail <= self.max_logits:
            return [whole]
        return _choices.rows(index, question, 1)

    def _batches(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """Neighbours for as long as memory allows; rows with several choices apart from those with one."""
        for _, group in groupby(rows, key=lambda row: len(row.choices) > 1):
            yield from _choices.batches(group, self._fits)

    def _fits(self, batch: Sequence[Row]) -> bool:
        width, tail = max(row.length for row in batch), max(row.tail for row in batch)
        return (
            len(batch) * width <= self.max_tokens
            and len(batch) * tail <= self.max_logits
            and 4 * len(batch) * width**2 <= _MASK_BYTES
        )

    def _score(self, batch: Sequence[Row]) -> list[list[ChoiceScore]]:
        """float32 log-softmax over the full vocabulary at the positions before each choice's tokens."""
        import torch

        width = max(row.length for row in batch)
        packed = any(len(row.choices) > 1 for row in batch)
        # Packed rows end together, others begin together: nothing there attends to the padding, without a mask.
        starts = [width - row.tail if packed else len(row.context) - 1 for row in batch]
        with torch.inference_mode():
            inputs = self._packed_inputs(batch, width) if packed else self._inputs(batch, width)
            keep = {"logits_to_keep": width - min(starts)} if self.takes_logits_to_keep else {}
            logits = self.model(**inputs, use_cache=False, **keep).logits[:, min(starts) - width :]
            rows = [r for r, row in enumerate(batch) for choice in row.choices for _ in choice]
            at = [start - min(starts) + p for start, row in zip(starts, batch, strict=True) for p in row.predictors]
            picked = logits[self._tensor(rows), self._tensor(at)].float()
            targets = self._tensor([token for row in batch for choice in row.choices for token in choice])
            logprobs = (picked.gather(1, targets[:, None])[:, 0] - picked.logsumexp(dim=1)).tolist()
            greedy = (picked.argmax(dim=1) == targets).tolist()
        tokens = iter(zip(logprobs, greedy, strict=True))
        return [[_choice_score(islice(tokens, len(choice))) for choice in row.choices] for row in batch]

    def _inputs(self, batch: Sequence[Row], width: int) -> dict[str, Any]:
        return {"input_ids": self._tensor([[*row.ids, *([0] * (width - row.length))] for row in batch])}

    def _packed_inputs(self, batch: Sequence[Row], width: int) -> dict[str, Any]:
        import torch

        ids, positions, branches = (
            self._tensor([[fill] * (width - len(row)) + row for row in rows])
            for fill, rows in (
                (0, [row.ids for row in batch]),
                (0, [row.positions for row in batch]),
                (-1, [row.branches for row in batch]),
            )
        )
        key, query = branches[:, None, :], branches[:, :, None]
        order = torch.arange(width, device=self.device)
        allowed = (order[None, :] <= order[:, None]) & ((key == 0) | ((key == query) & (key >= 0)))
        allowed |= order[None, :] == order[:, None]  # padding attends to itself: a softmax of nothing is NaN
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype, device=self.device)
        mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)
        return {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions}

    def _tensor(self, values: Any) -> Any:
        import torch

        return torch.tensor(values, device=self.device)


def _choice_score(tokens: Iterable[tuple[float, bool]]) -> ChoiceScore:
    logprobs, greedy = zip(*tokens, strict=True)
    return ChoiceScore(sum(logprobs), all(greedy))


def keeps_state(model: Any) -> bool:
    """Whether more than keys and values is carried from token to token (Mamba, Jamba, RWKV): padding would enter it."""
    return bool(model._is_stateful) or "past_key_values" not in inspect.signature(model.forward).parameters  # noqa: SLF001


def _unpacks(model: Any) -> bool:
    """Weights of 4 bits are unpacked in each pass; LLM.int8 multiplies as they are."""
    config = getattr(model.config, "quantization_config", None)
    return config is not None and not getattr(config, "load_in_8bit", False)


def generate_until(model: Any, device: str, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    """By `generate`, prompts of about one length together, padded at the left behind a mask.

    Of a model that keeps a state, each alone: RWKV's generation of a batch is not that of its prompts.
    """
    alone = keeps_state(model)
    order = sorted(range(len(prompts)), key=lambda i: (-prompts[i].new_tokens, -len(prompts[i].ids)))
    for (new_tokens, _), group in groupby(order, key=lambda i: (prompts[i].new_tokens, alone and i)):
        indices = list(group)
        for start in range(0, len(indices), _PROMPTS):
            batch = {i: prompts[i] for i in indices[start : start + _PROMPTS]}
            yield from zip(batch, _generate_batch(model, device, batch, new_tokens, ended), strict=True)


def _generate_batch(
    model: Any, device: str, batch: Mapping[int, Prompt], new_tokens: int, ended: Ended
) -> list[list[int]]:
    """The new tokens of each prompt, by its index in the call."""
    import torch

    width = max(len(prompt.ids) for prompt in batch.values())
    pads = [width - len(prompt.ids) for prompt in batch.values()]
    ids = torch.tensor([[0] * pad + list(prompt.ids) for pad, prompt in zip(pads, batch.values(), strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    lengths = [0] * len(batch)  # of a row's new tokens, once it has ended

    def stop(ids: Any, scores: Any, **_: Any) -> Any:
        del scores
        for row, index in enumerate(batch):
            if not lengths[row] and ended(index, ids[row, width:].tolist()):
                lengths[row] = ids.shape[1] - width
        return torch.tensor([length > 0 for length in lengths], device=ids.device)

    output = model.generate(
        ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=new_tokens,
        stopping_criteria=[stop],
        pad_token_id=0,
    )
    return [output[row, width : width + (length or new_tokens)].tolist() for row, length in enumerate(lengths)]
