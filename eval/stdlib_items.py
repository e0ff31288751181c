"""Multiple choice out of the standard library's held-out modules: tasks that need no download and no network.

Four choices an item, cut from modules that the demo model was never trained or calibrated on. Everything is
chosen by SHA-256 of its place, so that one Python version gives the same items on every machine, in every
process. Each function is a `custom_dataset` of lm-eval: configs/tasks/stdlib_*.yaml name them.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from eval import corpora

ITEMS = 1000
_CHOICES = 4
_BEFORE, _ABOVE = 24, 12  # lines of context at most: of a definition, and above a line
_LEAST_CHARS, _LENGTHS = 12, (0.75, 1.34)  # a line worth guessing, and how long its rivals may be beside it
_Definition = ast.FunctionDef | ast.AsyncFunctionDef
Item = dict[str, Any]


@dataclass(frozen=True)
class _Module:
    name: str
    lines: list[str]
    tree: ast.Module


def next_line(**_: Any) -> Mapping[str, Any]:
    """For lm-eval: the items of `next_lines` as its test split."""
    return _dataset(next_lines())


def argument(**_: Any) -> Mapping[str, Any]:
    """For lm-eval: the items of `arguments` as its test split."""
    return _dataset(arguments())


def docstring(**_: Any) -> Mapping[str, Any]:
    """For lm-eval: the items of `docstrings` as its test split."""
    return _dataset(docstrings())


def next_lines() -> list[Item]:
    """Which line comes next: the others are lines of the same module, as deep and about as long."""
    return _chosen("next_line", _next_lines(), ITEMS)


def arguments() -> list[Item]:
    """Which of a function's arguments is used here: the others are its own, then those of its neighbours."""
    return _chosen("argument", _arguments(), ITEMS)


