"""`python -m quantize` on GGUF models, as a user starts it."""

from __future__ import annotations

from pathlib import Path

from gguf.constants import GGMLQuantizationType as Type

from tests.conftest import Command
from tests.formats.gguf_models import write


def test_a_gguf_file_is_looked_at_and_copied(command: Command, tmp_path: Path) -> None:
    """Taken as it is, the file is audited and written into the folder, every part of it."""
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for number, name in enumerate(names):
        write(tmp_path / name, Type.Q8_0, split__count=2, split__no=number)
    out = tmp_path / "out"
    done = command("quantize", str(tmp_path / names[0]), "--recipe", "as-is", "-o", str(out))

    assert done.returncode == 0, done.stderr
    assert "bits/weight    8.500 over" in done.stdout
    assert sorted(f.name for f in out.iterdir()) == ["llm-bench.json", *names]
    assert str(tmp_path) not in (out / "llm-bench.json").read_text()


def test_what_cannot_be_done_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """A method whose samples the model's context does not hold, and a file that is not there."""
    file, out = write(tmp_path / "m.gguf"), str(tmp_path / "out")
    wrong = command("quantize", str(file), "--method", "gptq", "-o", out)
    gone = command("quantize", str(tmp_path / "n.gguf"), "--method", "gptq", "-o", out)

    assert (wrong.returncode, gone.returncode) == (2, 2)
    assert wrong.stderr.strip() == (
        "error: calibration samples of 512 tokens are longer than the model's context of 128"
    )
    assert gone.stderr.startswith("error: model file ")
    assert len(gone.stderr.strip().splitlines()) == 1
