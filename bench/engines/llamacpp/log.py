"""The log of llama.cpp, where it tells of itself: buffers, tensor types, offloaded layers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_DEBUG, _ERROR, _CONTINUED = 1, 4, 5  # of enum ggml_log_level
_BUFFER = re.compile(r":\s+(\S+)\s+(model|KV|RS|compute|output) buffer size =\s+([\d.]+) MiB")
_CACHE = re.compile(
    r"size =\s+([\d.]+) MiB \(\s*(\d+) cells,\s+\d+ layers,\s+\d+/(\d+) seqs\), K \((\w+)\):.*? V \((\w+)\):"
)
_ROTATED = {"keys": re.compile(r"attn_rot_k = 1\b"), "values": re.compile(r"attn_rot_v = 1\b")}
_MIB = 2**20
_LEAST_CACHE = _MIB  # bytes: of a smaller one the log's hundredths of a MiB are more than 0.5 %


class KvCache(NamedTuple):
    """The cache of some layers: its types, and its bytes and cells, one for each token of each sequence."""

    key_type: str
    value_type: str
    size_bytes: int
    cells: int


@dataclass
class Log:
    """What the library logs, debug lines left out, in one text."""

    text: str = ""
    errors: list[str] = field(default_factory=list)
    level: int = 0

    def add(self, level: int, text: bytes, _user: Any) -> None:
        self.level = self.level if level == _CONTINUED else level
        if self.level != _DEBUG:
            self.text += text.decode(errors="replace")
        if self.level == _ERROR:
            self.errors.append(text.decode(errors="replace").strip())

    def reason(self, folder: Path) -> str:
        """The first error, without the library's function name and this machine's paths."""
        first = next((line for line in self.errors if line), "it gives no reason")
        return first.split(": ", 1)[-1].replace(str(folder), folder.name)[:300]

    def find(self, pattern: str, otherwise: str = "unknown") -> str:
        """The first group of the last match."""
        matches = re.findall(pattern, self.text)
        return str(matches[-1]) if matches else otherwise

    def types(self) -> dict[str, str]:
        """How many tensors there are of each type."""
        return dict(re.findall(r"- type\s+(\S+):\s+(\d+) tensors", self.text))

    def receipts(self) -> dict[str, str]:
        """Architecture, tensors by type, layers on the GPU, and the types of the KV cache."""
        return {
            **self.kv_receipts(),
            "architecture": self.find(r"print_info: arch\s+= (\S+)"),
            "kernel": ", ".join(f"{name} x{count}" for name, count in self.types().items()),
            "weight_dtype": self.find(r"print_info: file type\s+= (.+)"),
            "offloaded_layers": self.find(r"offloaded (\d+/\d+) layers to GPU", "0: no GPU in use"),
        }

    def caches(self) -> list[KvCache]:
        """One, or two where only some layers have a sliding window; none of a model that keeps a state alone."""
        return [
            KvCache(key_type, value_type, int(float(mib) * _MIB), int(cells) * int(streams))
            for mib, cells, streams, key_type, value_type in _CACHE.findall(self.text)
        ]

    def kv_receipts(self) -> dict[str, str]:
        """Types of keys and of values, and which of them are rotated (Hadamard) before they are quantized.

        {} where the log names no cache.
        """
        if not (caches := self.caches()):
            return {}
        keys, values = ({getattr(cache, kind) for cache in caches} for kind in ("key_type", "value_type"))
        rotated = [name for name, pattern in _ROTATED.items() if pattern.search(self.text)]
        return {
            "kv_dtype": ", ".join(sorted(keys | values)),
            "kv_dtype_k": ", ".join(sorted(keys)),
            "kv_dtype_v": ", ".join(sorted(values)),
            **({"kv_rotated": ", ".join(rotated)} if rotated else {}),
        }

    def kv_token_bytes(self) -> dict[str, int]:
        """Bytes of the cells of one token, by the caches' sizes; {} where these are too small to tell."""
        caches = self.caches()
        if sum(cache.size_bytes for cache in caches) < _LEAST_CACHE:
            return {}
        return {"kv_token_bytes": round(sum(cache.size_bytes / cache.cells for cache in caches))}

    def buffers(self) -> list[tuple[str, str, int]]:
        """(device, use, bytes) of each buffer; the log gives hundredths of a MiB."""
        return [(device, use, int(float(mib) * _MIB)) for device, use, mib in _BUFFER.findall(self.text)]

    def memory(self, *, on_gpu: bool) -> dict[str, int]:
        """Bytes by use, {} where the log names no buffers; on CUDA those there, and their peak, taken at the start."""
        if not self.buffers():
            return {}
        uses: Counter[str] = Counter()
        for device, use, size in self.buffers():
            if is_on_gpu(device) or not on_gpu:
                uses[use] += size
        sizes = {"weights_bytes": uses["model"], "kv_bytes": uses["KV"] + uses["RS"], "compute_bytes": uses["compute"]}
        sizes |= self.kv_token_bytes()
        return {**sizes, "peak_bytes": uses.total()} if on_gpu else sizes


def is_on_gpu(device: str) -> bool:
    """Whether a buffer is in a GPU's memory: CUDA0 is, CUDA_Host is the host's."""
    return re.match(r"CUDA\d", device) is not None
