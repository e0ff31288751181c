"""llama.cpp's converter, a script that ships with the library, and its quantizer, called in process."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats import gguf_reader
from quantize.backends import gguf_converter

VOCABULARY_FILE = "gguf_vocabulary.json"  # in a model folder that was made of a GGUF file
_CONVERTER = Path("share") / "llama-cpp-python" / "convert_hf_to_gguf.py"
_UNKNOWN_KEY = re.compile(r"KeyError: '(\w+)'")
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\] +\S")  # "[  12/ 272]  blk.0.ffn_down.weight - [...]"
_EMBEDDING, _OUTPUT_LAYER, _WIDE = "token_embd.weight", "lm_head", 256
_ERROR, _CONTINUED = 4, 5  # of enum ggml_log_level
# Floats in blocks, by the file type whose name they have. No file type has them of every layer: MXFP4_MOE is of experts
# alone, and the quantizer refuses NVFP4. Embedding and head are q8_0.
FLOAT_BLOCKS = {"mxfp4": "MXFP4_MOE", "nvfp4": "NVFP4"}
_LAYERS = rb"blk\.\d+\..*\.weight"


def convert(folder: Path, file: Path, kind: str) -> None:
    """Write a Hugging Face folder as a GGUF file of floats or q8_0; UserError with the converter's reason."""
    script = Path(sys.prefix) / _CONVERTER
    if not script.is_file():
        raise UserError(
            "this interpreter has no convert_hf_to_gguf.py: let the suite build the environment llamacpp, or "
            f"copy the script with its folders conversion and gguf-py to {_CONVERTER.parent} of its prefix"
        )
    vocabulary: list[str] = []
    if model_folder.is_dummy(folder):
        vocabulary = [gguf_converter.NO_VOCABULARY]
    elif (folder / VOCABULARY_FILE).is_file():
        vocabulary = [gguf_converter.VOCABULARY, str(folder / VOCABULARY_FILE)]
    code = ["-m", "quantize.backends.gguf_converter", *vocabulary]
    argv = [sys.executable, *code, str(script), str(folder), "--outtype", kind, "--outfile", str(file)]
    phase.begin("starting the converter")
    process = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    sys.stderr.write(process.stderr)
    if process.returncode or not file.is_file():
        raise UserError(_conversion_error(process.stderr.replace(str(folder), folder.name)))


def _conversion_error(log: str) -> str:
    """Why the converter failed, by name where it is a tokenizer or an architecture that it does not know."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if line.endswith("is not supported") and "Model " in line:
            return f"llama.cpp's converter does not know the architecture {line.split('Model ')[1].split()[0]}"
    if any("BPE pre-tokenizer was not recognized" in line for line in lines):
        digest = next((line.split("chkhsh:")[1].strip() for line in lines if "chkhsh:" in line), "unknown")
        return (
            "llama.cpp's converter does not know this BPE tokenizer (its pre-tokenizer hash is "
            f"{digest}): use a newer llama.cpp, or put the model's tokenizer.model into its folder"
        )
    if lines and (key := _UNKNOWN_KEY.fullmatch(lines[-1])):
        return f"llama.cpp's converter asks for {key[1]}, which the model's config.json does not state: add it there"
    return f"llama.cpp's converter failed: {lines[-1][:300] if lines else 'it gives no reason'}"


def quantize(
    source: Path,
    file: Path,
    kind: str,
    importance: Mapping[str, Any] | None,
    errors: Sequence[str],
    *,
    requantize: bool = False,
) -> None:
    """Quantize a GGUF file on all CPUs, with the library's own choice of type per tensor.

    `importance`: an importance matrix, float32 [in] by tensor name. `errors` is what `error_log` collects, from
    which a failure's reason is taken. `requantize`: also where the file is quantized already; a float type
    dequantizes it in any case.
    """
    import llama_cpp.llama_cpp as lib

    settings = lib.llama_model_quantize_default_params()
    settings.allow_requantize = requantize or kind in {"f32", "f16", "bf16"}
    if kind in FLOAT_BLOCKS:
        settings.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
        settings.tt_overrides, settings.kv_overrides = _every_layer(lib, kind)
    else:
        name = "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
        settings.ftype = getattr(lib, f"LLAMA_FTYPE_{name}")
    entries = _imatrix_entries(lib, importance or {})  # alive until the library is done
    if importance is not None:
        settings.imatrix = entries
    _run(lib, source, file, settings, errors, f"quantize to {kind}")


def quantize_by_tensor(source: Path, file: Path, types: Mapping[str, str], errors: Sequence[str]) -> None:
    """Quantize a GGUF file, each linear layer to its type; `types`: ggml's, by the layers' names in Transformers.

    The embedding gets 6 bits, as in llama.cpp's own mixtures, or 8 where its rows are no multiple of 256. RuntimeError
    where the library left a layer in another type: it falls back without a word.
    """
    import llama_cpp.llama_cpp as lib

    stored = gguf_reader.read(source)
    tensors = _tensor_names(stored, types)
    settings = lib.llama_model_quantize_default_params()
    settings.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0  # whose blocks fit any row: where one does not, no override counts
    settings.token_embedding_type = _type_id("q6_k" if stored.tensors[_EMBEDDING].shape[-1] % _WIDE == 0 else "q8_0")
    if output := types.get(_OUTPUT_LAYER):
        settings.output_tensor_type = _type_id(output)
    overrides = (lib.llama_model_tensor_override * (len(tensors) + 1))()  # ended by one without a pattern
    for override, (name, kind) in zip(overrides, tensors.items(), strict=False):
        override.pattern, override.type = f"^{re.escape(name)}$".encode(), _type_id(kind)
    settings.tt_overrides = overrides
    _run(lib, source, file, settings, errors, "quantize to mixed types")
    written = {name: tensor.dtype.lower() for name, tensor in gguf_reader.read(file).tensors.items()}
    if other := [name for name, kind in tensors.items() if written.get(name) != kind]:
        raise RuntimeError(f"llama.cpp stored {other[0]} as {written.get(other[0])}, not as {tensors[other[0]]}")


def _tensor_names(stored: gguf_reader.Gguf, types: Mapping[str, str]) -> dict[str, str]:
    """The types by the names of the file's tensors; UserError for a layer that it has not."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == stored.architecture), None)
    if arch is None:
        raise UserError(f"gguf has no names for the layers of {stored.architecture}: mixed types cannot be stored")
    blocks = int(stored.metadata.get(f"{stored.architecture}.block_count", 0))
    names = get_tensor_name_map(arch, blocks)
    tensors = {layer: f"{names.get_name(layer)}.weight" for layer in types}
    if missing := [layer for layer, name in tensors.items() if name not in stored.tensors]:
        raise UserError(f"the GGUF file has no {missing[0]} as a tensor of its own: mixed types cannot be stored")
    return {tensors[layer]: kind for layer, kind in types.items()}


