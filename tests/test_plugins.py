from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from typing import Any

import pytest

from bench.contract import hooks, plugins
from bench.contract.errors import UserError
from bench.envs import environment
from bench.suite import config

_ROLES = {plugins.ENGINES: hooks.Engine, plugins.METHODS: hooks.Method, plugins.TASKS: hooks.Evaluator}
_ALL = [(package, name) for package in _ROLES for name in plugins.names(package)]


@pytest.mark.parametrize(("package", "name"), _ALL)
def test_a_plugin_plays_its_role(package: str, name: str) -> None:
    """Each plugin has every constant and function its protocol names, with the same parameters."""
    module, role = plugins.load(package, name), _ROLES[package]
    for constant in role.__annotations__:
        assert hasattr(module, constant), constant
    wanted_too = vars(hooks.Serving) if "online" in getattr(module, "MODES", ()) else {}
    functions = {**vars(role), **wanted_too}
    if hasattr(module, "train"):
        functions = {**functions, **vars(hooks.Training)}
        del functions["apply"]
    for method, wanted in functions.items():
        if method.startswith("_") or not callable(wanted):
            continue
        parameters = list(inspect.signature(getattr(module, method)).parameters)
        assert parameters == list(inspect.signature(wanted).parameters)[1:], method


@pytest.mark.parametrize(("package", "name"), _ALL)
def test_options_have_defaults_that_are_valid(package: str, name: str) -> None:
    """A plugin can be named without any option; its defaults pass its own check."""
    kind: Any = plugins.load(package, name).Options

    assert dataclasses.asdict(kind()) == config.options(package, name, {}, name)


@pytest.mark.parametrize(("package", "name"), [pair for pair in _ALL if pair[0] != plugins.TASKS])
def test_an_environment_is_one_of_the_known(package: str, name: str) -> None:
    """The environment a plugin runs in has a file in configs/envs."""
    assert plugins.load(package, name).ENV in environment.names()


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
