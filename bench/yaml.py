"""The one reader of YAML: scalars mean what YAML 1.2's core schema says, and nothing is silently another thing.

PyYAML reads YAML 1.1, where 010 is 8, `yes` is true, 2:4 is 124 and the last of two equal keys wins. Here 010 is
ten, `yes` and 2:4 are strings that a schema then judges, and a key given twice is an error. No date, binary or set
comes out, and no text takes unbounded time, memory or recursion: nesting, size and aliases are limited.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bench.contract import wire
from bench.contract.errors import UserError

_TAG = "tag:yaml.org,2002:"
_MAX_BYTES = 1 << 16
_MAX_DEPTH = 64
_MAX_NODES = 100_000  # with each alias counted as what it stands for
_MAX_DIGITS = 300
_NULL = re.compile(r"(~|null|Null|NULL|)$")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_SCALARS = {
    "null": (_NULL, "~nN"),
    "bool": (_BOOL, "tTfF"),
    "int": (_INT, "-+0123456789"),
    "float": (_FLOAT, "-+.0123456789"),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the scalars of YAML 1.2's core schema and those limits."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {None: yaml.SafeLoader.construct_undefined}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {_MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        given = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                key = (key_node.tag, _scalar(self, key_node) if _kind(key_node) in _SCALARS else key_node.value)
                if key_node.value == "<<":
                    raise _error(key_node, "'<<' merges keys in YAML 1.1 alone: write the keys out")
                if key in given:
                    raise _error(key_node, f"the key '{key_node.value}' is given twice")
                given.add(key)
        return node


def _error(node: Any, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _kind(node: Any) -> str:
    return str(node.tag).removeprefix(_TAG)


def _scalar(loader: Any, node: Any) -> Any:
    """A scalar by the type that its form, or its tag, says."""
    text, kind = loader.construct_scalar(node), _kind(node)
    if not _SCALARS[kind][0].match(text):
        raise _error(node, f"'{text[:40]}' is no {kind}")
    if len(text) > _MAX_DIGITS:
        raise _error(node, f"a number of {len(text)} digits")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    lower = text.lower()
    return math.nan if lower == ".nan" else float(lower.replace(".inf", "inf"))


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _pattern, [*_first, *([""] if _name == "null" else [])])
    _Loader.yaml_constructors[f"{_TAG}{_name}"] = _scalar
for _name in ("str", "seq", "map"):
    _Loader.yaml_constructors[f"{_TAG}{_name}"] = getattr(yaml.SafeLoader, f"construct_yaml_{_name}")


def load(text: str) -> Any:
    """The value of the text; UserError, with the line, for invalid YAML."""
    if len(text) > _MAX_BYTES:
        raise UserError(f"longer than {_MAX_BYTES} characters: the YAML of this suite has a few thousand")
    try:
        return _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{line}not valid YAML: {' '.join(str(problem).split())}") from None


def _load(text: str) -> Any:
    loader: Any = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _check_size(node)
    return loader.construct_document(node)


def load_file(path: Path) -> dict[str, Any]:
    """The mapping at the top of a file; UserError, with its path, for any other, and FileNotFoundError for none."""
    try:
        data = load(wire.read_bytes(path, _MAX_BYTES).decode("utf-8"))
    except UserError as error:
        joint = " " if str(error).startswith("line") else ": "
        raise UserError(f"{path}{joint}{error}") from None
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected 'key: value' lines at the top")
    return data


def _check_size(root: Any) -> None:
    """YAMLError for aliases within themselves, or that stand for more nodes together than any file here has."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise _error(node, "an alias stands within what it stands for")
            return sizes[id(node)]
        sizes[id(node)] = 0
        children = node.value if not isinstance(node, yaml.ScalarNode) else ()
        inner = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        sizes[id(node)] = 1 + sum(map(size, inner))
        if sizes[id(node)] > _MAX_NODES:
            raise _error(node, f"more than {_MAX_NODES} values, counted with every alias")
        return sizes[id(node)]

    size(root)
