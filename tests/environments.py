"""Which environments the tests may use: declared by each test, built beside the first tests, guarded in all processes.

`--environments=hf,llamacpp` runs the tests that need no others, `--environments=all` every test; both build what is
missing while tests that need nothing run. Without the option every test runs, and builds what it needs itself.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.envs import environment

ROOT = Path(__file__).resolve().parents[1]
_GUARD = ROOT / "tests" / "guard" / "sitecustomize.py"
_FIXTURES = {"hf_python": "hf", "llamacpp_python": "llamacpp"}  # whoever takes the interpreter needs its environment
_TOOLS = "-tools"
_EXTRA = "llm-bench["  # how the name of an extra begins, as pip has it
_ANY = "some that they do not declare"  # what a test that is marked `engine`, and declares nothing, may need
_RUN = "TESTS_RUN"  # the folder that the processes of one run share
_LEFT_OUT = pytest.StashKey[dict[str, int]]()
_LOCK = pytest.StashKey[str]()
_BUILDERS = pytest.StashKey[list["subprocess.Popen[bytes]"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--environments",
        metavar="NAMES",
        help="run the tests that need no environments but these (separated by commas, or `all`), and build them first",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT], config.stash[_BUILDERS] = {}, []
    if unknown := sorted((_allowed(config) or set()) - {*_names(), _ANY}):
        raise pytest.UsageError(f"--environments: unknown environment {unknown[0]} (known: {', '.join(_names())})")
    if hasattr(config, "workerinput"):
        run = os.environ[_RUN]
    else:
        run = os.environ[_RUN] = tempfile.mkdtemp(prefix="tests-")
        config.add_cleanup(lambda: shutil.rmtree(run, ignore_errors=True))
    config.stash[_LOCK] = str(Path(run) / "clock.lock")
    os.environ[_guard.REFUSED] = str(Path(run) / f"refused-{os.getpid()}")
    os.environ[_guard.UNDECLARED] = " ".join(_names())
    if str(_GUARD.parent) not in (search := os.environ.get("PYTHONPATH", "")).split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_GUARD.parent), search]))
    if _is_controller(config):
        config.pluginmanager.register(_Scheduling())


def pytest_report_header(config: pytest.Config) -> str:
    allowed = _allowed(config)
    if allowed is None:
        return "environments: all, each built by the first test that needs it"
    return (
        f"environments: {', '.join(sorted(allowed - {_ANY}))}; what is missing of them is built beside the first tests"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs other environments; order by file: what needs none first, what reads a clock last."""
    allowed = _allowed(config)
    if allowed is None:
        for item in items:
            for extra in sorted(_absent_extras(item)):
                item.add_marker(pytest.mark.skip(reason=f"{extra} is not installed: {_install([extra])}"))
        return
    lacks = {item: needs(item) - allowed | _absent_extras(item) for item in items}
    left_out = [item for item in items if lacks[item]]
    items[:] = [item for item in items if not lacks[item]]
    config.hook.pytest_deselected(items=left_out)
    config.stash[_LEFT_OUT] = Counter(", ".join(sorted(lacks[item])) for item in left_out)
    ranks = {name: rank for rank, name in enumerate(_build_order(items), 1)}
    rank_of_file: dict[Path, tuple[bool, int]] = {}
    for item in items:
        rank = (_reads_clock(item), max((ranks.get(name, len(ranks)) for name in needs(item)), default=0))
        rank_of_file[item.path] = max(rank_of_file.get(item.path, rank), rank)
    items.sort(key=lambda item: rank_of_file[item.path])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need and is not there, beside them."""
    config = session.config
    first = getattr(config, "workerinput", {"workerid": "gw0"})["workerid"] == "gw0"
    if _allowed(config) is None or not first or _is_controller(config) or config.option.collectonly:
        return
    order = _build_order(session.items)
    plain = [name for name in order if not name.endswith(_TOOLS) and environment.spec(name).source is None]
    for names in (plain, [name for name in order if name not in plain]):
        tools = ["--tools"] if any(name.endswith(_TOOLS) for name in names) else []
        if words := [*tools, *(name for name in names if not name.endswith(_TOOLS))]:
            config.stash[_BUILDERS].append(_builder(words, config.stash[_LOCK]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Alone on the machine, as far as tests go, where it reads a clock; guarded to what it declares."""
    declared = needs(item)
    os.environ[_guard.UNDECLARED] = " ".join(name for name in _names() if not declared & {name, _ANY})
    how = fcntl.LOCK_EX if _reads_clock(item) else fcntl.LOCK_SH
    with _locked(item.config.stash[_LOCK], how) as descriptor:
        result = yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for what a test left running, which may have the descriptor
    os.environ[_guard.UNDECLARED] = " ".join(_names())
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    yield
    _check_refused()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    yield
    _check_refused()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    yield
    _check_refused()


