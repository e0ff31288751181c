"""A real server that tells thoughts from the answer: llama-server with a template that has <think>."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.contract.spec import Model
from bench.envs import environment
from bench.machine import hardware as machine
from bench.models import resolve
from bench.process import server
from bench.run import artifacts
from bench.suite import config
from tests.conftest import ROOT, Command

pytestmark = [pytest.mark.engine, pytest.mark.needs("llamacpp", "llamacpp-tools")]
_TEMPLATE = """
{%- for message in messages -%}
{%- if message.role == 'user' -%}
<|im_start|>user
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' -%}
<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
# The demo model does not reason: a grammar has it write thoughts of ten characters or more, then an answer.
_GRAMMAR = r'root ::= "<think>\n" [a-z]{10,16} "\n</think>\n\n" [a-z]{10,16}'


@pytest.fixture(scope="module", params=["deepseek", "none"])
def reasoner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama-server with the demo model, which gives thoughts in a field of their own, or leaves them in the text."""
    tools = environment.tools("llamacpp", lambda _: None)
    template, port = tmp_path_factory.mktemp("template") / "think.jinja", server.free_port()
    template.write_text(_TEMPLATE)
    options = {
        "--model": _model(),
        "--chat-template-file": template,
        "--reasoning-format": request.param,
        "--port": port,
        "--threads": 1,
        "--ctx-size": 2048,
    }
    argv = [str(tools / "llama-server"), "--jinja", *(str(part) for option in options.items() for part in option)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _model() -> Path:
    """The demo model's GGUF file, made once into the user's cache."""
    hardware = machine.detect("cpu")
    resolved = resolve.resolve(Model(str(ROOT / "models" / "demo")), fetch=False)
    steps = artifacts.steps_for(config.recipe_named("gguf-q4_k_m"), hardware, resolved.format)
    return artifacts.make(steps, resolved, hardware, lambda _: None).folder / "model.gguf"


def _wait(port: int) -> None:
    for _ in range(240):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.5)
    pytest.fail("llama-server was not ready within two minutes")


def test_its_thoughts_come_before_its_answer(reasoner: str, command: Command) -> None:
    """Some are counted, every answer begins after them, and TTFT is the first thought's."""
    body = json.dumps({"grammar": _GRAMMAR, "temperature": 0, "ignore_eos": None})
    few = ("--model", "m", "--requests", "4", "--new-tokens", "60", "--prompt-tokens", "8", "--chat", "--allow-stop")
    done = command("bench", "load", reasoner, *few, "--extra", body, "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]

    assert metrics["reasoning_tokens_mean"] >= 3
    assert metrics["answered_fraction"] == 1.0
    assert metrics["ttft_s"] < metrics["answer_ttft_s"] < metrics["e2el_s"]
