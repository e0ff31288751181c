from __future__ import annotations

from pathlib import Path

import pytest

from bench.engines._receipts import load_error

FOLDER = Path("/home/a/.cache/llm-bench/artifacts/ab/model")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"no file named model.safetensors found in directory {FOLDER}.", "found in the artifact's folder."),
        (f"Can't load '{FOLDER}'. If you", "Can't load the artifact's folder"),
        (f"{FOLDER}/config.json is bad", "the artifact's folder/config.json is bad"),
        ("1 validation error for C\n  Value error, too long", "too long"),
        ("", "OSError"),
    ],
)
def test_a_librarys_reason_is_a_sentence_without_this_machines_folders(message: str, reason: str) -> None:
    """The place is a place of the artifact's, in words that fit where the path was."""
    text = str(load_error("Transformers", OSError(message), FOLDER))

    assert text.endswith(reason)
    assert text.startswith("Transformers cannot load the artifact: ")
    assert "/home" not in text