def pytest_sessionfinish(session: pytest.Session) -> None:
    for builder in session.config.stash[_BUILDERS]:
        builder.terminate()
        builder.wait()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        left_out = session.config.stash[_LEFT_OUT]
        output["left_out"] = {**left_out}


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line: what was left out, and how to run it."""
    if hasattr(config, "workerinput") or not (left_out := config.stash.get(_LEFT_OUT, {})):
        return
    names = sorted({name for names in left_out for name in names.split(", ")}, key=lambda name: (name == _ANY, name))
    extras = [name for name in names if name.startswith(_EXTRA)]
    remedy = f"{_install(extras)}, then `make test-all`" if extras else "`make test-all` runs them too"
    sys.stdout.write(f"{sum(left_out.values())} tests were left out, which need {', '.join(names)}: {remedy}\n")


def needs(item: pytest.Item) -> set[str]:
    """The environments that a test declares, by its markers and by the interpreters that it takes as fixtures.

    One that runs a real engine and declares nothing, not even a bare `needs`, may use any: it runs with all others.
    """
    marks = list(item.iter_markers("needs"))
    names = {str(name) for mark in marks for name in mark.args} - {"core"}
    if unknown := sorted(names - set(_names())):
        raise pytest.UsageError(f"{item.nodeid} needs '{unknown[0]}', which is no environment ({', '.join(_names())})")
    names |= {_FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in _FIXTURES}
    return names if names or marks or item.get_closest_marker("engine") is None else {_ANY}


def _absent_extras(item: pytest.Item) -> set[str]:
    """The extras of this suite that a test declares and that are not installed: `dev` does not bring all."""
    marks = [mark.args for mark in item.iter_markers("needs_extra")]
    return {f"{_EXTRA}{name}]" for name, package in marks if importlib.util.find_spec(package) is None}


def _install(extras: Sequence[str]) -> str:
    return f"pip install -e '.[{','.join(name.removeprefix(_EXTRA).rstrip(']') for name in extras)}]'"


class _Scheduling:
    """Hooks of pytest-xdist, where it is at work: files go to processes whole, in the order of the collection."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        if _allowed(config) is None:
            return None
        from xdist.scheduler import LoadScopeScheduling

        config.option.loadscopereorder = False
        scheduling = LoadScopeScheduling(config, log)
        scheduling._split_scope = _scope
        return scheduling


def _scope(nodeid: str) -> str:
    """Tests with one scope go to one process: a file's, but those whose parameters name another environment."""
    file, _, rest = nodeid.partition("::")
    words = rest.partition("[")[2].rstrip("]").split("-")
    return f"{file}::{next((word for word in words if word in _names()), '')}"


def _is_controller(config: pytest.Config) -> bool:
    """Whether the tests run in other processes."""
    return not hasattr(config, "workerinput") and bool(getattr(config.option, "tx", None))


def _allowed(config: pytest.Config) -> set[str] | None:
    given: str | None = config.getoption("--environments")
    if given is None:
        return None
    return {*_names(), _ANY} if given == "all" else set(filter(None, given.split(",")))


@cache
def _names() -> list[str]:
    """Every environment but that of the tests themselves, and those that have tools."""
    names = [name for name in environment.names() if name != "core"]
    return names + [f"{name}{_TOOLS}" for name in names if (s := environment.spec(name).source) is not None and s.tools]


def _build_order(items: Sequence[pytest.Item]) -> list[str]:
    """What most tests need first; tools last."""
    counts = Counter(name for item in items for name in sorted(needs(item) - {_ANY}))
    return sorted(counts, key=lambda name: (name.endswith(_TOOLS), -counts[name]))


def _reads_clock(item: pytest.Item) -> bool:
    return item.get_closest_marker("clock") is not None


def _builder(words: Sequence[str], lock: str) -> subprocess.Popen[bytes]:
    """`bench envs build` in the background; tests that read a clock wait for its end: it shares their lock."""
    variables = {name: value for name, value in os.environ.items() if name != _guard.UNDECLARED}
    with _locked(lock, fcntl.LOCK_SH) as descriptor:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", "envs", "build", *words],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
    psutil.Process(process.pid).nice(10)  # tests that need nothing come first: some of them wait for seconds only
    return process


@contextmanager
def _locked(path: str, how: int) -> Iterator[int]:
    """The lock, which ends when this and every process that inherited the descriptor has closed it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_refused() -> None:
    """Fail where the test, or a process that it started, used what it does not declare."""
    file = Path(os.environ[_guard.REFUSED])
    if file.exists():
        names = sorted(set(file.read_text().split()))
        file.unlink()
        pytest.fail("\n".join(map(_guard.sentence, names)), pytrace=False)


def _load_guard() -> Any:
    """The guard's module, installed once in this process whatever imported it first."""
    if (there := sys.modules.get("sitecustomize")) is not None and hasattr(there, "UNDECLARED"):
        return there
    spec = importlib.util.spec_from_file_location("sitecustomize", _GUARD)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["sitecustomize"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_guard = _load_guard()
