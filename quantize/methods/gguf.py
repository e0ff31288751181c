"""GGUF: llama.cpp's formats, converted and quantized by llama.cpp itself, at the version that will run them.

An unquantized model is converted first, by the script that llama.cpp ships, to a 16-bit file that all types
are made from. The importance matrix weighs each column of a weight by the mean square of what it is
multiplied with over the calibration text, as llama.cpp's imatrix tool counts it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from quantize import calibration, checkpoint, option_checks

ENV = "llamacpp"
VERSION = 1
READS = frozenset({"hf", "gguf"})
WRITES = "gguf"

Type = Literal[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q6_k",
    "q5_k_m",
    "q5_k_s",
    "q5_1",
    "q5_0",
    "q4_k_m",
    "q4_k_s",
    "q4_1",
    "q4_0",
    "iq4_xs",
    "iq4_nl",
    "q3_k_l",
    "q3_k_m",
    "q3_k_s",
    "iq3_m",
    "iq3_s",
    "iq3_xs",
    "iq3_xxs",
    "q2_k",
    "q2_k_s",
    "iq2_m",
    "iq2_s",
    "iq2_xs",
    "iq2_xxs",
    "iq1_m",
    "iq1_s",
]
_WHOLE = ("f32", "f16", "bf16")
# enum llama_ftype, which counts types in the order of their invention
_FTYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 32,
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_xs": 30,
    "iq4_nl": 25,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "iq3_m": 27,
    "iq3_s": 26,
    "iq3_xs": 22,
    "iq3_xxs": 23,
    "q2_k": 10,
    "q2_k_s": 21,
    "iq2_m": 29,
    "iq2_s": 28,
    "iq2_xs": 20,
    "iq2_xxs": 19,
    "iq1_m": 31,
    "iq1_s": 24,
}
# Bits of the type that most weights get, by GGML_QUANT_SIZES; mixtures (_m, _l) have wider ones among them.
_BITS = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q6_k": 6.5625,
    "q5_k": 5.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_k": 4.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_xs": 4.25,
    "iq4_nl": 4.5,
    "q3_k": 3.4375,
    "q2_k": 2.625,
    "iq3": 3.0625,
    "iq2": 2.0625,
    "iq1": 1.5625,
}
_NEEDS_IMATRIX = frozenset({"iq3_xs", "iq3_xxs", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"})
_FILE = "model.gguf"
_CONVERTER = Path("share") / "llama-cpp-python" / "convert_hf_to_gguf.py"
# Runs the converter on a model that has no tokenizer: the vocabulary is a number.
_WITHOUT_VOCABULARY = """
import runpy, sys
from pathlib import Path
folder = str(Path(sys.argv[1]).parent)
sys.path[:0] = [folder, folder + "/gguf-py"]
import conversion
known = conversion.get_model_class
def set_vocab(self):
    self.gguf_writer.add_tokenizer_model("no_vocab")
    if not any(key.endswith(".vocab_size") for part in self.gguf_writer.kv_data for key in part):
        self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])
def get_model_class(*words, **more):
    found = known(*words, **more)
    return type(found.__name__, (found,), {"set_vocab": set_vocab, "model_arch": found.model_arch})
conversion.get_model_class = get_model_class
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_ERROR, _CONTINUED = 4, 5  # of enum ggml_log_level
_SMALLEST_BATCH = 16  # the imatrix tool leaves smaller products out


@dataclass(frozen=True)
class Options:
    """`imatrix`: weigh by the calibration text (`calibration`, `samples` of `length` tokens, `seed`)."""

    type: Type = "q4_k_m"
    imatrix: bool = False
    calibration: str = "stdlib"
    samples: int = 128
    length: int = 512
    seed: int = 0


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    del hardware
    if options.imatrix and options.type in _WHOLE:
        return f"an importance matrix has no use for {options.type}, which keeps every weight"
    if not options.imatrix and options.type in _NEEDS_IMATRIX:
        return f"{options.type} is worthless without an importance matrix: set imatrix: true"
    return option_checks.sample_length(source, options.length) if options.imatrix else None


def weight_bits(options: Options) -> float:
    return next(bits for name, bits in _BITS.items() if options.type.startswith(name))


def prerequisites(options: Options, source_format: str) -> tuple[Step, ...]:
    """The 16-bit file that every quantized type of an unquantized model is made from."""
    if source_format != "hf" or options.type in _WHOLE:
        return ()
    return (Step("gguf", asdict(Options(type="f16"))),)


def is_lossless(options: Options) -> bool:
    return options.type in _WHOLE


