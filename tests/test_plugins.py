"""Plugins have the hooks of their role, and only these; a user's own run from a folder outside the checkout."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.contract import hooks, plugins
from bench.contract.errors import UserError
from bench.envs import environment
from bench.suite import config
from tests.conftest import Command

_PACKAGES = (plugins.ENGINES, plugins.METHODS, plugins.TASKS)
_ALL = [(package, name) for package in _PACKAGES for name in plugins.names(package)]

_METHOD = """\"\"\"Copies the weights.\"\"\"
import shutil
from dataclasses import dataclass

ENV = "mine"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"


@dataclass(frozen=True)
class Options:
    note: str = ""


def is_lossless(options):
    return True


def apply(folder, options, out, device):
    shutil.copytree(folder, out, dirs_exist_ok=True)
    return {"note": options.note}
"""
_ENGINE = """\"\"\"Counts.\"\"\"
import time
from contextlib import contextmanager
from dataclasses import dataclass

from bench.contract.hooks import DecodeStep
SESSION
ENV = "core"
VERSION = 1
LOADS = frozenset({"hf"})
MODES = frozenset({"offline"})


@dataclass(frozen=True)
class Options:
    token: int = 1


@contextmanager
def open(folder, artifact, options, device):
    yield _Session(options)
"""
_SESSION = """

class _Session:
    def __init__(self, options):
        self.options = options

    def generate(self, prompts, new_tokens):
        for _ in range(new_tokens):
            yield DecodeStep(time.perf_counter(), (self.options.token,) * len(prompts))

    def receipts(self):
        return {"kernel": "counting"}

    def memory(self):
        return {"weights_bytes": 1}

"""
_SUITE = """
model: models/demo
recipes: [{name: copied, steps: [{method: copying, note: mine}]}]
engines: [counting]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}]
devices: [cpu]
rounds: 1
settle_s: 0
"""


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("package", "name"), _ALL)
def test_a_plugin_has_the_hooks_of_its_role(package: str, name: str) -> None:
    """`load` takes each of ours, and what it leaves out has its default."""
    plugin = plugins.load(package, name)

    assert plugin.VERSION >= 1
    assert plugin is plugins.load(package, name)


@pytest.mark.parametrize(("package", "name"), _ALL)
def test_options_have_defaults_that_are_valid(package: str, name: str) -> None:
    """A plugin can be named without any option; its defaults pass its own check."""
    kind: Any = plugins.load(package, name).Options

    assert dataclasses.asdict(kind()) == config.options(package, name, {}, name)


@pytest.mark.parametrize(("package", "name"), [pair for pair in _ALL if pair[0] != plugins.TASKS])
def test_an_environment_is_one_of_the_known(package: str, name: str) -> None:
    """The environment a plugin runs in has a file in configs/envs."""
    assert plugins.load(package, name).ENV in environment.names()


def test_what_a_method_leaves_out_has_the_tables_default() -> None:
    """No prerequisites, ENV whatever the options, nothing lossless, no width known, the source as it was."""
    method: Any = plugins.load(plugins.METHODS, "magnitude")
    options, source = method.Options(), object()

    assert not hooks.plugin_has(method, "output_source")
    assert method.output_source(options, source) is source
    assert method.env(options) == method.ENV
    assert method.weight_bits(options) is None
    assert method.is_lossless(options) is False
    assert frozenset() == method.OPTIONS_SINCE


def test_a_method_that_trains_is_called_like_any_other() -> None:
    """`train` of one that has `apply` alone applies; of one that has its own, it is its own."""
    applying, training = (plugins.load(plugins.METHODS, name) for name in ("none", "qat"))

    assert not hooks.plugin_has(applying, "train")
    assert hooks.plugin_has(training, "train")
    assert callable(applying.train)


def test_asking_what_there_is_imports_no_engine() -> None:
    """Listing and loading every plugin leaves torch, transformers and numpy unimported."""
    script = (
        "import sys; from bench.contract import plugins as p\n"
        "for package in (p.ENGINES, p.METHODS, p.TASKS):\n"
        "    [p.load(package, name) for name in p.names(package)]\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'gptqmodel') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A typo in a plugin's name is a sentence with a suggestion."""
    with pytest.raises(UserError, match="unknown method 'gtpq': did you mean 'gptq'"):
        plugins.load(plugins.METHODS, "gtpq")


@pytest.mark.parametrize("layout", ["file", "package"])
def test_a_users_own_plugins_run(command: Command, tmp_path: Path, layout: str) -> None:
    """An engine, as one file or as a package that imports itself, a method and its environment.

    Workers find them too, and are given their absolute folder.
    """
    from_file = layout == "file"
    imported = "" if from_file else "from bench.engines.counting.session import _Session\n"
    session = f"import time\nfrom bench.contract.hooks import DecodeStep\n{_SESSION}"
    engine = _ENGINE.replace("SESSION", imported) + (_SESSION if from_file else "")
    where = {"engines/counting.py": engine}
    if not from_file:
        where = {"engines/counting/__init__.py": engine, "engines/counting/session.py": session}
    folder = _write(
        tmp_path / "plugins",
        {
            **where,
            "methods/copying.py": _METHOD,
            "envs/mine.yaml": "requirements: []\nvariables: {}\nrecords: [psutil]\n",
            "suite.yaml": _SUITE,
        },
    )
    variables = {"LLM_BENCH_PLUGINS": str(folder), "LLM_BENCH_PYTHON_MINE": sys.executable}

    ran = command("bench", "run", str(folder / "suite.yaml"), "--json", "--quiet", **variables)

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rounds"] == {"ok": 1, "failed": 0, "unsupported": 0, "kept": 0}
    (record,) = (tmp_path / "results").rglob("serving/**/r0.json")
    stored = json.loads(record.read_text())
    assert stored["receipts"]["kernel"] == "counting"
    assert stored["artifact"]["facts"]["note"] == "mine"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("def is_lossless(", "def is_losless("), "unknown hook 'is_losless': did you mean 'is_lossless'?"),
        (("VERSION =", "VERSIONS = 2\nVERSION ="), "unknown hook 'VERSIONS': did you mean 'VERSION'?"),
        (("def is_lossless(", "def shared_piece("), "unknown hook 'shared_piece': a helper's name begins with"),
        (
            ("(folder, options, out, device)", "(folder, out)"),
            "apply(folder, out): expected apply(folder, options, out",
        ),
        (("def apply(", "def _apply("), "lacks the function apply(folder, options, out, device)"),
        (("WRITES =", "_WRITES ="), "lacks the constant WRITES"),
        (
            ("def apply(", "def train(folder, teacher, options, out, device, work): ...\n\n\ndef apply("),
            "has apply(), which contradicts",
        ),
    ],
)
def test_a_misspelt_hook_is_refused(command: Command, tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    """With the nearest right name, the plugin and its file, in one sentence."""
    _write(tmp_path, {"methods/copying.py": _METHOD.replace(*change)})

    done = command("bench", "list", "methods", LLM_BENCH_PLUGINS=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: method 'copying' ({tmp_path}/methods/copying.py): ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_plugins_that_does_not_exist_is_named(command: Command, tmp_path: Path) -> None:
    """A typo in LLM_BENCH_PLUGINS is not taken for a folder without plugins."""
    done = command("bench", "list", "methods", LLM_BENCH_PLUGINS=str(tmp_path / "plugin"))

    assert done.returncode == 2
    assert done.stderr == f"error: LLM_BENCH_PLUGINS: no such folder: {tmp_path / 'plugin'}\n"
