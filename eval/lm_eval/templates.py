"""What a model and a task bring that is a program: templates in bounded time and memory, functions of known places.

Transformers renders a chat template in Jinja's sandbox, which bounds neither; lm-eval renders a task's texts without a
sandbox, and takes a task's `!function` from any module.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils
from lm_eval.tasks import _yaml_loader

from bench.contract.errors import UserError

_KNOWN = ("eval", "lm_eval")
_TAKE = _yaml_loader._import_func_in_yml  # noqa: SLF001  (before anything is put in its place)
RENDER_S, RENDER_BYTES = 5.0, 1 << 30  # of the processor, and above what the process has, for one text


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


def confine_tasks(*folders: Path) -> None:
    """Have lm-eval render the texts of tasks in Jinja's sandbox, and take functions from beside their YAML alone.

    That has to be in one of `folders` or lm-eval's own. Besides, modules of this suite and of lm-eval may be named;
    another module's function could be a command's (os.system).
    """
    utils.env = _sandboxed()
    roots = [folder.resolve() for folder in (*folders, Path(_yaml_loader.__file__).parent)]

    def take(name: str, folder: Path) -> Any:
        module = name.rpartition(".")[0]
        has_file = all(module.split(".")) and (folder / f"{module.replace('.', '/')}.py").is_file()
        inside = any(folder.resolve().is_relative_to(root) for root in roots)
        if not inside or not (has_file or module.partition(".")[0] in _KNOWN):
            raise UserError(
                f"a task's !function {name} is not taken: it is not of a Python file beside the task's YAML, "
                "in the folder include_path"
            )
        return _TAKE(name, folder)

    _yaml_loader._import_func_in_yml = take  # noqa: SLF001


def _sandboxed() -> SandboxedEnvironment:
    """A sandbox with the settings and filters of lm-eval's environment of templates."""
    stored = utils.env
    sandbox = SandboxedEnvironment(
        loader=stored.loader, undefined=stored.undefined, keep_trailing_newline=stored.keep_trailing_newline
    )
    sandbox.filters.update(stored.filters)
    return sandbox


def _limit(soft: int, hard: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a system that has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size() -> int:
    """The address space of this process; bytes."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return resource.RLIM_INFINITY - RENDER_BYTES
