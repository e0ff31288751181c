"""A model's tokenizer and chat template, as lm-eval's `--model hf` has them; a template is a program, and is bounded.

Transformers renders it in Jinja's sandbox, which bounds neither time nor memory.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.contract.errors import UserError

RENDER_S, RENDER_BYTES = 5.0, 1 << 30  # of the processor, and above what the process has, for one text


def load(folder: Path) -> Any:
    """The tokenizer in `folder`; UserError where it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"the model's tokenizer cannot be loaded: {cause(error)}") from error


def rendered(tokenizer: Any, messages: Sequence[tuple[str, str]], option: str) -> str:
    """A conversation as the model reads it, up to where its answer begins; `option` is what asks for that.

    UserError where the model has no chat template, or one that cannot be rendered.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): leave "
            f"{option} out, or put its template beside it"
        )
    conversation = [{"role": role, "content": content} for role, content in messages]
    return apply_chat_template(tokenizer, conversation, option)


def apply_chat_template(
    tokenizer: Any, conversation: list[dict[str, str]], option: str, *, add_generation_prompt: bool = True
) -> str:
    """The text of a conversation; without a generation prompt its last message is to be continued."""
    try:
        with bounded("the model's chat template"):
            return str(
                tokenizer.apply_chat_template(
                    conversation,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )
    except UserError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise UserError(
            f"the model's chat template cannot be rendered ({type(error).__name__}: {lines[0][:200]}): leave "
            f"{option} out, or give the model another template"
        ) from error


def cause(error: BaseException) -> str:
    """The first error of the chain, in one line: loaders wrap what they catch."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """UserError, which names `what` is rendered, where it takes over RENDER_S of the processor or RENDER_BYTES."""

    def stop(_: int, __: FrameType | None) -> None:
        raise UserError(f"{what} is not rendered within {RENDER_S:g} s: it may never end; give the model another one")

    before = signal.signal(signal.SIGVTALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_VIRTUAL, RENDER_S)
    try:
        _limit(_size() + RENDER_BYTES if soft == resource.RLIM_INFINITY else soft, hard)
        yield
    except MemoryError:
        raise UserError(
            f"{what} takes over {RENDER_BYTES >> 30} GiB of memory to render: give the model another one"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        _limit(soft, hard)


def _limit(soft: int, hard: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a system that has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size() -> int:
    """The address space of this process; bytes."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return resource.RLIM_INFINITY - RENDER_BYTES
