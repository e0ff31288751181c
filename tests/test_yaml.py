"""What YAML means here, and what is refused."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from bench import paths, yaml
from bench.contract.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("1e5", 100_000.0),
        (".5", 0.5),
        ("-.INF", -math.inf),
        ("2:4", "2:4"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2026-01-01", "2026-01-01"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("TRUE", True),
        ("~", None),
        ("", None),
        ("'010'", "010"),
    ],
)
def test_a_scalar_means_what_yaml_12_says(text: str, value: object) -> None:
    """Numbers are decimal unless they say otherwise; words and dates are strings."""
    read = yaml.load(f"key: {text}")["key"]

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2", r"^line 2: not valid YAML: the key 'a' is given twice"),
        ("a: {1: x, 01: y}", "the key '01' is given twice"),
        ("a: {b: [{c: 1, 'c': 2}]}", "the key 'c' is given twice"),
        ("a: &x {k: 1}\nb: {<<: *x}", r"line 2: .*'<<' merges keys in YAML 1\.1 alone"),
        ("[" * 20_000, "nested more than 64 deep"),
        ("&a [*a]", "an alias stands within what it stands for"),
        ("a: " + "9" * 5_000, "a number of 5000 digits"),
        ("!!int four", "'four' is no int"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("a: 1\n---\nb: 1", "found another document"),
        ("a: \x00", "special characters are not allowed"),
        ("x" * 70_000, "longer than 65536 characters"),
    ],
)
def test_what_is_not_plain_yaml_is_one_sentence(text: str, sentence: str) -> None:
    """Keys given twice, aliases without end, depth, digits, and tags that make other objects."""
    with pytest.raises(UserError, match=sentence) as caught:
        yaml.load(text)
    assert "\n" not in str(caught.value)


def test_aliases_stand_for_values_but_not_for_millions() -> None:
    """An alias is what it stands for; ten levels of nine aliases each are refused at once."""
    assert yaml.load("a: &x {k: 1}\nb: [*x, *x]") == {"a": {"k": 1}, "b": [{"k": 1}, {"k": 1}]}

    levels = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    began = time.process_time()
    with pytest.raises(UserError, match="more than 100000 values"):
        yaml.load("\n".join(["a: &a [1, 2, 3]", *levels]))
    assert time.process_time() - began < 1


def test_a_file_is_named_and_a_pipe_does_not_hang(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, a list at the top: a sentence with the path."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    for name in ("pipe.yaml", "list.yaml", "latin.yaml", "."):
        with pytest.raises(UserError, match=str(tmp_path)):
            yaml.load_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        yaml.load_file(tmp_path / "none.yaml")


def test_every_file_that_ships_is_read() -> None:
    """Suites, environments, shapes and tables have no key twice."""
    files = [
        *paths.CONFIGS.glob("*.yaml"),
        *paths.CONFIGS.glob("*/*.yaml"),
        *Path(yaml.__file__).parent.glob("*/*.yaml"),
    ]

    assert len(files) > 20
    assert all(yaml.load_file(file) for file in files if file.parent.name != "tasks")
