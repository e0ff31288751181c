"""Model folders that bring code: every library that reads one here is started on it, and none runs it."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.contract import wire
from bench.contract.job import Job
from bench.envs import environment
from bench.process import supervisor
from quantize.methods import gptq
from tests.engines.broken import edit

ROOT = Path(__file__).resolve().parents[2]
_CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class HostileConfig(LlamaConfig):
    model_type = "{model_type}"
class HostileModel(LlamaForCausalLM):
    config_class = HostileConfig
class HostileTokenizer(PreTrainedTokenizerFast):
    pass
"""
# What starts each library, as a worker would, on the folder `sys.argv[1]` with the free folder `sys.argv[2]`.
_STARTS = {
    "hf": "from bench.engines import hf\nwith hf.open(folder, artifact, hf.Options(threads=1), 'cpu') as s: pass",
    "gptqmodel": "from quantize.methods import gptq\n"
    "gptq.apply(folder, gptq.Options(samples=2, length=64), out, 'cpu')",
    "bnb": "from quantize.methods import bnb\nbnb.apply(folder, bnb.Options(), out, 'cpu')",
    "llamacpp": "from quantize.methods import gguf\ngguf.apply(folder, gguf.Options(type='f16'), out, 'cpu')",
    "onnx": "from quantize.methods import onnx\nonnx.apply(folder, onnx.Options(), out, 'cpu')",
    "openvino": "from quantize.methods import openvino\n"
    "openvino.apply(folder, openvino.Options(type='float32'), out, 'cpu')",
    "autoawq": "from quantize.methods import awq\n"
    "awq.apply(folder, awq.Options(backend='autoawq', samples=2, length=64, group_size=32), out, 'cpu')",
    "vllm": "from bench.engines import vllm\nwith vllm.open(folder, artifact, vllm.Options(), 'cpu') as s: pass",
    "llmcompressor": "from quantize.methods import llmcompressor\n"
    "llmcompressor.apply(folder, llmcompressor.Options(algorithm='rtn', group_size=32), out, 'cpu')",
    "lm_eval": "from eval.lm_eval import harness\nharness.run(lm_eval.Options(limit=1), folder, 500, None)",
}
# Any other error is of a library that was never started on the model. AutoGPTQ asks for a GPU before anything else.
REFUSAL = re.compile(r"the model needs code of its own \(hostile\.Hostile\w+\), which is not run here: name a model")
_ENVS = {"gptqmodel": "hf", "bnb": "hf"}
_LIBRARIES = [pytest.param(name, marks=pytest.mark.needs(_ENVS.get(name, name))) for name in sorted(_STARTS)]
_START = """
import os, sys
from pathlib import Path
from bench.contract.record import Artifact, Audit
from bench.process import model_code
from eval.tasks import lm_eval
os.environ.update(model_code.blocked(Path.cwd()))  # as of every worker
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
audit = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=4096, context=512)
artifact = Artifact("", "hf", "", (), audit)
try:
    exec(sys.argv[3])
except Exception as error:
    reason = model_code.needed(folder, str(error)) or f"{type(error).__name__} {error}"
    print("\\nraised", *reason.split())
print("ended")
"""


class _Pickled:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.engine
@pytest.mark.parametrize("library", _LIBRARIES)
def test_every_library_is_started(library: str, tmp_path: Path) -> None:
    """On the demo model as it is none raises: what they raise on a model that brings code is about the code."""
    copy(tmp_path / "model")

    assert _raised(library, tmp_path) == []


@pytest.mark.engine
@pytest.mark.parametrize("model_type", ["llama", "hostile"])
@pytest.mark.parametrize("library", _LIBRARIES)
def test_no_library_runs_what_a_model_brings(library: str, model_type: str, tmp_path: Path) -> None:
    """Code that config and tokenizer name for themselves, and a pickle beside the weights, leave no trace."""
    folder, marker = tmp_path / "model", tmp_path / "ran"
    hostile(folder, marker, model_type)
    if library == "llamacpp":  # for which llama.cpp's converter trusts the tokenizer
        edit(folder / "config.json", architectures=["LLaDAModelLM"])
    raised = _raised(library, tmp_path)

    assert not marker.exists(), raised
    assert all(map(REFUSAL.search, raised)), raised


@pytest.mark.engine
@pytest.mark.needs("hf")
def test_a_worker_is_where_no_code_runs(tmp_path: Path) -> None:
    """Gptqmodel trusts a tokenizer's: what stops it is around every worker that the supervisor starts."""
    folder, marker, out = tmp_path / "model", tmp_path / "ran", tmp_path / "out"
    hostile(folder, marker, "llama")
    out.mkdir()
    options = {**wire.plain(gptq.Options()), "samples": 2, "length": 64}
    job = Job(kind="compress", plugin="gptq", folder=str(folder), device="cpu", options=options, out=str(out))
    answer = supervisor.run(job, environment.ensure("hf", lambda _: None), timeout_s=300).answer

    assert REFUSAL.match(answer.error)
    assert not marker.exists()


def _raised(library: str, tmp_path: Path) -> list[str]:
    """What the library raised, if anything, on the folder `model` below `tmp_path`."""
    env = environment.ensure(_ENVS.get(library, library), lambda _: None)
    folder, out = tmp_path / "model", tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [env.python, "-c", _START, folder, out, _STARTS[library]],
        cwd=tmp_path,
        env={**os.environ, **env.variables, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["ended"], done.stderr[-2000:]
    return [line for line in lines if line.startswith("raised ")]


def copy(folder: Path) -> None:
    shutil.copytree(ROOT / "models/demo", folder, ignore=shutil.ignore_patterns("*.py", "*.csv", "tokenizer.model"))


def hostile(folder: Path, marker: Path, model_type: str) -> None:
    """The demo model with code of its own; of a type that Transformers knows, or not."""
    copy(folder)
    (folder / "hostile.py").write_text(_CODE.format(marker=str(marker), model_type=model_type))
    (folder / "tokenization_hostile.py").write_text(_CODE.format(marker=str(marker), model_type=model_type))
    names = {"AutoConfig": "HostileConfig", "AutoModelForCausalLM": "HostileModel", "AutoModel": "HostileModel"}
    edit(folder / "config.json", model_type=model_type, auto_map={k: f"hostile.{v}" for k, v in names.items()})
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="HostileTokenizer",
        auto_map={"AutoTokenizer": ["hostile.HostileTokenizer", "hostile.HostileTokenizer"]},
    )
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(_Pickled(marker)))
