"""What is read of GGUF files, held against the package that defines the format, and what is refused."""

from __future__ import annotations

import itertools
import struct
import time
from pathlib import Path

import gguf
import pytest
from gguf.constants import GGMLQuantizationType as Type
from gguf.constants import LlamaFileType as File

from bench import formats
from bench.contract.errors import UserError
from bench.formats import gguf_reader
from tests.formats.gguf_models import CONTEXT, SHAPES, VOCABULARY, WIDTH, write

LINEAR = sum(rows * columns for rows, columns in SHAPES.values())
K_TYPES = {**dict.fromkeys(SHAPES, Type.Q4_K), "blk.0.ffn_down": Type.Q5_0}


@pytest.mark.parametrize("kind", [Type.F32, Type.BF16, Type.Q8_0, Type.Q4_0])
def test_tensors_are_those_the_package_reads(tmp_path: Path, kind: Type) -> None:
    """Names, shapes, types and bytes agree with gguf.GGUFReader's."""
    file = write(tmp_path / "m.gguf", kind)
    model = gguf_reader.read(file)

    assert {name: (t.dtype.upper(), t.shape[::-1], t.size) for name, t in model.tensors.items()} == {
        t.name: (t.tensor_type.name, tuple(t.shape), t.n_bytes) for t in gguf.GGUFReader(file).tensors
    }
    assert (model.architecture, model.context, model.vocab_size) == ("llama", CONTEXT, VOCABULARY)


@pytest.mark.parametrize(
    ("kind", "bits"), [(Type.F32, 32.0), (Type.F16, 16.0), (Type.Q8_0, 8.5), (Type.Q4_0, 4.5), (Type.Q5_0, 5.5)]
)
def test_bits_per_weight_count_the_scales(tmp_path: Path, kind: Type, bits: float) -> None:
    """A block of 32 has a 16-bit scale; embedding and norm are not linear; a tied head is not stored."""
    audit = formats.audit(write(tmp_path / "m.gguf", kind), None)

    assert (audit.format, audit.bits_per_weight, audit.linear_parameters) == ("gguf", bits, LINEAR)
    assert audit.quantized_fraction == float(bits < 16)
    assert audit.tied_head
    assert audit.parameters == LINEAR + VOCABULARY * WIDTH + WIDTH
    assert audit.weight_bytes == LINEAR * bits / 8 + VOCABULARY * WIDTH * 2 + WIDTH * 4
    assert audit.total_bytes == (tmp_path / "m.gguf").stat().st_size
    assert (audit.vocab_size, audit.context, audit.notes) == (VOCABULARY, CONTEXT, ())


def test_a_stored_head_and_stacked_experts_are_linear(tmp_path: Path) -> None:
    """`output` counts where it is stored; experts count in one tensor of three dimensions; others do not."""
    shapes = {
        "output": (VOCABULARY, WIDTH),
        "blk.0.ffn_up_exps": (4, 32, WIDTH),
        "blk.0.ffn_gate_inp": (4, WIDTH),
        "blk.0.ssm_conv1d": (32, 32),
        "position_embd": (CONTEXT, WIDTH),
        "blk.0.attn_norm": (WIDTH,),
    }
    file = write(tmp_path / "m.gguf", {"output": Type.Q8_0}, shapes=shapes)
    audit = formats.audit(file, None)

    assert audit.linear_parameters == VOCABULARY * WIDTH + 4 * 32 * WIDTH + 4 * WIDTH
    assert not audit.tied_head
    assert audit.notes == ("not quantized: blk.0.ffn_gate_inp, blk.0.ffn_up_exps",)
    assert formats.source(file).linears["blk.0.ffn_up_exps"] == (4 * 32, WIDTH)