def apply(folder: Path, options: Options, out: Path, device: str) -> Mapping[str, Any]:
    """Convert a Hugging Face folder, or quantize the GGUF file that `folder` is or holds."""
    source = _gguf(folder)
    if source is None:
        facts = _convert(folder, out / _FILE, options.type)
    else:
        facts = _quantize(source, folder, out, options, device)
    if folder.is_dir() and (folder / "config.json").is_file():
        checkpoint.carry(folder, out)
        shutil.copyfile(folder / "config.json", out / "config.json")
    return facts


def _gguf(folder: Path) -> Path | None:
    """The file that `folder` is or holds; of a split one the first part, which sorts first."""
    if folder.is_file():
        return folder
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _convert(folder: Path, file: Path, kind: str) -> dict[str, Any]:
    """Run the converter that came with this llama.cpp; its last words become one sentence if it fails."""
    script = Path(sys.prefix) / _CONVERTER
    if not script.is_file():
        raise UserError(
            "this interpreter has no convert_hf_to_gguf.py: let the suite build the environment llamacpp, or "
            f"copy the script with its folders conversion and gguf-py to {_CONVERTER.parent} of its prefix"
        )
    if kind not in _WHOLE and kind != "q8_0":
        raise UserError(f"{kind} is made from a GGUF file, not from safetensors: convert to f16 first")
    began = time.perf_counter()
    bare = ["-c", _WITHOUT_VOCABULARY] if model_folder.is_dummy(folder) else []
    argv = [sys.executable, *bare, str(script), str(folder), "--outtype", kind, "--outfile", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    sys.stderr.write(done.stderr)
    if done.returncode or not file.is_file():
        raise UserError(_unknown(done.stderr.replace(str(folder), folder.name)))
    return {"convert_s": time.perf_counter() - began}


def _unknown(log: str) -> str:
    """Why the converter gave up, by name where it is a tokenizer or an architecture that it does not know."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if line.endswith("is not supported") and "Model " in line:
            return f"llama.cpp's converter does not know the architecture {line.split('Model ')[1].split()[0]}"
    if any("BPE pre-tokenizer was not recognized" in line for line in lines):
        seen = next((line.split("chkhsh:")[1].strip() for line in lines if "chkhsh:" in line), "unknown")
        return (
            "llama.cpp's converter does not know this BPE tokenizer (its pre-tokenizer hash is "
            f"{seen}): a newer llama.cpp may, or a tokenizer.model beside it would do"
        )
    return f"llama.cpp's converter failed: {lines[-1][:300] if lines else 'it gives no reason'}"


def _quantize(source: Path, folder: Path, out: Path, options: Options, device: str) -> dict[str, Any]:
    """Quantize in process with every CPU; the library's own choice of type per tensor."""
    import llama_cpp.llama_cpp as lib

    facts: dict[str, Any] = {}
    with _quiet(lib) as errors:
        settings = lib.llama_model_quantize_default_params()
        settings.ftype = _FTYPES[options.type]
        entries = None
        if options.imatrix:
            began = time.perf_counter()
            seen = calibration.samples(folder, options.calibration, options.samples, options.length, options.seed)
            importance = _importance(lib, source, seen.ids, device)
            entries = _entries(lib, importance)
            settings.imatrix = entries
            seen.write(out)
            facts = {**seen.facts(), "imatrix_s": time.perf_counter() - began, "imatrix_tensors": len(importance)}
        began = time.perf_counter()
        code = lib.llama_model_quantize(str(source).encode(), str(out / _FILE).encode(), ctypes.byref(settings))
        if code:
            reason = next((e for e in reversed(errors) if e), "it gives no reason")
            raise UserError(f"llama.cpp cannot quantize to {options.type}: {reason.split(': ', 1)[-1][:200]}")
    return {**facts, "quantize_s": time.perf_counter() - began}


@contextmanager
def _quiet(lib: Any) -> Iterator[list[str]]:
    """The library's error lines; the rest of its log goes to stderr, which the suite keeps."""
    errors: list[str] = []
    level = 0

    def add(given: int, text: bytes, user: Any) -> None:
        nonlocal level
        del user
        level = level if given == _CONTINUED else given
        words = text.decode(errors="replace")
        sys.stderr.write(words)
        if level == _ERROR:
            errors.append(words.strip())

    callback = lib.llama_log_callback(add)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    try:
        yield errors
    finally:
        lib.llama_log_set(lib.llama_log_callback(), None)


def _entries(lib: Any, importance: Mapping[str, Any]) -> Any:
    """A llama_model_imatrix_data array, ended by an entry without a name; it keeps its data alive."""
    made = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(made, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    made.kept = importance
    return made


class _Tensor(ctypes.Structure):
    """The fields of ggml_tensor up to its name, as ggml.h lays them out in the pinned version."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@dataclass
class _Collector:
    """Sums of squares by weight, taken from the graph while it is computed. `error` ends it."""

    ggml: Any
    sums: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    error: str = ""

    def see(self, address: int, ask: bool, user: Any) -> bool:  # noqa: FBT001  (the library's signature)
        """ggml_backend_sched_eval_callback: first whether this result is wanted, then the result itself."""
        del user
        try:
            return self._wanted(address) if ask else self._add(address)
        except Exception as error:  # noqa: BLE001  (an exception cannot pass through the library)
            self.error = self.error or f"{type(error).__name__}: {error}"
            return False

    def _wanted(self, address: int) -> bool:
        tensor = _Tensor.from_address(address)
        if self.ggml.ggml_op_name(tensor.op) != b"MUL_MAT":
            return False
        weight, given = _Tensor.from_address(tensor.src[0]), _Tensor.from_address(tensor.src[1])
        if self.ggml.ggml_get_name(tensor.src[0]) != weight.name:
            self.error = "this llama.cpp lays out its tensors in another way than the pinned one"
            return False
        return bool(weight.name.startswith(b"blk.") and given.type == 0 and given.ne[1] >= _SMALLEST_BATCH)

    def _add(self, address: int) -> bool:
        import numpy as np

        source = _Tensor.from_address(address).src
        name, given = _Tensor.from_address(source[0]).name.decode(), _Tensor.from_address(source[1])
        size = int(self.ggml.ggml_nbytes(source[1]))
        raw = np.empty(size // 4, np.float32)
        self.ggml.ggml_backend_tensor_get(source[1], raw.ctypes.data, 0, size)
        rows = np.lib.stride_tricks.as_strided(raw, tuple(given.ne)[::-1], tuple(given.nb)[::-1])
        squares = np.square(rows.reshape(-1, given.ne[0]).astype(np.float64))
        self.sums[name] = self.sums.get(name, 0.0) + squares.sum(axis=0)
        self.rows[name] = self.rows.get(name, 0) + len(squares)
        return True


def _importance(lib: Any, file: Path, windows: Sequence[Sequence[int]], device: str) -> dict[str, Any]:
    """Mean square of each weight's input columns, float32 by tensor name.

    Each window starts with BOS where the model adds one, and is computed in one pass from an empty cache.
    Weights of stacked experts are left out.
    """
    import numpy as np

    collector = _Collector(_ggml(lib))
    callback = lib.ggml_backend_sched_eval_callback(collector.see)
    with _context(lib, file, len(windows[0]), device, callback) as (context, vocab):
        bos = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
        for window in windows:
            ids = [*bos, *window[len(bos) :]]
            lib.llama_memory_clear(lib.llama_get_memory(context), True)  # noqa: FBT003  (C)
            tokens, wanted = (lib.llama_token * len(ids))(*ids), (ctypes.c_int8 * len(ids))(*[1] * len(ids))
            batch = lib.llama_batch_get_one(tokens, len(ids))
            batch.logits = wanted  # of all: the last layer computes only what is asked for
            if lib.llama_decode(context, batch) or collector.error:
                raise UserError(f"the importance matrix failed: {collector.error or 'decoding failed'}")
    return {
        name: np.ascontiguousarray(total / collector.rows[name], dtype=np.float32)
        for name, total in collector.sums.items()
    }


@contextmanager
def _context(
    lib: Any, file: Path, length: int, device: str, callback: Callable[..., bool]
) -> Iterator[tuple[Any, Any]]:
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = -1 if device.startswith("cuda") else 0
    model = lib.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        raise UserError("llama.cpp cannot load the file that the importance matrix is to be taken from")
    try:
        asked = lib.llama_context_default_params()
        asked.n_ctx = asked.n_batch = asked.n_ubatch = length
        asked.cb_eval = callback
        context = lib.llama_init_from_model(model, asked)
        if not context:
            raise UserError(f"llama.cpp has no room for a context of {length} tokens")
        try:
            yield context, lib.llama_model_get_vocab(model)
        finally:
            lib.llama_free(context)
    finally:
        lib.llama_model_free(model)


def _ggml(lib: Any) -> Any:
    """The tensor library below llama.cpp, with the types of the functions used here."""
    found = lib._lib  # noqa: SLF001  (its symbols are found through the library that depends on it)
    found.ggml_op_name.argtypes, found.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    found.ggml_get_name.argtypes, found.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    found.ggml_nbytes.argtypes, found.ggml_nbytes.restype = [ctypes.c_void_p], ctypes.c_size_t
    found.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    found.ggml_backend_tensor_get.restype = None
    return found


assert set(get_args(Type)) == set(_FTYPES)  # noqa: S101  (two lists of one thing)
