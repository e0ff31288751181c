"""Refuses environments that the running test has not declared, in its process and in every Python below it.

tests/environments.py imports this file and puts its folder on the PYTHONPATH, where each interpreter that a test
starts imports it by its name. What a process opens, makes and starts is told to an audit hook (PEP 578), so that no
code of the suite has to know of it.
"""

from __future__ import annotations

import os
import sys

UNDECLARED = "TESTS_UNDECLARED"  # the environments that the running test does not declare, separated by blanks
REFUSED = "TESTS_REFUSED"  # a file with the name of each that was used nevertheless: no `except` hides it
_EVENTS = ("open", "os.mkdir", "subprocess.Popen")


def environment_of(path: str) -> str:
    """The environment whose folder in a cache the path is or lies in, NAME-tools for its tools, else ""."""
    parts = path.split("/")
    for room, folder, *rest in (parts[n:] for n in range(len(parts) - 1)):
        name, _, digest = folder.rpartition("-")
        if room == "envs" and len(digest) == 12:
            is_tool = len(rest) > 1 and rest[0] == "bin" and rest[1].startswith("llama-")
            return f"{name}-tools" if is_tool else name
        if room == "built" and name == "llama-cpp-python" and rest[:1] in (["bin"], ["bin.part"]):
            return "llamacpp-tools"
    return ""


def sentence(name: str) -> str:
    """What a person reads of it."""
    return f'the test uses the environment {name} without declaring it: add @pytest.mark.needs("{name}")'


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _EVENTS or not (undeclared := os.environ.get(UNDECLARED, "").split()):
        return
    for path in _paths(event, arguments):
        if (name := environment_of(path)) in undeclared:
            _refuse(name)


def _paths(event: str, arguments: tuple[object, ...]) -> list[str]:
    """The paths that may be of an environment: what is started, folders that are made, READY.json that is read."""
    words = arguments[1] if event == "subprocess.Popen" else arguments[:1]
    if not isinstance(words, list | tuple):
        return []
    paths = [os.fsdecode(word) for word in words if isinstance(word, str | bytes | os.PathLike)]
    return [path for path in paths if event != "open" or path.endswith("/READY.json")]


def _refuse(name: str) -> None:
    descriptor = os.open(os.environ[REFUSED], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)
    raise RuntimeError(sentence(name))


sys.addaudithook(_audit)
