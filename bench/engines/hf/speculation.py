"""Speculative decoding in Transformers: prompt lookup, or an assistant model, and what of their drafts is accepted.

Prompt lookup matches `speculative_match` tokens, then fewer, down to one. An assistant always proposes as many tokens
as it is asked for: neither the schedule nor the confidence of Transformers shortens its drafts.
"""

from __future__ import annotations

from typing import Any

from bench.contract.spec import Cell

_METHODS = ("ngram", "draft")


def unsupported(options: Any, cell: Cell) -> str | None:
    """Why Transformers cannot speculate so; None where it can."""
    if options.speculative_method not in _METHODS:
        return f"Transformers speculates here by {' or '.join(_METHODS)}, not by {options.speculative_method}"
    if cell.workload is not None and cell.workload.online:
        return "transformers serve does not speculate: use a workload of kind: offline"
    if options.cache == "static":
        return "speculation drops rejected tokens from its cache, which a static one cannot: leave cache dynamic"
    return None


def arguments(options: Any, assistant: Any) -> dict[str, Any]:
    """Of `model.generate`; {} without speculation."""
    if assistant is not None:
        return {"assistant_model": assistant}
    if not options.speculates:
        return {}
    return {
        "prompt_lookup_num_tokens": options.speculative_tokens,
        "max_matching_ngram_size": options.speculative_match,
    }


def drafting(model: Any, tokens: int) -> Any:
    """A model as an assistant that always proposes so many tokens."""
    settings = model.generation_config
    settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = tokens, "constant"
    settings.assistant_confidence_threshold = 0.0
    return model


class Drafts:
    """The (proposed, accepted) tokens of each draft that `model` checks, as its candidate generator is told them."""

    def __init__(self, model: Any) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._proposed = 0
        original = model._get_candidate_generator  # noqa: SLF001  (the only place that knows both)

        def counted(*arguments: Any, **options: Any) -> Any:
            return self._count(original(*arguments, **options))

        model._get_candidate_generator = counted  # noqa: SLF001

    def _count(self, generator: Any) -> Any:
        propose, accept = generator.get_candidates, generator.update_candidate_strategy

        def get_candidates(ids: Any, **options: Any) -> Any:
            candidates, logits = propose(ids, **options)
            self._proposed = candidates.shape[1] - ids.shape[1]
            return candidates, logits

        def update_candidate_strategy(ids: Any, scores: Any, matches: Any) -> None:
            if self._proposed:
                self.pairs.append((self._proposed, int(matches)))
            accept(ids, scores, matches)

        generator.get_candidates = get_candidates
        generator.update_candidate_strategy = update_candidate_strategy
        return generator


def receipts(options: Any, assistant: Any) -> dict[str, str]:
    """`speculation`: by what, and how far ahead; nothing where there is none."""
    if not options.speculates:
        return {}
    by = f"n-grams of {options.speculative_match} and fewer" if assistant is None else type(assistant).__name__
    return {"speculation": f"{by}, {options.speculative_tokens} tokens ahead"}
