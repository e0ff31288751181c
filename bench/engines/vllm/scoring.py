"""Scores and continuations in vLLM, by the kernels that serve.

Log-probabilities of choices are the engine's own (`prompt_logprobs`, log-softmax in float32 over the full
vocabulary, with the rank of each token). Full logits are captured in the model's `compute_logits`, which each
step calls first for the next token, then for the prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, Ended, LogitBlock, Prompt, Question
from bench.engines import _choices
from bench.engines._choices import Row
from bench.engines._logits import blocks

_QUEUED = 1024  # requests the engine has at a time, of which it runs as many as it can


def greedy_deltas(new_tokens: int) -> Any:
    """Greedy decoding of `new_tokens`, each step's given out. No min_tokens: it would forbid the end token."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
    )


def logits(llm: Any, ids: Sequence[int], context: int) -> Iterator[LogitBlock]:
    """float32 rows for every position; for all but the last where the ids leave no room for a new token."""
    import numpy as np

    fed = list(ids) if len(ids) < context else list(ids[:-1])
    with _captured_logits(llm) as calls:
        dict(_prompt_outputs(llm.llm_engine, {"logits": fed}))
    rows = np.concatenate(_prompt_rows(calls)) if calls else None
    yield from blocks("vLLM", rows, len(fed))


def loglikelihood(engine: Any, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
    rows = [row for index, question in enumerate(questions) for row in _choices.rows(index, question, 1)]
    batches = (rows[start : start + _QUEUED] for start in range(0, len(rows), _QUEUED))
    return _choices.scores(questions, batches, partial(_score, engine))


def _score(engine: Any, rows: Sequence[Row]) -> Iterator[list[ChoiceScore]]:
    prompts = {f"{row.index}-{row.first}": [*row.context, *row.choices[0]] for row in rows}
    finished, outputs = _prompt_outputs(engine, prompts), dict[str, Any]()
    for name, row in zip(prompts, rows, strict=True):
        while name not in outputs:
            outputs.update([next(finished)])
        (choice,) = row.choices
        candidates = outputs[name].prompt_logprobs[-len(choice) :]
        tokens = [by_token[token] for by_token, token in zip(candidates, choice, strict=True)]
        yield [ChoiceScore(sum(token.logprob for token in tokens), all(token.rank == 1 for token in tokens))]


def generate_until(engine: Any, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
    tokens: dict[str, list[int]] = {f"until-{index}": [] for index in range(len(prompts))}
    indices = {name: index for index, name in enumerate(tokens)}
    for name, prompt in zip(tokens, prompts, strict=True):
        engine.add_request(name, {"prompt_token_ids": list(prompt.ids)}, greedy_deltas(prompt.new_tokens))
    finished: set[str] = set()
    while engine.has_unfinished_requests():
        for output in engine.step():
            name = output.request_id
            for token in output.outputs[0].token_ids if name not in finished else ():
                tokens[name].append(token)
                if ended(indices[name], tokens[name]):
                    finished.add(name)
                    engine.abort_request([name])
                    break
    yield from enumerate(tokens.values())


def _prompt_outputs(engine: Any, prompts: Mapping[str, list[int]]) -> Iterator[tuple[str, Any]]:
    """Name and output, as they finish, of requests that make one token and return their prompt's logprobs."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, ignore_eos=True, detokenize=False)
    for name, ids in prompts.items():
        engine.add_request(name, {"prompt_token_ids": ids}, params)
    while engine.has_unfinished_requests():
        yield from ((output.request_id, output) for output in engine.step() if output.finished)


@contextmanager
def _captured_logits(llm: Any) -> Iterator[list[Any]]:
    """Copies of what the model's `compute_logits` returns, call by call: float32 NumPy arrays [rows, vocab]."""
    calls: list[Any] = []
    (model,) = llm.apply_model(lambda model: model)
    compute_logits = model.compute_logits

    def capture(*arguments: Any, **options: Any) -> Any:
        logits = compute_logits(*arguments, **options)
        calls.append(logits.detach().float().cpu().numpy().copy())
        return logits

    model.compute_logits = capture
    try:
        yield calls
    finally:
        del model.compute_logits  # the class's own is behind it


def _prompt_rows(calls: Sequence[Any]) -> list[Any]:
    """Prompt rows in order, then the row after the last token: calls alternate between that and the prompt's."""
    if any(len(rows) != 1 for rows in calls[::2]):
        raise UserError("vLLM computes logits in another order than is expected: score this on another engine")
    return [*calls[1::2], calls[-2 if len(calls) % 2 == 0 else -1]]
