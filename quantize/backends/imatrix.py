"""llama.cpp's importance matrix: the mean square of each weight's input columns over the calibration text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from quantize import first_token

_MIN_ROWS = 16  # the imatrix tool leaves smaller products out


def collect(
    file: Path, windows: Sequence[Sequence[int]], device: str, first_token_weight: float = 1.0
) -> dict[str, Any]:
    """Mean square of each weight's input columns, float32 [in] by tensor name.

    Each window starts with BOS where the model adds one, and is computed in one pass from an empty cache.
    Its first token weighs `first_token_weight`. Weights of stacked experts are left out.
    """
    import llama_cpp.llama_cpp as lib
    import numpy as np

    collector = _Collector(_ggml(lib), first_token_weight)
    callback = lib.ggml_backend_sched_eval_callback(collector.evaluated)
    with _context(lib, file, len(windows[0]), device, callback) as (context, vocab):
        bos = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
        for window in phase.each(windows, "importance matrix: window {n} of {total}"):
            ids = [*bos, *window[len(bos) :]]
            lib.llama_memory_clear(lib.llama_get_memory(context), True)  # noqa: FBT003  (C)
            tokens, outputs = (lib.llama_token * len(ids))(*ids), (ctypes.c_int8 * len(ids))(*[1] * len(ids))
            batch = lib.llama_batch_get_one(tokens, len(ids))
            batch.logits = outputs  # of all tokens: the last layer computes only those with an output
            if lib.llama_decode(context, batch) or collector.error:
                raise UserError(f"the importance matrix failed: {collector.error or 'decoding failed'}")
    return {
        name: np.ascontiguousarray(total / collector.rows[name], dtype=np.float32)
        for name, total in collector.sums.items()
    }


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
    first_token_weight: float
    sums: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def evaluated(self, address: int, ask: bool, _user: Any) -> bool:  # noqa: FBT001  (the library's signature)
        """ggml_backend_sched_eval_callback: with `ask` whether this result is needed, then the result itself."""
        try:
            return self._is_product(address) if ask else self._add(address)
        except Exception as error:  # noqa: BLE001  (an exception cannot pass through the library)
            self.error = self.error or f"{type(error).__name__}: {error}"
            return False

    def _is_product(self, address: int) -> bool:
        tensor = _Tensor.from_address(address)
        if self.ggml.ggml_op_name(tensor.op) != b"MUL_MAT":
            return False
        weight, inputs = _Tensor.from_address(tensor.src[0]), _Tensor.from_address(tensor.src[1])
        if self.ggml.ggml_get_name(tensor.src[0]) != weight.name:
            self.error = "this llama.cpp has another layout of ggml_tensor than the pinned version"
            return False
        return bool(weight.name.startswith(b"blk.") and inputs.type == 0 and inputs.ne[1] >= _MIN_ROWS)

    def _add(self, address: int) -> bool:
        import numpy as np

        source = _Tensor.from_address(address).src
        name, inputs = _Tensor.from_address(source[0]).name.decode(), _Tensor.from_address(source[1])
        size = int(self.ggml.ggml_nbytes(source[1]))
        raw = np.empty(size // 4, np.float32)
        self.ggml.ggml_backend_tensor_get(source[1], raw.ctypes.data, 0, size)
        rows = np.lib.stride_tricks.as_strided(raw, tuple(inputs.ne)[::-1], tuple(inputs.nb)[::-1])
        squares = np.square(rows.reshape(-1, inputs.ne[0]).astype(np.float64))
        # Each pass is one window, from its first token on.
        more = first_token.count(self.first_token_weight, squares[0].mean(), squares[1:].mean()) - 1
        self.sums[name] = self.sums.get(name, 0.0) + squares.sum(axis=0) + more * squares[0]
        self.rows[name] = self.rows.get(name, 0.0) + len(squares) + more
        return True


@contextmanager
def _context(
    lib: Any, file: Path, length: int, device: str, callback: Callable[..., bool]
) -> Iterator[tuple[Any, Any]]:
    """A context of `length` tokens over the model in `file`, and its vocabulary."""
    model_settings = lib.llama_model_default_params()
    model_settings.n_gpu_layers = -1 if device.startswith("cuda") else 0
    model = lib.llama_model_load_from_file(str(file).encode(), model_settings)
    if not model:
        raise UserError(f"llama.cpp cannot load {file.name}, which the importance matrix is computed with")
    try:
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.cb_eval = callback
        context = lib.llama_init_from_model(model, settings)
        if not context:
            raise UserError(f"llama.cpp has no memory for a context of {length} tokens")
        try:
            yield context, lib.llama_model_get_vocab(model)
        finally:
            lib.llama_free(context)
    finally:
        lib.llama_model_free(model)


def _ggml(lib: Any) -> Any:
    """The tensor library below llama.cpp, with the types of the functions used here."""
    ggml = lib._lib  # noqa: SLF001  (its symbols are reached through the library that depends on it)
    ggml.ggml_op_name.argtypes, ggml.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    ggml.ggml_get_name.argtypes, ggml.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    ggml.ggml_nbytes.argtypes, ggml.ggml_nbytes.restype = [ctypes.c_void_p], ctypes.c_size_t
    ggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    ggml.ggml_backend_tensor_get.restype = None
    return ggml
