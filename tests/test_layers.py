"""The laws of DESIGN: arrows only downward, plugins import the contract.

The core environment has no torch.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("bench", "quantize", "eval")
# The rooms from the bottom up. A module imports its own room and the layers below; rooms of one layer are
# strangers to each other. Plugins stand apart: what they may import is below.
_LAYERS: tuple[tuple[str, ...], ...] = (
    ("bench.contract",),
    ("bench.yaml",),
    ("bench.paths", "bench.foreign", "bench.formats", "bench.machine", "bench.measure", "bench.progress"),
    ("bench.record_index",),
    ("bench.store", "bench.process.bound", "bench.process.keeper"),
    # environments and models are built by processes, once
    ("bench.process.child", "bench.process.cache", "bench.process.scratch"),
    ("bench.envs", "bench.models", "bench.load"),
    ("bench.process", "bench.suite", "bench.rows"),
    ("bench.publish.prices",),
    ("bench.run", "bench.share", "bench.publish.tables", "bench.publish.machines"),
    ("bench.conformance", "bench.fleet"),
    tuple(f"bench.publish.{name}" for name in ("recommend", "predictions", "plans", "compare", "headline")),
    ("bench.publish.records",),
    ("bench.publish.document", "bench.publish.figures"),
    ("bench.publish.page", "bench.publish.history"),
    ("bench.publish.report",),
    ("bench.cli",),
    (
        "bench",
        "quantize.__main__",
        "quantize.command",
        "quantize.sensitivity_command",
        "eval.__main__",
        "eval.command",
        "eval.format",
    ),
)
_PLUGINS = ("bench.engines", "quantize.methods", "eval.tasks")
# What plugins and the modules that several of them share may import of ours. A module of a plugin package that
# begins with an underscore is no plugin: its plugins share it.
_SHARED: dict[str, tuple[str, ...]] = {
    "bench.engines": (
        "bench.contract",
        "bench.formats.folder",
        "bench.engines._batch",
        "bench.engines._choices",
        "bench.engines._logits",
        "bench.engines._receipts",
    ),
    "quantize": (
        "bench.contract",
        "bench.formats.architecture",
        "bench.formats.folder",
        "bench.formats.gguf_reader",
        "bench.formats.gguf_tokenizer",
        "eval.corpora",
        "eval.layers",
        "eval.stats.paired",
        "eval.text.windows",
        "quantize",
    ),
    "eval": ("bench.contract", "bench.formats.folder", "bench.paths", "eval"),
}
# Plugins import these in every environment. (A room is held by its own __init__ too.)
_STANDARD_LIBRARY_ONLY = ("bench.contract", "bench.formats")
_ALONE = {  # they run in every environment
    "bench.process.causality": ("bench.contract",),
    "bench.process.worker": (
        "bench.contract",
        "bench.formats",
        "bench.machine.ceiling",
        "bench.machine.resident",
        "bench.process.causality",
        "bench.process.model_code",
    ),
    "bench.process.model_code": ("bench.contract",),
    "bench.process.bound": (),
    "bench.process.keeper": (),
    "bench.process.worker_main": ("bench.process.bound", "bench.process.worker"),
}
_ROOMS_REFUSED = {"utils", "common", "helpers", "core", "base"}
_MOST_FILES = 20
_MOST_LINES = 400


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for package in _OURS:
        for file in sorted((root / package).rglob("*.py")):
            name = ".".join(file.relative_to(root).with_suffix("").parts)
            yield name.removesuffix(".__init__"), file


def _within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _allowed(name: str) -> tuple[str, ...]:
    """The packages and modules of ours that `name` may import."""
    if name in _ALONE:
        return _ALONE[name]
    plugin = next((package for package in _PLUGINS if name.startswith(f"{package}.")), None)
    if plugin:
        own = ".".join(name.split(".")[: len(plugin.split(".")) + 1])
        shared = _SHARED.get(plugin) or _SHARED[plugin.partition(".")[0]]
        return (*(s for s in shared), own)
    room, level = max(
        ((room, level) for level, rooms in enumerate(_LAYERS) for room in rooms if _within(name, (room,))),
        key=lambda found: len(found[0]),
        default=("", -1),
    )
    if level < 0:
        return _SHARED[name.partition(".")[0]]
    below = tuple(room for rooms in _LAYERS[:level] for room in rooms)
    return (room, *below, *(("bench", "quantize", "eval") if level == len(_LAYERS) - 1 else ()))


def violations(root: Path) -> list[str]:
    """Each forbidden import of the tree below `root`, as 'module imports name'."""
    forbidden = []
    for name, file in _modules(root):
        tree = ast.parse(file.read_text())
        allowed, plugin = _allowed(name), _within(name, _PLUGINS)
        ours = [imported for imported in _imports(tree) if _within(imported, _OURS)]
        forbidden += [
            f"{name} imports {imported}"
            for imported in ours
            if not _within(imported, allowed) or (plugin and _other_plugin(name, imported))
        ]
        top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        if _within(name, (*_STANDARD_LIBRARY_ONLY, *_ALONE, *_PLUGINS)):
            first = {imported.partition(".")[0] for imported in _imports(top)}
            outside = sorted(first - {*_OURS} - sys.stdlib_module_names)
            forbidden += [f"{name} imports {library} at its top level" for library in outside]
    return forbidden


def _other_plugin(name: str, imported: str) -> bool:
    """Whether a plugin imports another one."""
    for package in _PLUGINS:
        if imported.startswith(f"{package}."):
            depth = len(package.split(".")) + 1
            plugin = imported.split(".")[:depth]
            return not plugin[-1].startswith("_") and plugin != name.split(".")[:depth]
    return False


def test_arrows_point_downward() -> None:
    """No module imports a room above it or beside it; no plugin imports another, or its library on load."""
    assert violations(ROOT) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Nor for types alone: what two files need of each other belongs into a third."""
    modules = dict(_modules(ROOT))
    graph = {}
    for name, file in modules.items():
        imported = [_module_of(full, modules) for full in _imports(ast.parse(file.read_text()))]
        graph[name] = {m for m in imported if m not in (None, name) and not name.startswith(f"{m}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def _module_of(full: str, modules: dict[str, Path]) -> str | None:
    return full if full in modules else next((m for m in (full.rpartition(".")[0],) if m in modules), None)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("bench/contract/spec.py", "import pydantic"),
        ("bench/contract/spec.py", "from bench import store"),
        ("bench/engines/fake.py", "import numpy"),
        ("bench/engines/fake.py", "from bench.engines import hf"),
        ("bench/engines/fake.py", "def f():\n    from bench.process import supervisor"),
        ("bench/formats/folder.py", "from bench.machine import cpu"),
        ("bench/formats/folder.py", "import numpy"),
        ("bench/engines/fake.py", "from bench.formats import gguf_reader"),
        ("bench/measure/stats.py", "from bench.publish.tables import build"),
        ("bench/run/plan.py", "import quantize.methods.gptq"),
        ("bench/process/worker.py", "from bench.envs import environment"),
        ("bench/publish/tables/build.py", "from bench.run import plan"),
        ("quantize/methods/gptq.py", "from quantize.methods import awq"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, line: str) -> None:
    """The check above sees a violation when there is one."""
    planted = tmp_path / file
    planted.parent.mkdir(parents=True)
    planted.write_text((ROOT / file).read_text() + f"\n{line}\n")

    assert len(violations(tmp_path)) == 1


def test_the_core_environment_has_no_torch() -> None:
    """Torch and the engines live in their own environments."""
    assert [m for m in ("torch", "transformers", "vllm", "llama_cpp") if importlib.util.find_spec(m)] == []


def test_rooms_files_and_functions_stay_small() -> None:
    """No file has over _MOST_LINES, no function over 80, no folder over 20 files; none is a drawer for all."""
    for name, file in _modules(ROOT):
        text = file.read_text()
        assert len(text.splitlines()) <= _MOST_LINES, f"{file}: two subjects"
        assert not _ROOMS_REFUSED & set(name.split(".")), f"{name}: name it after what it does"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 80, f"{name}.{node.name} is too long"
    folders = {file.parent for _, file in _modules(ROOT)} - {ROOT / "quantize" / "methods"}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= _MOST_FILES, f"{folder}: more than one subject"