def docstrings() -> list[Item]:
    """Whether a docstring is closed here and the code begins, or another line of it follows.

    One choice in four closes it, and in one item of four that is right: a blind guess gets a quarter.
    """
    ends: list[Item] = []
    inside: list[Item] = []
    for is_end, found in _docstrings():
        (ends if is_end else inside).append(found)
    closed = _chosen("docstring", ends, ITEMS // _CHOICES)
    return closed + _chosen("docstring", inside, ITEMS - len(closed))


def _next_lines() -> Iterator[Item]:
    low, high = _LENGTHS
    for module in _modules():
        by_depth: dict[int, list[str]] = {}
        for line in module.lines:
            by_depth.setdefault(_depth(line), []).append(line)
        for at, line in enumerate(module.lines):
            size = len(line.strip())
            if at < _ABOVE or size < _LEAST_CHARS:
                continue
            seen = module.lines[at - _ABOVE : at]
            rivals = [
                other for other in by_depth[_depth(line)]
                if low <= len(other.strip()) / size <= high and other not in seen
            ]  # fmt: skip
            yield from _item("next_line", f"{module.name}:{at + 1}", "\n".join(seen) + "\n", line, rivals)


def _arguments() -> Iterator[Item]:
    """One use a line: two of one line would end in the same text, cut at different places."""
    for module in _modules():
        functions = [node for node in ast.walk(module.tree) if isinstance(node, _Definition)]
        names = {name for node in functions for name in _parameters(node)}
        by_line: dict[int, list[Item]] = {}
        for node in functions:
            own = set(_parameters(node))
            for use in ast.walk(ast.Module(node.body, [])):
                if isinstance(use, ast.Name) and isinstance(use.ctx, ast.Load) and use.id in own:
                    by_line.setdefault(use.lineno, []).extend(_use(module, node, use, own, names - own))
        for found in by_line.values():
            if found:
                yield min(found, key=lambda item: _key("argument", "line", item["where"]))


def _use(
    module: _Module, node: _Definition, use: ast.Name, own: set[str], others: set[str]
) -> Iterator[Item]:
    if use.lineno - node.lineno >= _BEFORE:
        return
    line, where = module.lines[use.lineno - 1].encode(), f"{module.name}:{use.lineno}:{use.col_offset}"
    before, after = line[: use.col_offset].decode(), line[use.end_col_offset or 0 :].decode()
    context = "\n".join([*module.lines[node.lineno - 1 : use.lineno - 1], before])
    rivals = [*_ordered(own - {use.id}, "argument", where), *_ordered(others, "argument", where)]
    yield from _item("argument", where, context, use.id + after, [n + after for n in rivals[: _CHOICES - 1]])


def _docstrings() -> Iterator[tuple[bool, Item]]:
    """(whether the docstring ends there, item)."""
    for module in _modules():
        found: list[Any] = [node for node in ast.walk(module.tree) if _has_docstring(node)]
        spoken = {node: _spoken(module, node.body[0]) for node in found}
        for node in found:
            rivals = {line for other in found if other is not node for line in spoken[other]}
            yield from _ends(module, node, rivals)


def _ends(module: _Module, node: Any, rivals: set[str]) -> Iterator[tuple[bool, Item]]:
    """The end of one docstring, and the end of each of its lines."""
    text = node.body[0]
    last, indent = text.end_lineno, " " * text.col_offset
    code = next((line for line in module.lines[last:] if line.strip()), "")
    first = max(getattr(node, "lineno", 1) - 1, last - _BEFORE)
    whole = "\n".join(module.lines[first:last]).rstrip()
    quotes = whole[-3:]
    if quotes not in ('"""', "'''") or not code:
        return
    lines = [f"\n{indent}{line}" for line in rivals]
    said = whole[:-3].rstrip()
    closing = whole[len(said) :] + "\n" + code
    for item in _item("docstring", f"{module.name}:{last}", said, closing, lines):
        yield True, item
    for at in range(max(first, text.lineno), last - 1):
        if not module.lines[at].strip():
            continue
        where, above = f"{module.name}:{at}", "\n".join(module.lines[first:at])
        follows = above[len(above.rstrip()) :] + "\n" + module.lines[at]
        wrong = [f"\n{indent}{quotes}\n{code}", *_ordered(lines, "docstring", where)[: _CHOICES - 2]]
        for item in _item("docstring", where, above.rstrip(), follows, wrong):
            yield False, item


def _item(task: str, where: str, context: str, right: str, wrong: Iterable[str]) -> Iterator[Item]:
    """One item with its right choice at a place that the hash chooses; none where rivals are too few."""
    rivals = _ordered({text for text in wrong if text.strip() != right.strip()}, task, where)[: _CHOICES - 1]
    if len(rivals) < _CHOICES - 1 or not context.strip():
        return
    label = int(_key(task, where)[:8], 16) % _CHOICES
    choices = [*rivals[:label], right, *rivals[label:]]
    yield {"where": where, "context": context, "choices": choices, "label": label}


def _dataset(items: list[Item]) -> Mapping[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(items)}


def _chosen(task: str, items: Iterable[Item], count: int) -> list[Item]:
    """The `count` items whose places have the smallest hashes: a sample over all modules."""
    return sorted(items, key=lambda item: _key(task, "chosen", item["where"]))[:count]


def _ordered(names: Iterable[str], task: str, where: str) -> list[str]:
    return sorted(names, key=lambda name: _key(task, where, name))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _modules() -> tuple[_Module, ...]:
    return tuple(
        _Module(name, text.split("\n"), ast.parse(text))
        for name, text in corpora.stdlib_modules("evaluation")
    )


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parameters(node: _Definition) -> list[str]:
    given = node.args
    named = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in named if name not in ("self", "cls")]


def _has_docstring(node: ast.AST) -> bool:
    kinds = (*_Definition.__args__, ast.ClassDef, ast.Module)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None and len(node.body) > 1


def _spoken(module: _Module, text: ast.stmt) -> list[str]:
    """The lines of a docstring that say something, without the first, which has the quotes."""
    found = (line.strip() for line in module.lines[text.lineno : (text.end_lineno or 0) - 1])
    return [line for line in found if len(line) >= _LEAST_CHARS]
