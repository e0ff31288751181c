"""Scores and continuations in vLLM: the very kernels that serve, asked for what they make of given tokens.

Log-probabilities of choices are the engine's own (`prompt_logprobs`, log-softmax in float32 over the full
vocabulary, with the rank of each token). Full logits the engine does not give out: they are caught where it
computes them, in the model's `compute_logits`, which it calls in each step once for the token to come and
then once for the prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, Ended, LogitBlock, Prompt, Question

_BLOCK_ROWS = 512
_QUEUED = 1024  # requests the engine has at a time, of which it runs as many as it can


def logits(llm: Any, ids: Sequence[int], context: int) -> Iterator[LogitBlock]:
    """float32 rows for every position; for all but the last where the ids fill the context.

    The engine takes no prompt that leaves no room for a token.
    """
    import numpy as np

    fed = list(ids) if len(ids) < context else list(ids[:-1])
    caught = _Caught(llm)
    try:
        _finish(llm.llm_engine, {"logits": fed})
    finally:
        caught.end()
    rows = np.concatenate(caught.rows()) if caught.calls else np.zeros((0, 0), np.float32)
    if len(rows) != len(fed):
        raise UserError(f"vLLM computed logits for {len(rows)} of {len(fed)} positions: score this on another engine")
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield LogitBlock(start, rows[start : start + _BLOCK_ROWS])


def loglikelihood(engine: Any, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
    asked = [(place, k) for place, q in enumerate(questions) for k in range(len(q.choices))]
    found: list[list[Any]] = [[None] * len(q.choices) for q in questions]
    for low in range(0, len(asked), _QUEUED):
        part = {f"{place}-{k}": (place, k) for place, k in asked[low : low + _QUEUED]}
        prompts = {name: [*questions[place].context, *questions[place].choices[k]] for name, (place, k) in part.items()}
        for name, output in _finish(engine, prompts).items():
            place, k = part[name]
            choice = questions[place].choices[k]
            said = output.prompt_logprobs[-len(choice) :]
            each = [tokens[token] for tokens, token in zip(said, choice, strict=True)]
            found[place][k] = (sum(one.logprob for one in each), all(one.rank == 1 for one in each))
    yield from enumerate(found)


def generate_until(engine: Any, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    made: dict[str, list[int]] = {f"write-{place}": [] for place in range(len(prompts))}
    places = {name: place for place, name in enumerate(made)}
    for name, place in places.items():
        asked = SamplingParams(
            temperature=0.0,
            max_tokens=prompts[place].new_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        engine.add_request(name, {"prompt_token_ids": list(prompts[place].ids)}, asked)
    over: set[str] = set()
    while engine.has_unfinished_requests():
        for output in engine.step():
            name = output.request_id
            for token in output.outputs[0].token_ids if name not in over else ():
                made[name].append(token)
                if ended(places[name], made[name]):
                    over.add(name)
                    engine.abort_request([name])
                    break
    yield from ((places[name], tokens) for name, tokens in made.items())


def _finish(engine: Any, prompts: dict[str, list[int]]) -> dict[str, Any]:
    """The finished outputs of requests that make one token and tell of their prompt's."""
    from vllm import SamplingParams

    asked = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, ignore_eos=True, detokenize=False)
    for name, ids in prompts.items():
        engine.add_request(name, {"prompt_token_ids": ids}, asked)
    found = {}
    while engine.has_unfinished_requests():
        found.update({output.request_id: output for output in engine.step() if output.finished})
    return found


class _Caught:
    """The logits of one request, as the model computes them; `end` lets the model be."""

    def __init__(self, llm: Any) -> None:
        self.calls: list[Any] = []
        (self.model,) = llm.apply_model(_itself)
        plain = self.model.compute_logits

        def watched(*words: Any, **named: Any) -> Any:
            made = plain(*words, **named)
            self.calls.append(made.detach().float().cpu().numpy().copy())
            return made

        self.model.compute_logits = watched

    def rows(self) -> list[Any]:
        """Prompt rows in order, then the row after the last token: steps alternate between the two."""
        if any(len(made) != 1 for made in self.calls[::2]):
            raise UserError("vLLM computes logits in another order than is known here: score this on another engine")
        return [*self.calls[1::2], self.calls[-2 if len(self.calls) % 2 == 0 else -1]]

    def end(self) -> None:
        del self.model.compute_logits  # the class's own is behind it


def _itself(model: Any) -> Any:
    return model
