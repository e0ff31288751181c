from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from bench.contract.outside import (
    code,
    csv_cell,
    each_text,
    is_secret_field,
    markdown_prose,
    markdown_text,
    printable,
    printable_lines,
    scrubbed,
    scrubber,
)

KEY = "sk-a/b+c=0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)
    monkeypatch.setenv("PLAIN", "plain value")
    monkeypatch.setenv("SHORT_TOKEN", "abc")


@pytest.mark.parametrize(
    "form",
    [KEY, json.dumps(KEY)[1:-1].replace("/", "\\/"), quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()],
)
def test_a_secret_is_taken_out_in_every_form_that_servers_write(form: str) -> None:
    """As it is, in JSON, in a URL, in base64."""
    assert form not in scrubbed(f"no such key: {form}!")
    assert scrubbed(f"no such key: {form}!").startswith("no such key: <ACME_API_KEY>")


def test_only_secrets_are_taken_out() -> None:
    """A variable by another name, and a value too short to be one, stay; a variable that is named goes."""
    text = "plain value, abc, a tokenizer, Bearer authentication required, http://h:80/v1"

    assert scrubbed(text) == text
    assert scrubbed(text, "PLAIN") == text.replace("plain value", "<PLAIN>")


def test_a_password_in_a_url_and_a_bearer_token_are_secret_whoever_wrote_them() -> None:
    """No variable has to hold them."""
    assert scrubbed("from https://me:pass@h/simple") == "from https://<password>@h/simple"
    assert "0f9a8b7c6d5e4f3a2b1c" not in scrubbed("Authorization: Bearer 0f9a8b7c6d5e4f3a2b1c")


def test_all_texts_of_a_json_form_are_scrubbed() -> None:
    """Names of fields too; numbers stay what they are."""
    form = {"a": [KEY, 1.5, None, {KEY: True}]}

    assert each_text(form, scrubber()) == {"a": ["<ACME_API_KEY>", 1.5, None, {"<ACME_API_KEY>": True}]}


@pytest.mark.parametrize(
    "character", ["\x1b", "\x07", "\x9b", "\n", "\r", "\u202e", "\u2066", "\u200b", "\u2028", "\udc80", "\ufeff"]
)
def test_nothing_steers_a_terminal_or_turns_a_line_around(character: str) -> None:
    """Escapes, bells, C1 controls, bidi controls, zero widths, line separators, lone surrogates are spaces."""
    assert printable(f"a{character}b") == "a b"


def test_letters_of_all_scripts_stay() -> None:
    """And the ends of lines and tabs, where there may be several lines."""
    assert printable("größer 量子化 ⁰¹ ±") == "größer 量子化 ⁰¹ ±"
    assert printable_lines("a\tb\r\nc\x1b[2J\n") == "a\tb\nc [2J\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", " =1", "\t=1", "\uff1d1"])
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    """Text that would be a formula has an apostrophe before it; numbers below zero are numbers."""
    assert str(csv_cell(text)).startswith("'")
    assert (csv_cell(-1.5), csv_cell("gptq-w4"), csv_cell("")) == (-1.5, "gptq-w4", "")


def test_markdown_has_no_tag_link_cell_or_line_of_the_text() -> None:
    """A name within prose keeps the underscores in its words; one within code ends nothing."""
    hostile = "<img src=x onerror=alert(1)> | [a](javascript:b) `c`\n# d_e _f_"

    for text in (markdown_text(hostile), markdown_prose(hostile)):
        for character in "<>|[]`":
            assert text.count(character) == text.count(f"\\{character}")
        assert "\n" not in text
    assert markdown_text("a_b") == "a\\_b"
    assert markdown_prose("a_b _c_") == "a_b \\_c\\_"
    assert code("a`|`b\n") == "a'/'b"


def test_names_of_secret_fields() -> None:
    """Of headers, of queries and of bodies; what only counts tokens is none."""
    assert all(map(is_secret_field, ("Authorization", "api-key", "X-API-Key", "access_token", "client_secret", "key")))
    assert not any(map(is_secret_field, ("max_tokens", "stop_token_ids", "api-version", "X-Request-Id", "top_k")))
