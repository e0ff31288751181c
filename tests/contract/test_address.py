from __future__ import annotations

import pytest

from bench.contract.address import Api, api_of, of_api, of_models

AZURE = "https://east.example/openai/deployments/gpt"


@pytest.mark.parametrize(
    ("url", "api", "address", "models"),
    [
        ("http://h:8000", "completions", "http://h:8000/v1/completions", "http://h:8000/v1/models"),
        ("http://h/v1/", "chat", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("https://h/api/paas/v4", "chat", "https://h/api/paas/v4/chat/completions", "https://h/api/paas/v4/models"),
        ("http://h/v12", "completions", "http://h/v12/completions", "http://h/v12/models"),
        ("http://h/v1beta/openai", "chat", "http://h/v1beta/openai/chat/completions", "http://h/v1beta/openai/models"),
        ("http://h/proxy", "completions", "http://h/proxy/v1/completions", "http://h/proxy/v1/models"),
        ("http://h/vllm", "completions", "http://h/vllm/v1/completions", "http://h/vllm/v1/models"),
        ("http://h/x/completions", "completions", "http://h/x/completions", "http://h/x/models"),
        ("http://h/x/chat/completions/", "chat", "http://h/x/chat/completions", "http://h/x/models"),
        (f"{AZURE}?api-version=2024-10-21", "chat", f"{AZURE}/chat/completions?api-version=2024-10-21", None),
        (f"{AZURE}/chat/completions?api-version=1", "chat", f"{AZURE}/chat/completions?api-version=1", None),
        ("http://[::1]:9/v1?a=b c", "chat", "http://[::1]:9/v1/chat/completions?a=b%20c", None),
        ("http://münchen.example", "chat", "http://xn--mnchen-3ya.example/v1/chat/completions", None),
    ],
)
def test_a_path_with_a_version_or_the_whole_address_stays(url: str, api: Api, address: str, models: str | None) -> None:
    """Below any other root it is /v1; a query stays with every address."""
    assert of_api(url, api_of(url, api)).url == address
    assert models is None or of_models(url).url == models


def test_the_whole_address_says_which_api_it_is() -> None:
    """So --chat can be left out; where both are given and contradict each other, that is refused."""
    assert api_of("http://h/v1/chat/completions", "completions") == "chat"
    assert api_of("http://h/v1/completions", "completions") == "completions"
    with pytest.raises(ValueError, match="is not the chat API's address"):
        api_of("http://h/v1/completions", "chat")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h:99999", "Port out of range"),
        ("http://h:abc", "http://HOST:PORT"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://me:pa55word@[::1", "Invalid IPv6 URL"),
        ("ftp://me:pa55word@h", "http://HOST:PORT"),
        ("h:8000", "http://HOST:PORT"),
        ("http://me:pa55word@h", "use key_variable"),
        ("http://h/v1?api_key=pa55word", "query holds a secret.*key_header"),
    ],
)
def test_what_cannot_be_asked_or_shows_a_secret_is_refused(url: str, words: str) -> None:
    """In one sentence, which does not repeat the secret."""
    with pytest.raises(ValueError, match=words) as error:
        of_api(url, "chat")
    assert "pa55word" not in str(error.value)