def _type_id(kind: str) -> int:
    from gguf import GGMLQuantizationType

    return int(GGMLQuantizationType[kind.upper()].value)


def _every_layer(lib: Any, kind: str) -> tuple[Any, Any]:
    """Arrays for the quantizer, each ended by an entry without a name: the layers' type, and the file type to state."""
    types = (lib.llama_model_tensor_override * 2)()
    types[0].pattern, types[0].type = _LAYERS, getattr(lib, f"GGML_TYPE_{kind.upper()}")
    settings = (lib.llama_model_kv_override * 2)()
    settings[0].tag, settings[0].key = lib.LLAMA_KV_OVERRIDE_TYPE_INT, b"general.file_type"
    settings[0].value.val_i64 = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{FLOAT_BLOCKS[kind]}")
    return types, settings


def copy(source: Path, file: Path, errors: Sequence[str]) -> None:
    """Write the model of a file, or of the parts that it is the first of, as one file with the same tensors."""
    import llama_cpp.llama_cpp as lib

    settings = lib.llama_model_quantize_default_params()
    settings.only_copy = True
    _run(lib, source, file, settings, errors, "copy the model")


def _run(lib: Any, source: Path, file: Path, settings: Any, errors: Sequence[str], what: str) -> None:
    if lib.llama_model_quantize(str(source).encode(), str(file).encode(), ctypes.byref(settings)):
        reason = next((error for error in reversed(errors) if error), "it gives no reason")
        raise UserError(f"llama.cpp cannot {what}: {reason.split(': ', 1)[-1][:200]}")


def _imatrix_entries(lib: Any, importance: Mapping[str, Any]) -> Any:
    """A llama_model_imatrix_data array over the values of `importance`, ended by an entry without a name."""
    entries = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries


@contextmanager
def error_log() -> Iterator[list[str]]:
    """Collects the library's error lines, and tells its tensors; the whole log goes to stderr, which is kept."""
    import llama_cpp.llama_cpp as lib

    errors: list[str] = []
    level, steps = 0, dict[int, phase.Steps]()

    def add(line_level: int, text: bytes, _user: Any) -> None:
        nonlocal level
        level = level if line_level == _CONTINUED else line_level
        line = text.decode(errors="replace")
        sys.stderr.write(line)
        if tensor := _TENSOR.match(line):
            count, total = int(tensor[1]), int(tensor[2])
            steps.setdefault(total, phase.Steps("tensor {n} of {total}", total)).at(count - 1)
        if level == _ERROR:
            errors.append(line.strip())

    callback = lib.llama_log_callback(add)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    try:
        yield errors
    finally:
        lib.llama_log_set(lib.llama_log_callback(), None)
