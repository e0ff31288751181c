"""A model's chat template: conversations as the one text that the model reads, in a process of its own.

The template is a program that came with the model. Jinja's sandbox keeps it from this machine, and limits of the
process keep it from running or growing without end. Its variables are those of Transformers' apply_chat_template.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError

FILE, _SETTINGS = "chat_template.jinja", "tokenizer_config.json"
CPU_S, _BYTES = 60, 2 << 30  # of one process, whatever it renders
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
_LONGEST = 200  # characters of an error

Messages = Sequence[tuple[str, str]]


def template(folder: Path) -> str:
    """The template of the model in `folder`; UserError where it has none."""
    source = _settings(folder).get("chat_template")
    if isinstance(source, list):  # several by name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        source = named.get("default")
    if (file := folder / FILE).is_file():
        source = file.read_text(encoding="utf-8", errors="replace")
    if not isinstance(source, str) or not source:
        raise UserError(
            "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
            "set chat: false, or put its template beside it"
        )
    return source


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of the model's special tokens by their roles, as a template names them."""
    tokens = {name: _settings(folder).get(name) for name in _SPECIAL}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = wire.read_json(folder / _SETTINGS)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{_SETTINGS} of the model cannot be read: {error}") from None
    return settings if isinstance(settings, dict) else {}


def render(folder: Path, conversations: Sequence[Messages]) -> list[str]:
    """Each conversation as the model reads it, up to where its answer begins; UserError where one cannot be."""
    argv = [sys.executable, "-m", "bench.models.chat_template"]
    job = {"template": template(folder), "tokens": special_tokens(folder), "conversations": conversations}
    done = subprocess.run(
        argv,
        input=json.dumps({**job, "cpu_s": CPU_S}),
        cwd=paths.import_root(),
        env={"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1][:_LONGEST]
        why = last if done.returncode == 1 else f"it took over {CPU_S} s of the processor, or {_BYTES >> 30} GiB"
        raise UserError(
            f"the model's chat template cannot be rendered ({why}): set chat: false, or give the model another template"
        )
    texts: list[str] = json.loads(done.stdout)
    return texts


def _render(source: str, tokens: dict[str, str], conversations: Sequence[Messages]) -> list[str]:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:  # Jinja's own escapes HTML
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005  (as Transformers)
    compiled = environment.from_string(source)
    named = ([{"role": role, "content": content} for role, content in messages] for messages in conversations)
    return [compiled.render(messages=messages, add_generation_prompt=True, **tokens) for messages in named]


def _main() -> None:
    job = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    try:
        texts = _render(job["template"], job["tokens"], job["conversations"])
    except Exception as error:  # noqa: BLE001  (the template's own program may raise anything)
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST])
    sys.stdout.write(json.dumps(texts))


if __name__ == "__main__":
    _main()
