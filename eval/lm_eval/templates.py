"""What a task brings that is a program: its templates in Jinja's sandbox, its functions from known places.

lm-eval renders a task's texts without a sandbox, and takes a task's `!function` from any module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils
from lm_eval.tasks import _yaml_loader

from bench.contract.errors import UserError

_KNOWN = ("eval", "lm_eval")
_TAKE = _yaml_loader._import_func_in_yml  # noqa: SLF001  (before anything is put in its place)


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
