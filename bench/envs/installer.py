"""uv where it is at hand: the same wheels by the same hashes as pip's, sooner, and hard-linked from one cache.

uv reads no settings of pip's, so those that say where packages come from are handed to it. What it cannot install
pip is asked for, whose verdict stands.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import paths
from bench.contract.errors import UserError
from bench.envs.build_log import Build, StepError

CHOSEN = "LLM_BENCH_INSTALLER"
# Of a setting of pip: what uv calls it, as an option (given once for each value) or as a variable.
_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
_SWITCHES, _TRUE = {"no-index": "--no-index", "no-cache-dir": "--no-cache"}, ("1", "true", "yes", "on")
_VARIABLES = {"cert": "SSL_CERT_FILE", "client-cert": "SSL_CLIENT_CERT", "proxy": "ALL_PROXY"}
_TIMEOUTS = ("timeout", "default-timeout")
_SCOPES = ("global.", "site.", "install.", ":env:.")  # each before what overrides it
_CHECKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
# As pip does: the best of all places, not the first place that has the name; hashes say which file it may be.
_PLACES = ("--no-config", "--index-strategy", "unsafe-best-match")


def command() -> tuple[str, ...]:
    """What starts uv: the package beside this interpreter, or the program on the PATH; nothing where neither is.

    Nothing, too, where LLM_BENCH_INSTALLER says pip; UserError where it says neither.
    """
    if (chosen := os.environ.get(CHOSEN, "") or "uv") not in ("uv", "pip"):
        raise UserError(f"{CHOSEN}: '{chosen}' is no installer: set it to uv or pip, or not at all")
    if chosen == "pip":
        return ()
    if importlib.util.find_spec("uv") is not None:
        return (sys.executable, "-m", "uv")
    program = shutil.which("uv")
    return (program,) if program else ()


def install(python: str, requirements: Path, build: Build) -> bool:
    """Install a file of pinned, hashed requirements with uv; False where it is not at hand or did not do it."""
    if not (uv := command()):
        return False
    options, variables = settings(python)
    argv = [*uv, "pip", "install", "--python", python, *_CHECKED, *_PLACES, *options, "--no-progress"]
    try:
        build.step([*argv, "-r", str(requirements)], {**variables, "UV_LINK_MODE": _link_mode()})
    except StepError:
        build.say(f"uv did not install it, its words are in {build.log}: asking pip")
        return False
    return True


def compile_all(python: str, folder: Path, build: Build) -> None:
    """Write bytecode, as pip does where it installs: without it the first workers would take longer to start."""
    if command():
        build.say("compiling Python files")
        with contextlib.suppress(StepError):  # packages have files that are for other Pythons
            build.step([python, "-m", "compileall", "-q", "-j", "0", str(folder / "lib")])


def download_cache() -> Path:
    """Where uv keeps what it downloaded: beside the environments, so that files can be linked."""
    return Path(os.environ.get("UV_CACHE_DIR") or paths.cache() / "uv")


def settings(python: str) -> tuple[list[str], dict[str, str]]:
    """Options and variables for uv that say what pip's configuration of this interpreter says of places."""
    known = _pip_settings(python)
    given = [(option, value) for name, option in _OPTIONS.items() for value in known.get(name, "").split()]
    options = [word for pair in given for word in pair]
    options += [option for name, option in _SWITCHES.items() if known.get(name, "").lower() in _TRUE]
    variables = {ours: known[name] for name, ours in _VARIABLES.items() if name in known}
    if timeout := next((known[name] for name in _TIMEOUTS if name in known), ""):
        variables["UV_HTTP_TIMEOUT"] = timeout
    return options, {**variables, "UV_CACHE_DIR": str(download_cache())}


def _pip_settings(python: str) -> Mapping[str, str]:
    """`pip config list` without its scopes: files of the machine and the user, and variables named PIP_*."""
    argv = [python, "-m", "pip", "config", "list"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[:300]
        raise UserError(f"pip does not say where packages come from: {reason}; mend its file (pip config debug)")
    return parsed(done.stdout.splitlines())


def parsed(lines: Sequence[str]) -> dict[str, str]:
    """The settings in lines like `global.find-links='/wheels'`; what a variable says comes before what a file says."""
    by_scope: dict[str, dict[str, str]] = {scope: {} for scope in _SCOPES}
    for line in lines:
        key, _, quoted = line.partition("=")
        scope = next((scope for scope in _SCOPES if key.startswith(scope)), "")
        with contextlib.suppress(ValueError, SyntaxError):
            by_scope.get(scope, {})[key.removeprefix(scope)] = str(ast.literal_eval(quoted))
    return {name: value for scope in _SCOPES for name, value in by_scope[scope].items()}


def _link_mode() -> str:
    return os.environ.get("UV_LINK_MODE", "hardlink")