def test_a_fallback_of_a_k_quant_is_told(tmp_path: Path) -> None:
    """Rows that blocks of 256 do not divide are stored in another type, which the quantizer only logs."""
    shapes = {**SHAPES, **{f"blk.{n}.ffn_down": SHAPES["blk.0.ffn_down"] for n in (1, 2, 3)}}
    types = {**dict.fromkeys(shapes, Type.Q5_0), **K_TYPES}
    audit = formats.audit(write(tmp_path / "m.gguf", types, file_type=File.MOSTLY_Q4_K_M, shapes=shapes), None)

    assert audit.tensor_types == {"f16": 1, "f32": 1, "q4_K": 3, "q5_0": 4}
    note = "rows of 192 are no multiple of 256, stored as q5_0 instead: blk.0.ffn_down and 3 more"
    assert audit.notes == (note,)


@pytest.mark.parametrize("file_type", [None, File.MOSTLY_Q5_0, File.MOSTLY_IQ4_NL, File.GUESSED, 999])
def test_types_of_small_blocks_fall_back_to_nothing(tmp_path: Path, file_type: int | None) -> None:
    """Blocks of 32 divide the rows; a type that is not named or not known says nothing of blocks."""
    assert formats.audit(write(tmp_path / "m.gguf", Type.Q5_0, file_type=file_type), None).notes == ()


def test_a_folder_counts_all_it_holds(tmp_path: Path) -> None:
    """The one GGUF file of a folder is its model; the total has the files beside it."""
    write(tmp_path / "m.gguf")
    (tmp_path / "tokenizer.json").write_text("{}")
    alone = formats.audit(tmp_path / "m.gguf", None)

    assert formats.audit(tmp_path, None).total_bytes == alone.total_bytes + 2
    assert formats.audit(tmp_path, None).weight_bytes == alone.weight_bytes


def _split(folder: Path) -> list[Path]:
    """A model in two parts with a layer in each."""
    files = [folder / f"m-{n:05d}-of-00002.gguf" for n in (1, 2)]
    for number, (file, name) in enumerate(zip(files, ("blk.0.attn_q", "blk.0.ffn_up"), strict=True)):
        shapes = {name: SHAPES[name]}
        write(file, Type.Q8_0, shapes=shapes, split__count=2, split__no=number)
    return files


def test_a_split_model_is_read_from_all_its_parts(tmp_path: Path) -> None:
    """Named by its first part or by its folder; bytes and layers of both parts count."""
    files = _split(tmp_path)
    audit = formats.audit(files[0], None)

    assert set(formats.source(tmp_path).linears) == {"blk.0.attn_q", "blk.0.ffn_up"}
    assert audit.total_bytes == sum(file.stat().st_size for file in files)
    assert gguf_reader.files(tmp_path) == tuple(files)


def test_what_is_no_whole_split_is_refused(tmp_path: Path) -> None:
    """A later part, a missing one, one renamed, and a folder of several models: a sentence each."""
    first, second = _split(tmp_path)
    with pytest.raises(UserError, match=rf"later part of a split model: name the first, {first.name}"):
        gguf_reader.read(second)
    second.rename(tmp_path / "other.gguf")
    with pytest.raises(UserError, match=rf"{second.name} is missing: {first.name} is one of the 2 parts"):
        gguf_reader.read(first)
    with pytest.raises(UserError, match=r"several GGUF models \(m-00001-of-00002\.gguf, other\.gguf\): name"):
        gguf_reader.read(tmp_path)
    with pytest.raises(UserError, match=r"other\.gguf is one of 2 parts .* -00001-of-00002\.gguf"):
        gguf_reader.read(tmp_path / "other.gguf")


