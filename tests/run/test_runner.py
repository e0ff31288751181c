"""The whole pipeline on the fake engine, started as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType as Type

from tests.conftest import ROOT, Command
from tests.formats.gguf_models import write
from tests.run.fake_runs import suite_file


def _records(tmp_path: Path) -> dict[Path, str]:
    return {f: f.read_text() for f in sorted((tmp_path / "results").rglob("r*.json"))}


def test_the_smoke_suite_ends_in_a_table(command: Command) -> None:
    """configs/smoke.yaml compresses, scores and times on the fake engine and prints a row per recipe."""
    done = command("bench", "run", "configs/smoke.yaml")

    assert done.returncode == 0, done.stderr
    assert "fp32" in done.stdout
    assert "fp16" in done.stdout
    assert "not run yet" not in done.stdout
    again = command("bench", "run", "configs/smoke.yaml")
    assert "nothing left to run; 8 recorded before" in again.stderr


def test_a_second_run_only_does_what_is_missing(command: Command, tmp_path: Path) -> None:
    """A record that is there is not touched; one that was removed is made again."""
    suite = suite_file(tmp_path)
    command("bench", "run", suite)
    first = _records(tmp_path)
    gone = next(f for f in first if f.name == "r1.json")
    gone.unlink()
    done = command("bench", "run", suite)

    assert "1 ok; 1 recorded before" in done.stderr
    second = _records(tmp_path)
    assert second.keys() == first.keys()
    assert [f for f in first if first[f] != second[f]] in ([gone], [])


def test_a_changed_option_makes_a_record_stale(command: Command, tmp_path: Path) -> None:
    """Another option of the engine is another digest: the rounds run again."""
    suite = suite_file(tmp_path)
    command("bench", "run", suite)
    done = command("bench", "run", suite, "--set", "engines=[{name: fake, itl_s: 0.003}]")

    assert "2 ok; 0 recorded before" in done.stderr


def test_one_cell_that_dies_does_not_stop_the_others(command: Command, tmp_path: Path) -> None:
    """A crash is a failed record with its reason; the rest finishes, and the crash can be retried."""
    engines = "[{name: fake, label: dies, fail: segfault}, {name: fake, label: lives}]"
    suite = suite_file(tmp_path, engines, rounds=1)
    done = command("bench", "run", suite)

    assert done.returncode == 0
    assert "1 failed, 1 ok" in done.stderr
    assert "crashed in native code (SIGSEGV)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "nothing left to run" in command("bench", "run", suite).stderr
    assert "1 failed; 1 recorded before" in command("bench", "run", suite, "--retry", "failed").stderr


def test_what_is_known_beforehand_is_unsupported(command: Command, tmp_path: Path) -> None:
    """A reason known before anything runs is recorded as such, and shown by plan and table."""
    suite = suite_file(tmp_path, "[{name: fake, only_batch: 3}]", rounds=1)

    assert "unsupported: the fake engine runs" in command("bench", "plan", suite).stdout
    assert "1 unsupported" in command("bench", "run", suite).stderr
    assert "runs batch 3 only" in command("bench", "table", suite).stdout


def test_a_prompt_longer_than_the_context_is_refused(command: Command, tmp_path: Path) -> None:
    """The model's context bounds prompt and answer together."""
    suite = suite_file(tmp_path)
    done = command("bench", "plan", suite, "--set", "workloads.0.prompt_tokens=1022")

    assert "1022 + 4 tokens exceed the model's context of 1024" in done.stdout


def _started(suite: str, tmp_path: Path, cache: Path) -> subprocess.Popen[str]:
    """A run in flight that has left its first record."""
    results = tmp_path / "results"
    words = [sys.executable, "-m", "bench", "run", suite, "--results", str(results)]
    variables = {**os.environ, "LLM_BENCH_CACHE": str(cache)}
    running = subprocess.Popen(words, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(results.rglob("serving/**/r*.json")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.6)
    return running


@pytest.mark.skipif(sys.platform != "linux", reason="the worker dies with its parent on Linux")
def test_kill_9_loses_only_the_cell_in_flight(command: Command, cache: Path, tmp_path: Path) -> None:
    """After kill -9 the next run does the missing rounds only; no lock, part or scratch is in its way."""
    suite = suite_file(tmp_path, "[{name: fake, load_s: 1.0}]", rounds=4)
    running = _started(suite, tmp_path, cache)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    completed = len(list(tmp_path.rglob("serving/**/r*.json")))

    assert 1 <= completed < 4
    done = command("bench", "run", suite)
    assert f"{4 - completed} ok; {completed} recorded before" in done.stderr
    assert list(tmp_path.rglob("*.part")) == []
    assert list((cache / "scratch").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(cache: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and a polite kill end the worker too, leave no scratch folder and no traceback, and exit 130."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("these tests were started where the signal is ignored, as behind nohup")
    suite = suite_file(tmp_path, "[{name: fake, load_s: 1.0}]", rounds=4)
    running = _started(suite, tmp_path, cache)
    running.send_signal(number)
    _, output = running.communicate(timeout=20)

    assert running.returncode == 130
    assert "stopped; what is finished is kept" in output
    assert "Traceback" not in output
    assert list((cache / "scratch").iterdir()) == []


def test_a_missing_model_folder_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """Exit code 2 and one line that says what to do."""
    done = command("bench", "run", suite_file(tmp_path, model="./no/such/model"))

    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: model folder ./no/such/model does not exist; name a local folder or a Hub id (owner/name)"
    )


def test_a_corrupt_checkpoint_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """A truncated safetensors file is refused before anything runs, by name."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "demo", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4096])
    done = command("bench", "run", suite_file(tmp_path, model=str(model)))

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "model.safetensors" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_typo_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """`recipies:` is named with its suggestion and the file."""
    file = tmp_path / "typo.yaml"
    file.write_text("model: models/demo\nrecipies: [fp32]\nengines: [fake]\nworkloads: [{batch: 1}]\n")
    done = command("bench", "run", str(file))

    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {file}: recipies: unknown key; did you mean 'recipes'?"


def test_records_hold_no_path_of_the_machine(command: Command, tmp_path: Path) -> None:
    """A record shows a local model by its last name only."""
    model = tmp_path / "my-model"
    shutil.copytree(ROOT / "models" / "demo", model)
    command("bench", "run", suite_file(tmp_path, model=str(model)))
    texts = _records(tmp_path).values()

    assert len(texts) == 3
    assert not [t for t in texts if str(tmp_path) in t or os.uname().nodename in t]


@pytest.mark.slow
def test_the_table_is_also_data(command: Command, tmp_path: Path) -> None:
    """--format json and csv are parsed by machines."""
    suite = suite_file(tmp_path)
    command("bench", "run", suite)

    assert json.loads(command("bench", "table", suite, "--format", "json").stdout)
    assert "," in command("bench", "table", suite, "--format", "csv").stdout.splitlines()[0]
    assert command("bench", "table", suite, "--format", "md").stdout.count("|") > 10


def test_a_gguf_file_goes_all_the_way(command: Command, tmp_path: Path) -> None:
    """A bare file as the model is planned, run and shown, and its record has no folder of this machine."""
    file = write(tmp_path / "tiny.gguf", Type.Q8_0)
    done = command("bench", "run", suite_file(tmp_path, model=str(file)))

    assert done.returncode == 0, done.stderr
    assert "2 ok" in done.stderr
    texts = _records(tmp_path).values()
    assert len(texts) == 3
    assert [t for t in texts if '"bits_per_weight": 8.5' in t]
    assert not [t for t in texts if str(tmp_path) in t]
