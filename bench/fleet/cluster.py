"""The cluster as Ray has it: connecting, its nodes, and what each of them says of itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import paths
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Hardware
from bench.envs import environment
from bench.machine import hardware, nvml
from bench.run import ceilings, doctor

NAMESPACE = "llm-bench"
_LOCAL_STORE_BYTES = 200 * 2**20
_TELL_LIMIT_S = 300.0  # a node may have to start Python on a busy machine
_MISSING = "--on ray needs Ray, which this installation lacks: pip install 'llm-bench[fleet]'"


@dataclass(frozen=True)
class Node:
    """A node that is alive; `name` is how lines call it, `gpus` how many Ray lends there."""

    id: str
    name: str
    gpus: int


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself; `devices`: the CPU and each GPU, as a machine with that one alone has it.

    `time_s`: its clock, seconds since 1970. `versions`: of what goes into digests, and of what runs them.
    """

    devices: tuple[Hardware, ...]
    versions: Mapping[str, str]
    environments: tuple[doctor.EnvironmentState, ...]
    cache: str
    free_bytes: int
    time_s: float


def ray() -> ModuleType:
    """The library; UserError where it is not installed."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will have it, and it warns until then
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UserError(_MISSING) from None


@contextmanager
def connected(address: str, tell: Callable[[str], object]) -> Iterator[ModuleType]:
    """Ray, connected to the cluster at `address`, else RAY_ADDRESS, else one on this machine, started if need be.

    `tell` hears that one was started: who has a cluster did not mean this machine alone.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--ray-address {address}: a Ray client cannot drive a run: give host:port, and start this "
            "command on a machine of the cluster"
        )
    library = ray()
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    chosen = address or os.environ.get("RAY_ADDRESS", "")
    try:
        with _signals(), _runtime_env() as common["runtime_env"]:
            _init(library, chosen, common, tell)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise UserError(_unconnected(chosen, error)) from None
    try:
        yield library
    finally:
        library.shutdown()


@contextmanager
def _signals() -> Iterator[None]:
    """What signals do is the command's to say: Ray sets a handler of its own as it connects."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _init(library: ModuleType, address: str, common: Mapping[str, Any], tell: Callable[[str], object]) -> None:
    try:
        library.init(address or "auto", **common)
    except ConnectionError:
        if address:
            raise
        tell("no Ray cluster is up on this machine: one of it alone is started (--ray-address names another's)")
        library.init("local", include_dashboard=False, object_store_memory=_LOCAL_STORE_BYTES, **common)


def nodes(library: ModuleType) -> list[Node]:
    """The nodes that are alive and have a CPU or GPU to lend, in the order of their names."""
    alive = [node for node in library.nodes() if node["Alive"]]
    names = [_name(node) for node in alive]
    usable = [
        Node(
            node["NodeID"],
            name if names.count(name) == 1 else f"{name} ({node['NodeID'][:6]})",
            int(node["Resources"].get("GPU", 0)),
        )
        for node, name in zip(alive, names, strict=True)
        if node["Resources"].get("CPU", 0) >= 1 or node["Resources"].get("GPU", 0) >= 1
    ]
    return sorted(usable, key=lambda node: (node.name, node.id))


def ask(library: ModuleType, there: Sequence[Node]) -> dict[Node, NodeReport | str]:
    """What each node says of itself, or why it says nothing, in a clause."""
    task = library.remote(num_cpus=0, max_retries=1)(tell)
    refs = {node: task.options(scheduling_strategy=on(library, node.id)).remote() for node in there}
    reports: dict[Node, NodeReport | str] = {}
    until = time.monotonic() + _TELL_LIMIT_S
    for node, ref in refs.items():
        try:
            reports[node] = library.get(ref, timeout=max(1.0, until - time.monotonic()))
        except library.exceptions.GetTimeoutError:
            reports[node] = f"it did not answer within {_TELL_LIMIT_S:g} s"
        except library.exceptions.RayError as error:
            reports[node] = cause_of(error)
    return reports


def tell() -> NodeReport:
    """This node's own report: a task that runs on it."""
    gpus = nvml.gpus()
    names = ("cpu", *(f"cuda:{number}" for number in range(len(gpus))))
    folder = paths.cache_folder()
    return NodeReport(
        tuple(hardware.detect(name) for name in names),
        versions(),
        tuple(doctor.states()),
        str(folder),
        shutil.disk_usage(folder).free,
        time.time(),
    )


def versions() -> dict[str, str]:
    """Of Python, of Ray, and of the packages of the core environment: two nodes that differ make different records."""
    packages = ("ray", *environment.spec("core").records)
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What differs between the driver's versions and a node's, in a clause; "" where nothing does."""
    differing = [name for name in here if here[name] != there.get(name)]
    return ", ".join(f"{name} {there.get(name, 'not installed')} (here {here[name]})" for name in differing)


def on(library: ModuleType, node_id: str) -> Any:
    """The scheduling strategy of what has to run on one node."""
    return library.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)


def cause_of(error: BaseException) -> str:
    """Why a task failed, in a clause, without its traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    if missing := [line for line in lines if "No module named" in line]:
        return f"{missing[-1]}: install llm-bench[fleet] there"
    return paths.scrubbed(lines[0])


@contextmanager
def _runtime_env() -> Iterator[dict[str, Any]]:
    """This suite's own code, which travels with the run; plugins of the user have to be where they are here."""
    variables = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if folders := plugins.user_folders():
        variables[plugins.VARIABLE] = os.pathsep.join(map(str, folders))
    if ceilings.OFF in os.environ:
        variables[ceilings.OFF] = os.environ[ceilings.OFF]
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as folder:
        for name, source in _code().items():
            shutil.copytree(source, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__", "data"))
        yield {"working_dir": folder, "env_vars": variables}


def _code() -> dict[str, Path]:
    """What a node needs of this suite, by where it lies in a checkout."""
    packages = Path(paths.__file__).parents[1]
    return {
        **{name: packages / name for name in ("bench", "quantize", "eval")},
        **{name: paths.ROOT / name for name in ("configs", "models/demo")},
    }


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("NodeName") or node["NodeManagerAddress"])


def _unconnected(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "version mismatch" in reason.lower():
        return f"this Python and Ray are not the cluster's: {reason}; install the cluster's versions here"
    where = f"the Ray cluster at {address}" if address else "Ray on this machine"
    return f"{where} cannot be used: {reason[:300]}; check --ray-address or RAY_ADDRESS, and that `ray status` answers"