def test_a_file_cut_anywhere_is_said_to_be_cut_short(tmp_path: Path) -> None:
    """In the version, the metadata, an array of texts, the table of tensors or the last tensor."""
    whole = write(tmp_path / "m.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    places = itertools.chain(range(0, 2300, 7), range(2300, len(whole), 40_001), [len(whole) - 1])
    for length in places:
        cut.write_bytes(whole[:length])
        gguf_reader._read.cache_clear()
        with pytest.raises(UserError, match=r"^cut\.gguf is cut short: "):
            gguf_reader.read(cut)


def test_a_cut_says_where_it_is(tmp_path: Path) -> None:
    """The sentence tells metadata, table and tensors apart, with the bytes that are there."""
    whole = write(tmp_path / "m.gguf").read_bytes()
    table = whole.index(b"token_embd.weight")
    for length, sentence in {
        100: "its metadata goes on after its 100 bytes",
        table: f"its table of tensors goes on after its {table} bytes",
        len(whole) - 9: rf"tensor blk\.0\.ffn_down\.weight ends at byte {len(whole)} and the file has",
    }.items():
        (cut := tmp_path / f"{length}.gguf").write_bytes(whole[:length])
        with pytest.raises(UserError, match=sentence):
            gguf_reader.read(cut)


def _patched(whole: bytes, before: bytes, ahead: int, value: bytes) -> bytes:
    """The file with `value` in place of what is `ahead` bytes after the end of the first `before`."""
    at = whole.index(before) + len(before) + ahead
    return whole[:at] + value + whole[at + len(value) :]


def test_what_is_no_sound_gguf_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """Another file, a pointer, another version or byte order, and each way a table can lie."""
    whole = write(tmp_path / "m.gguf").read_bytes()
    tensor, number = b"blk.0.attn_q.weight", struct.Struct("<I").pack
    for content, sentence in {
        b"PK\x03\x04 and more": r"is not a GGUF file: it does not begin with the bytes GGUF",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "git lfs pull",
        b"GGUF" + number(1) + whole[8:]: "is GGUF of version 1; little-endian versions 2 and 3 are read",
        b"GGUF" + struct.pack(">I", 3) + whole[8:]: "is big-endian GGUF",
        _patched(whole, b"general.name", 0, number(77)): r"metadata general\.name has the unknown type 77",
        _patched(whole, tensor, 0, number(9)): r"tensor blk\.0\.attn_q\.weight has 9 dimensions",
        _patched(whole, tensor, 20, number(999)): r"tensor blk\.0\.attn_q\.weight has the unknown type 999",
        _patched(whole, tensor, 4, number(100) + number(0) + number(2) + number(0) + number(8)): (
            r"attn_q\.weight, q8_0, has rows of 100, not of 32s"
        ),
        _patched(whole, tensor, 24, number(0)): r"token_embd\.weight and blk\.0\.attn_q\.weight overlap",
        whole.replace(b"blk.0.ffn_up.weight", tensor): "two of its tensors have the same name",
    }.items():
        (file := tmp_path / "x.gguf").write_bytes(content)
        gguf_reader._read.cache_clear()
        with pytest.raises(UserError, match=rf"^x\.gguf.*({sentence})"):
            gguf_reader.read(file)


def test_a_file_without_linear_layers_is_no_model(tmp_path: Path) -> None:
    """A vocabulary-only or adapter file is refused by name."""
    file = write(tmp_path / "m.gguf", shapes={})

    with pytest.raises(UserError, match=r"m\.gguf stores no linear layer"):
        formats.source(file)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """What is kept within the process goes by size and time of change."""
    file = tmp_path / "m.gguf"
    first = formats.audit(write(file, Type.Q8_0), None).bits_per_weight

    assert (first, formats.audit(write(file, Type.Q4_0), None).bits_per_weight) == (8.5, 4.5)


def test_a_large_vocabulary_is_passed_over_quickly(tmp_path: Path) -> None:
    """150,000 tokens and as many merges cost less than a second; the package's reader takes nine."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    writer.add_token_list([f"word{i}" for i in range(150_000)])
    writer.add_token_merges([f"a b{i}" for i in range(150_000)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    began = time.process_time()

    assert gguf_reader.read(tmp_path / "m.gguf").vocab_size == 150_000
    assert time.process_time() - began < 1


def test_how_many_models_the_names_of_files_are() -> None:
    """A repository of one model in many types is several; one split into parts, or one file, is not."""
    parts = [f"q4/m-0000{n}-of-00002.gguf" for n in (1, 2)]

    assert gguf_reader.several_models([]) == gguf_reader.several_models(parts) == ""
    assert gguf_reader.several_models([*parts, "m-q8.gguf"]).startswith("several GGUF models (q4/m-00001")
    assert gguf_reader.several_models(["m-q4.gguf", "mmproj-m-f16.gguf"]) == ""
    assert gguf_reader.several_models(list("abcd")) == "several GGUF models (a, b, c and 1 more)"
