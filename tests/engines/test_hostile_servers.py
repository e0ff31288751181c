"""Servers of engines on models that bring code, or a chat template that never ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.contract import plugins, wire
from bench.contract.errors import CellError
from bench.contract.job import Job
from bench.contract.record import Artifact, Audit
from bench.envs import environment
from bench.load import fetch
from bench.process import server, supervisor
from quantize.methods import gguf
from tests.engines.broken import edit
from tests.quantize import test_hostile_models as hostile

pytestmark = [pytest.mark.engine, pytest.mark.slow]
_ENGINES = [
    pytest.param("hf", marks=pytest.mark.needs("hf")),
    pytest.param("vllm", marks=pytest.mark.needs("vllm")),
    pytest.param("llamacpp", marks=pytest.mark.needs("llamacpp", "llamacpp-tools")),
]
_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=4096, context=512)
_ENDLESS = f"{'{% for i in range(99999) %}' * 3}x{'{% endfor %}' * 3}"


def _serve(engine: str, folder: Path) -> str:
    """The list of models of the engine's server on a folder; CellError where it does not serve it."""
    module, port = plugins.load(plugins.ENGINES, engine), server.free_port()
    env = environment.ensure(module.ENV, lambda _: None)
    if environment.has_tools(module.ENV):
        environment.tools(module.ENV, lambda _: None)
    served = module.serve(folder, Artifact("", "hf", "", (), _AUDIT), module.Options(), env.python, port, "cpu")
    with server.running(served, port, env, "cpu", model=folder, timeout_s=240) as live:
        return fetch.models(server.endpoint(served, live.url), timeout_s=10)


@pytest.mark.parametrize("model_type", ["llama", "hostile"])
@pytest.mark.parametrize("engine", _ENGINES[:2])
def test_a_server_runs_no_code_of_a_model(engine: str, model_type: str, tmp_path: Path) -> None:
    """Neither a config's nor a tokenizer's, and no pickle: it ends with the sentence that a worker has."""
    hostile.hostile(tmp_path / "model", tmp_path / "ran", model_type)

    with pytest.raises(CellError, match=hostile.REFUSAL):
        _serve(engine, tmp_path / "model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("engine", _ENGINES)
def test_a_server_renders_no_chat_template_of_a_model(engine: str, tmp_path: Path) -> None:
    """What is sent are token ids or plain text: a template that never ends keeps no server from its start."""
    folder, out = tmp_path / "model", tmp_path / "out"
    hostile.copy(folder)
    edit(folder / "tokenizer_config.json", chat_template=_ENDLESS)
    (folder / "chat_template.jinja").write_text(_ENDLESS)
    if engine == "llamacpp":
        out.mkdir()
        options = wire.plain(gguf.Options(type="f16"))
        job = Job(kind="compress", plugin="gguf", folder=str(folder), device="cpu", options=options, out=str(out))
        assert not supervisor.run(job, environment.ensure("llamacpp", lambda _: None), timeout_s=300).answer.error
        assert _ENDLESS.encode() in (out / "model.gguf").read_bytes()
        folder = out

    listed = _serve(engine, folder)
    assert engine == "hf" or "data" in json.loads(listed)  # Transformers lists the Hub's cache, which may not exist
