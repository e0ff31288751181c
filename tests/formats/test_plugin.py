"""A format of the user's own: one file in a folder that LLM_BENCH_PLUGINS names, and nothing else changed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import formats
from bench.contract import plugins

Command = Callable[..., Any]

_FORMAT = textwrap.dedent('''
    """Every weight in one file of 4-bit values, two in a byte."""

    from bench.contract.record import Architecture, Audit, Parameters, Source
    from bench.formats import architecture as decoder
    from bench.formats import counting, folder as model_folder
    from bench.formats.folder import Tensor

    FORMATS = ("nibbles",)
    FLOATS = "none"
    FILES = ("*.nibbles",)


    def detect(folder):
        return "nibbles" if any(folder.glob("*.nibbles")) else None


    def source(name, folder):
        return Source(name, {"layer": (8, 16)}, model_folder.read_config(folder))


    def audit(name, folder, reference, *, zeros):
        size = (folder / "weights.nibbles").stat().st_size
        return counting.audit(
            name,
            counting.all_files(folder),
            {"layer": counting.Linear(2 * size, size)},
            [Tensor("u4", (2 * size,), size)],
            model_folder.read_config(folder),
            other_parameters=0,
            tied_head=True,
        )


    def parameters(folder):
        return Parameters(128, 0, 64, None)
''')
_SUITE = """
model: MODEL
recipes: [{name: baseline, steps: []}]
engines: [fake]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}]
devices: [cpu]
rounds: 1
settle_s: 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plugins with the format above, a model in it, and a suite of that model."""
    for name, text in {"formats/nibbles.py": _FORMAT, "model/config.json": '{"vocab_size": 64, "n_ctx": 32}'}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "model/weights.nibbles").write_bytes(bytes(64))
    (tmp_path / "suite.yaml").write_text(_SUITE.replace("MODEL", str(tmp_path / "model")))
    return tmp_path


def test_a_model_in_a_users_own_format_is_recognised_audited_and_run(command: Command, folder: Path) -> None:
    """By an engine that takes any format; its weights are part of the model's identity."""
    ran = command("bench", "run", str(folder / "suite.yaml"), "--json", "--quiet", LLM_BENCH_PLUGINS=str(folder))

    assert ran.returncode == 0, ran.stderr
    (record,) = folder.rglob("serving/**/r0.json")
    artifact = json.loads(record.read_text())["artifact"]
    assert artifact["format"] == artifact["audit"]["format"] == "nibbles"
    assert artifact["audit"]["bits_per_weight"] == 4.0
    assert (artifact["audit"]["vocab_size"], artifact["audit"]["context"]) == (64, 32)

    (folder / "model/weights.nibbles").write_bytes(bytes([1] * 64))
    again = command("bench", "run", str(folder / "suite.yaml"), "--json", "--quiet", LLM_BENCH_PLUGINS=str(folder))
    assert json.loads(again.stdout)["rounds"]["kept"] == 0


def test_an_engine_that_lists_its_formats_does_not_load_it(command: Command, folder: Path) -> None:
    """The plan says so, by the format's own name."""
    (folder / "suite.yaml").write_text((folder / "suite.yaml").read_text().replace("fake", "vllm"))
    done = command("bench", "plan", str(folder / "suite.yaml"), LLM_BENCH_PLUGINS=str(folder))

    assert "does not load nibbles" in done.stdout + done.stderr


def test_a_misspelt_hook_of_a_format_is_refused(command: Command, folder: Path) -> None:
    """With its right name, before any model is read."""
    (folder / "formats/nibbles.py").write_text(_FORMAT.replace("def parameters(", "def parameter("))
    done = command("bench", "plan", str(folder / "suite.yaml"), LLM_BENCH_PLUGINS=str(folder))

    assert done.returncode == 2
    assert "format 'nibbles'" in done.stderr
    assert "unknown hook 'parameter': did you mean 'parameters'?" in done.stderr


def test_every_format_of_the_methods_and_engines_is_one_of_the_plugins() -> None:
    """What methods read and write and engines load has a reader here."""
    methods = [plugins.load(plugins.METHODS, name) for name in plugins.names(plugins.METHODS)]
    engines = [plugins.load(plugins.ENGINES, name) for name in plugins.names(plugins.ENGINES)]
    named = {name for method in methods for name in (*method.READS, method.WRITES)}
    named |= {name for engine in engines for name in engine.LOADS}

    assert named == set(formats._by_name())
