"""A model's chat template as Transformers renders it, in bounded time, and what becomes of one that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.models import chat_template
from tests.conftest import json_of

_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_UPPER = (
    "{{ bos_token }}{%- for message in messages %}\n    {%- if message.role == 'system' -%}{% continue %}{%- endif %}\n"
    "[{{ message.role|upper }}] {{ message.content|trim }}{{ eos_token }}\n{% endfor %}"
)
_LAST = (
    "{% if messages|length > 9 %}{{ raise_exception('too many') }}{% endif %}{% for m in messages %}{% if loop.last %}"
    "{{ m['content'] }}{% else %}{{ m.content }}|{% endif %}{% endfor %}"
)
_OTHERS = (
    _UPPER,
    _LAST,
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m|tojson }}{% endfor %}",
)
_TALK = [[("system", "Be <b>kind</b> & brief."), ("user", " Why? ")], [("user", "naïve 中文\n\nx")]]


def _model(folder: Path, template: str, **settings: Any) -> Path:
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "chat_template": template, **settings}))
    return folder


def test_a_conversation_is_the_text_the_template_makes(tmp_path: Path) -> None:
    """Up to where the answer begins; a template in its own file goes before one in the settings."""
    model = _model(tmp_path, "other")
    (tmp_path / "chat_template.jinja").write_text(_CHATML)

    assert (
        chat_template.render(model, _TALK)[1] == "<|im_start|>user\nnaïve 中文\n\nx<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat_template.special_tokens(model) == {"bos_token": "<s>", "eos_token": "</s>"}


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    """As Transformers does."""
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert chat_template.render(_model(tmp_path, "", chat_template=named), _TALK) == ["d", "d"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "has no chat template"),
        ("{{ raise_exception('no system role') }}", r"cannot be rendered \(TemplateError: no system role\)"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "it took over 1 s of the"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    """With its own words; one without an end is ended, and reaches nothing of this machine."""
    monkeypatch.setattr(chat_template, "CPU_S", 1)
    with pytest.raises(UserError, match=words) as raised:
        chat_template.render(_model(tmp_path, template), _TALK)
    assert "set chat: false" in str(raised.value)


@pytest.mark.engine
def test_templates_are_rendered_as_transformers_does(tmp_path: Path, hf_python: Path) -> None:
    """The same text for templates with the variables, filters and white space that models' own have."""
    for number, template in enumerate((_CHATML, *_OTHERS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        theirs = json_of(hf_python, "models/chat_template_checks.py", json.dumps([template, _TALK]))
        assert chat_template.render(_model(folder, template), _TALK) == theirs
