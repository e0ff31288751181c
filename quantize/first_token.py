"""A weight for the first token of each calibration window, in methods whose libraries count all tokens alike.

Every later token attends to the first. Where a model made it an attention sink, an error at that token moves
all outputs, and yet it is one token in a window's length of what a method minimizes. Squared errors are linear
in the squares of a layer's inputs, so that a token counts w times where its inputs (or the outputs compared)
are multiplied by the square root of w.

See Xiao et al., 2023 (arXiv:2309.17453) for sinks, and docs/attention-sinks.md for what the weight changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from quantize.calibration import Calibration


@contextmanager
def weighted(
    text: Calibration, inputs_of: Sequence[tuple[Any, str, int]], outputs_of: Sequence[tuple[Any, str]] = ()
) -> Iterator[None]:
    """While it is entered, these functions of a library see first tokens that count `text.first_token_weight` times.

    `inputs_of`: (class or module, name, index of the argument with a layer's inputs). `outputs_of`: (class, name)
    of functions or generators of outputs that are compared. Both are [windows, tokens, width]; tensors of other
    shapes, as experts get them, pass as they are. RuntimeError where no call had that shape.
    """
    if text.first_token_weight == 1:
        yield
        return
    counts = [0]
    weigh = _weigher(text, counts)
    with ExitStack() as stack:
        for owner, name, index in inputs_of:
            stack.enter_context(replaced(owner, name, _with_inputs(getattr(owner, name), index, weigh)))
        for owner, name in outputs_of:
            stack.enter_context(replaced(owner, name, _with_outputs(getattr(owner, name), weigh)))
        yield
    if not counts[0]:
        names = ", ".join([name for _, name, _ in inputs_of] + [name for _, name in outputs_of])
        raise RuntimeError(f"first_token_weight had no effect: {names} never got whole calibration windows")


@contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While it is entered, `owner.name` is another function."""
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _weigher(text: Calibration, counts: list[int]) -> Callable[[Any], Any]:
    length, factor = len(text.ids[0]), text.first_token_weight**0.5

    def weigh(tensor: Any) -> Any:
        if tensor.ndim != 3 or tensor.shape[1] != length:  # windows, tokens, width
            return tensor
        counts[0] += 1
        tensor = tensor.clone()
        tensor[:, 0] *= factor
        return tensor

    return weigh


def _with_inputs(function: Callable[..., Any], index: int, weigh: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:index], weigh(args[index]), *args[index + 1 :], **kwargs)

    return call


def _with_outputs(function: Callable[..., Any], weigh: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = function(*args, **kwargs)
        return map(weigh, outputs) if isinstance(outputs, Iterator) else weigh(outputs)

    return call
