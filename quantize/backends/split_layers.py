"""Layers that gptqmodel takes apart: gate and up of Phi-3 and GLM, one layer to whatever loads the model.

It quantizes each by itself and writes them so; Transformers and vLLM then look for the layer that the config has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.formats import folder as model_folder
from quantize import checkpoint
from quantize.first_token import replaced

_WHOLE, _GATE, _UP = "gate_up_proj", "gate_proj", "up_proj"


def join(folder: Path, out: Path) -> None:
    """Store gate and up as the one layer that they are in the source `folder`: their outputs one after the other.

    Nothing is rounded anew. RuntimeError where the two order their inputs in different ways.
    """
    from safetensors import safe_open

    end = f".{_WHOLE}.weight"
    stems = {name.removesuffix(end) for name in model_folder.read_headers(folder).tensors if name.endswith(end)}
    if not stems:
        return
    ups: dict[str, Any] = {}
    for file in model_folder.weight_files(out):
        with safe_open(file, "pt") as opened:
            ups |= {name: opened.get_tensor(name) for name in opened.keys() if _is_part(name, stems, _UP)}  # noqa: SIM118

    def with_whole(tensors: dict[str, Any]) -> dict[str, Any]:
        result = {name: tensor for name, tensor in tensors.items() if not _is_part(name, stems, _GATE, _UP)}
        for name in tensors.keys() - result.keys():
            if _is_part(name, stems, _GATE):
                whole, up = (name.replace(f".{_GATE}.", f".{other}.") for other in (_WHOLE, _UP))
                result[whole] = _joined(name, tensors[name], ups[up])
        return result

    checkpoint.rewrite(out, with_whole)


def _is_part(name: str, stems: set[str], *parts: str) -> bool:
    stem, _, last = name.rpartition(".")[0].rpartition(".")
    return last in parts and stem in stems


def _joined(name: str, gate: Any, up: Any) -> Any:
    """GPTQ and AWQ store outputs in the last dimension of whatever has them; plain weights in the first."""
    import torch

    if not name.endswith(".g_idx"):
        return torch.cat([gate, up], dim=0 if name.endswith(".weight") else -1)
    if not torch.equal(gate, up):
        raise RuntimeError(f"{name} orders its inputs in another way than {_UP}: the two cannot be one layer")
    return gate


@contextmanager
def phi3_norms() -> Iterator[None]:
    """Tell the library's AWQ of Phi-3's norms, which take up the scales: without them it scales no layer, and fails."""
    from gptqmodel.models.definitions.phi3 import Phi3QModel

    norms = {name: (f"{name}:!",) for name in ("input_layernorm", "post_attention_layernorm")}
    *path, parts = Phi3QModel.module_tree
    tree = {
        "input_layernorm": norms["input_layernorm"],
        "self_attn": parts["self_attn"],
        "post_attention_layernorm": norms["post_attention_layernorm"],
        "mlp": parts["mlp"],
    }
    with replaced(Phi3QModel, "module_tree", [*path, tree]):
        yield
