"""What a model reference may be, and what it is called in a digest and a record."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType as Type

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve
from tests.formats.gguf_models import write


@pytest.mark.usefixtures("cache")
def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    """Its identity is its content, whatever it is called; a folder that holds one is a model too."""
    file = write(tmp_path / "a.gguf")
    model = resolve.resolve(Model(str(file)), fetch=False)
    renamed = resolve.resolve(Model(str(file.rename(tmp_path / "b.gguf"))), fetch=False)
    other = resolve.resolve(Model(str(write(tmp_path / "in.gguf", Type.Q8_0))), fetch=False)
    (tmp_path / "in.gguf").unlink()

    assert (model.folder, model.format) == (file, "gguf")
    assert model.identity.startswith("sha256:")
    assert renamed.identity == model.identity != other.identity
    assert resolve.resolve(Model(str(tmp_path)), fetch=False).format == "gguf"


@pytest.mark.usefixtures("cache")
def test_a_split_is_its_parts(tmp_path: Path) -> None:
    """The content of every part is in the identity."""
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    write(first, split__count=2, split__no=0)
    write(second, Type.Q8_0, split__count=2, split__no=1, shapes={"blk.1.attn_q": (32, 32)})
    one = resolve.resolve(Model(str(first)), fetch=False).identity
    write(second, Type.Q4_0, split__count=2, split__no=1, shapes={"blk.1.attn_q": (32, 32)})

    assert resolve.resolve(Model(str(first)), fetch=False).identity != one


@pytest.mark.usefixtures("cache")
def test_a_link_keeps_the_name_it_was_given(tmp_path: Path) -> None:
    """A download cache links files to blobs without a suffix: the link is the model."""
    blob = write(tmp_path / "m.gguf").rename(tmp_path / "blob")
    (link := tmp_path / "m.gguf").symlink_to(blob)

    assert resolve.resolve(Model(str(link)), fetch=False).folder == link


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such.gguf", r"model file .*no/such\.gguf does not exist; name a \.gguf file"),
        ("such.gguf", r"model file .*such\.gguf does not exist"),
        ("weights.bin", r"weights\.bin is not a model: name the folder it is in, or a \.gguf file"),
        ("text.gguf", r"text\.gguf is not a GGUF file"),
        ("no/such", r"model folder .*no/such does not exist"),
    ],
)
def test_what_is_no_model_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    """A file that is not there, or is something else."""
    (tmp_path / "weights.bin").write_bytes(b"")
    (tmp_path / "text.gguf").write_text("hello, this is text")

    with pytest.raises(UserError, match=sentence):
        resolve.resolve(Model(str(tmp_path / name)), fetch=False)


def test_several_models_in_a_folder_are_refused_unread(tmp_path: Path, cache: Path) -> None:
    """One sentence asks for one file, before any of them is hashed."""
    write(tmp_path / "q4.gguf")
    write(tmp_path / "q8.gguf")

    with pytest.raises(UserError, match=r"several GGUF models \(q4\.gguf, q8\.gguf\): name one file"):
        resolve.resolve(Model(str(tmp_path)), fetch=False)
    assert not (cache / "hashes.json").exists()


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("/home/someone/m.gguf", "m.gguf"),
        ("~/models/m.gguf", "m.gguf"),
        ("../m.gguf", "m.gguf"),
        ("models/m.gguf", "models/m.gguf"),
        ("owner/name", "owner/name"),
    ],
)
def test_a_record_shows_no_folder_of_the_machine(source: str, public: str) -> None:
    """A path outside the working directory loses its folders."""
    assert resolve.public(source) == public
