"""`bench doctor --architectures` as a person types it, where nothing runs."""

from __future__ import annotations

import pytest

from tests.conftest import Command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--architectures", "lama"], "unknown architecture 'lama': did you mean 'llama'?"),
        (["llama"], "llama is for architectures: add --architectures, or leave it out"),
        (["--write", "page.md"], "--write is for architectures: add --architectures, or leave it out"),
    ],
)
def test_a_mistake_is_one_sentence(command: Command, words: list[str], sentence: str) -> None:
    """And exit code 2, before anything is built."""
    done = command("bench", "doctor", *words)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
