"""A weight for the first token of each calibration window, in methods whose libraries count all tokens alike.

Every later token attends to the first. Where a model made it an attention sink, an error at that token moves
all outputs, and yet it is one token in a window's length of what a method minimizes. But where the sink is made,
its inputs' squares are a hundred thousand times the others', which then count for nothing: it is taken to be no
larger than they are.

Squared errors are linear in the squares of a layer's inputs: a token counts w times where its inputs (or the
outputs compared) are multiplied by the square root of w. See Xiao et al., 2023 (arXiv:2309.17453) for sinks, and
docs/attention-sinks.md for what the weight changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from quantize.calibration import Calibration


def count(weight: float, first: Any, others: Any) -> Any:
    """How often first tokens count: `weight` times, as if they were no larger than others; once where it is 1.

    `first`, `others`: mean squares of a layer's inputs there.
    """
    return weight * min(1.0, others / first) if weight != 1 and first > 0 else weight


def is_windows(inputs: Any, length: int) -> bool:
    """Whether a layer's inputs are whole windows, [windows, `length` tokens, width], and not tokens one by one."""
    return bool(inputs.ndim == 3 and inputs.shape[1] == length)


@dataclass
class Weights:
    """What first tokens of a text count in each layer's inputs, and how many inputs were whole windows of it."""

    text: Calibration
    hits: int = 0

    def count(self, inputs: Any) -> Any:
        """How often they count there; None where these are no whole windows, or all tokens count alike."""
        if self.text.first_token_weight == 1 or not is_windows(inputs, len(self.text.ids[0])):
            return None
        self.hits += 1
        first, others = (part.float().square().mean() for part in (inputs[:, 0], inputs[:, 1:]))
        return count(self.text.first_token_weight, first, others)

    def factor(self, inputs: Any) -> Any:
        """What first tokens are multiplied by, for their squares to count so often; None as `count` has it."""
        times = self.count(inputs)
        return None if times is None else times**0.5

    def require_effect(self, names: Iterable[str]) -> None:
        """RuntimeError where none of the functions or layers of these names got whole windows."""
        if not self.hits and self.text.first_token_weight != 1:
            raise RuntimeError(
                f"first_token_weight had no effect: {', '.join(names)} never got whole calibration windows"
            )


@contextmanager
def weighted(
    text: Calibration, inputs_of: Sequence[tuple[Any, str, int]], outputs_of: Sequence[tuple[Any, str]] = ()
) -> Iterator[None]:
    """While it is entered, these functions of a library see first tokens that weigh `text.first_token_weight`.

    `inputs_of`: (class or module, name, index of the argument with a layer's inputs). `outputs_of`: (class, name)
    of functions or generators of outputs that are compared, whose first argument but `self` are the inputs.
    Inputs are [windows, tokens, width]; others, as experts get them, pass as they are. RuntimeError where none was.
    """
    if text.first_token_weight == 1:
        yield
        return
    weights = Weights(text)
    with ExitStack() as stack:
        for owner, name, index in inputs_of:
            stack.enter_context(replaced(owner, name, _with_inputs(getattr(owner, name), index, weights.factor)))
        for owner, name in outputs_of:
            stack.enter_context(replaced(owner, name, _with_outputs(getattr(owner, name), weights.factor)))
        yield
    weights.require_effect([name for _, name, _ in inputs_of] + [name for _, name in outputs_of])


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """While it is entered, `owner.name` is another function, or setting."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _scaled(tensor: Any, factor: Any) -> Any:
    if factor is None:
        return tensor
    tensor = tensor.clone()
    tensor[:, 0] *= factor
    return tensor


def _with_inputs(function: Any, index: int, factor: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        inputs = _scaled(args[index], factor(args[index]))
        return function(*args[:index], inputs, *args[index + 1 :], **kwargs)

    return call


def _with_outputs(function: Any, factor: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs, times = function(self, inputs, *args, **kwargs), factor(inputs)
        return (_scaled(its, times) for its in outputs) if isinstance(outputs, Iterator) else _scaled(outputs, times)

    return call
