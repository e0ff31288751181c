"""The laws of DESIGN: arrows only downward, plugins import the contract.

The core environment has no torch.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("bench", "quantize", "eval")
# Of the room quantize, by several methods: its modules beside the folder of methods.
_SHARED = tuple(f"quantize.{f.stem}" for f in sorted((ROOT / "quantize").glob("*.py")) if f.stem[0] != "_")
_SCORING = ("eval.corpora", "eval.tokens", "eval.windows", "eval.logprobs", "eval.bootstrap",
            "eval.likelihood", "eval.paired", "eval.harness")  # fmt: skip
_PLUGINS = ("bench.engines", "quantize.methods", "eval.tasks")
# What each room may import of ours, longest prefix first.
_ALLOWED: dict[str, tuple[str, ...]] = {
    "bench.contract": ("bench.contract",),
    "bench.engines": ("bench.contract",),
    # One engine may be several files: those with an underscore are its own and no plugins.
    "bench.engines.hf": (
        "bench.contract",
        "bench.engines._hf_scores",
        "bench.engines._hf_seen",
        "bench.engines._hf_torchao",
    ),
    "bench.engines._hf_torchao": ("bench.contract", "bench.engines._hf_seen"),
    "bench.engines.llamacpp": (
        "bench.contract",
        "bench.engines._llamacpp_context",
        "bench.engines._llamacpp_reads",
    ),
    "bench.engines.vllm": ("bench.contract", "bench.engines._vllm_scores", "bench.engines._vllm_seen"),
    "bench.engines.onnxruntime": ("bench.contract", "bench.engines._onnxruntime_seen"),
    "quantize.methods": ("bench.contract", *_SHARED),
    "eval.tasks": ("bench.contract", *_SCORING),
    "eval.corpora": ("bench.contract",),
    "eval.tokens": ("bench.contract",),
    "eval.windows": ("bench.contract", "eval.corpora", "eval.tokens"),
    "eval.logprobs": ("bench.contract",),
    "eval.bootstrap": (),
    "eval.paired": (),
    "eval.likelihood": ("bench.contract",),
    "eval.harness": ("bench.contract",),
    "eval.stdlib_items": ("eval.corpora",),
    "eval.local_items": ("bench.contract",),
    "eval.shown": ("bench.contract", "bench.publish"),
    "quantize.__main__": ("bench", "quantize"),
    "eval.__main__": ("bench", "eval"),
    "bench.load": ("bench.contract", "bench.load"),
    "bench.machine": ("bench.contract", "bench.machine"),
    "bench.measure": ("bench.contract", "bench.measure"),
    "bench.store": ("bench.contract",),
    "bench.run.worker": ("bench.contract", "bench.machine.ceiling"),
    "bench.run": (
        "bench.run",
        "bench.load",
        "bench.machine",
        "bench.measure",
        "bench.store",
        "bench.contract",
    ),
    "bench.publish": ("bench.publish", "bench.measure", "bench.store", "bench.contract"),
    "bench": ("bench",),
    "quantize": ("bench.contract", "eval.corpora", *_SHARED),
    "eval": (),
}
_ROOMS_REFUSED = {"utils", "common", "helpers", "core", "base"}


def _files(root: Path) -> Iterator[tuple[str, Path]]:
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


def violations(root: Path) -> list[str]:
    """Each forbidden import of the tree below `root`, as 'module imports name'."""
    found = []
    for name, file in _files(root):
        room = max((r for r in _ALLOWED if _within(name, (r,))), key=len)
        tree = ast.parse(file.read_text())
        ours = [imported for imported in _imports(tree) if _within(imported, _OURS)]
        found += [f"{name} imports {imported}" for imported in ours if not _within(imported, _ALLOWED[room])]
        top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        if _within(name, ("bench.contract", "bench.run.worker", *_PLUGINS)):
            first = {imported.partition(".")[0] for imported in _imports(top)}
            outside = sorted(first - {*_OURS} - sys.stdlib_module_names)
            found += [f"{name} imports {library} at its top level" for library in outside]
    return found


def test_arrows_point_downward() -> None:
    """No module imports a room above it; no plugin imports another, or its library on load."""
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("bench/contract/spec.py", "import pydantic"),
        ("bench/contract/spec.py", "from bench import store"),
        ("bench/engines/fake.py", "import numpy"),
        ("bench/engines/fake.py", "from bench.engines import hf"),
        ("bench/engines/fake.py", "def f():\n    from bench.run import launch"),
        ("bench/measure/stats.py", "from bench.publish import tables"),
        ("bench/run/plan.py", "import quantize.methods.gptq"),
        ("bench/publish/tables.py", "from bench.run import plan"),
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


def test_files_and_functions_stay_small() -> None:
    """No file is over 400 lines, no function over 80, and no room is a drawer for everything."""
    for name, file in _files(ROOT):
        text = file.read_text()
        assert len(text.splitlines()) <= 400, f"{file}: two subjects"
        assert not _ROOMS_REFUSED & set(name.split(".")), f"{name}: name it after what it does"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 80, f"{name}.{node.name} is too long"
