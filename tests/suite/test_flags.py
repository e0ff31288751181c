from __future__ import annotations

import pytest

from bench.contract.errors import UserError
from bench.suite import flags


def test_words_become_typed_options() -> None:
    """Numbers, truth values and words are read as a suite file reads them; dashes become underscores."""
    words = ["--bits", "4", "--group-size=64", "--desc-act", "--no-symmetric", "--corpus", "path:a/b.txt"]

    assert flags.options(words) == {
        "bits": 4,
        "group_size": 64,
        "desc_act": True,
        "symmetric": False,
        "corpus": "path:a/b.txt",
    }


def test_a_negative_number_is_a_value() -> None:
    """`--group-size -1` is not taken for a flag."""
    assert flags.options(["--group-size", "-1"]) == {"group_size": -1}


def test_a_stray_word_is_refused() -> None:
    """A word that belongs to no option is named."""
    with pytest.raises(UserError, match="unexpected argument 'extra'"):
        flags.options(["extra"])
