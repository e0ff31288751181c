"""A tokenizer.json that is made of older files cuts text into the ids that the files' own library gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench.envs import environment
from tests.formats import tokenizer_folders
from tests.formats.tokenizer_folders import DEMO, TEXTS

_ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.engine, pytest.mark.slow]
_CONVERT = "import sys; from pathlib import Path; from bench.formats import tokenizer_conversion as t; "
_CONVERT += "t.convert(Path(sys.argv[1]), Path(sys.argv[2]))"
# Release 4 still has the Python classes that published models were trained and scored with.
_SLOW = "import json, sys; from transformers import AutoTokenizer as A; "
_SLOW += (
    "t = A.from_pretrained(sys.argv[1], use_fast=False); print(json.dumps([t.encode(x) for x in json.load(sys.stdin)]))"
)


def _converted(python: Path, folder: Path) -> Path:
    """The folder with what was made of it."""
    out = folder.with_name(f"{folder.name}-out")
    out.mkdir()
    done = subprocess.run([python, "-c", _CONVERT, folder, out], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def _ids(out: Path, texts: tuple[str, ...]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in texts]


@pytest.fixture(scope="module")
def trained(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program beside this file prints, by the kind of SentencePiece model."""
    program, scratch = Path(tokenizer_folders.__file__), tmp_path_factory.mktemp("trained")
    done = subprocess.run([hf_python, program, scratch], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


@pytest.mark.parametrize("kind", tokenizer_folders.KINDS)
def test_every_kind_of_piece_model_gives_the_ids_of_sentencepiece(trained: dict[str, Any], kind: str) -> None:
    """Runs of white space, emoji, CJK, unknown characters, code; five of seven are read otherwise by Transformers 5."""
    for text, expected, made in trained[kind]["ids"]:
        assert made == expected, text
    assert trained[kind]["around"] == ["<bos>" if kind == "no first space" else "<s>"]


def test_a_published_form_becomes_the_published_file(tmp_path: Path, hf_python: Path) -> None:
    """The demo's tokenizer.model, or its vocabulary and merges, become its tokenizer.json, byte for byte."""
    config = json.loads((DEMO / "tokenizer_config.json").read_text())
    pieces = tokenizer_folders.of_pieces(tmp_path / "pieces", config)
    merges = tokenizer_folders.of_pieces(tmp_path / "merges", config)
    (merges / "tokenizer.model").unlink()
    tokenizer = json.loads((DEMO / "tokenizer.json").read_text())["model"]
    (merges / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (merges / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in tokenizer["merges"]))

    for folder in (pieces, merges):
        out = _converted(hf_python, folder)
        assert (out / "tokenizer.json").read_bytes() == (DEMO / "tokenizer.json").read_bytes()
        assert not (out / "tokenizer_config.json").exists()  # the folder's own leads to the same ids


@pytest.mark.needs("autoawq")
def test_the_ids_are_those_of_the_python_classes(tmp_path: Path, hf_python: Path) -> None:
    """BOS and EOS as the folder or its class has them, tokens that a fine-tuned model added, byte-level BPE."""
    slow_python = environment.ensure("autoawq", lambda text: print(text, file=sys.stderr)).python  # noqa: T201
    both = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True}
    added = tokenizer_folders.of_pieces(tmp_path / "added", {"tokenizer_class": "LlamaTokenizer"})
    (added / "added_tokens.json").write_text(json.dumps({"<|im_start|>": 4096}))
    folders = [
        added,
        tokenizer_folders.of_pieces(tmp_path / "ends", both),
        tokenizer_folders.of_pieces(tmp_path / "bare"),
        tokenizer_folders.of_merges(tmp_path / "gpt2"),
        tokenizer_folders.of_merges(tmp_path / "qwen2", "Qwen2Tokenizer"),
    ]
    texts = (*TEXTS, "a b<|im_start|>")
    for folder in folders:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        done = subprocess.run(
            [slow_python, "-c", _SLOW, folder], input=json.dumps(texts), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert _ids(_converted(hf_python, folder), texts) == json.loads(done.stdout.splitlines()[-1]), folder.name


def test_a_tokenizer_that_would_cut_text_otherwise_is_refused(tmp_path: Path, hf_python: Path) -> None:
    """Pieces under a class that gives them other ids, or that takes other files for its own."""
    folder = tokenizer_folders.of_pieces(tmp_path / "m", {"tokenizer_class": "Qwen2Tokenizer"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [hf_python, "-c", _CONVERT, folder, out], cwd=_ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode
    assert "UserError: m: Transformers" in done.stderr.splitlines()[-1]
    shutil.rmtree(out)
