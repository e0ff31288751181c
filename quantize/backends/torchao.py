"""What every use of torchao shares: the schemes by name, the layers they are for, the folder they become.

Source: github.com/pytorch/ao, at the version the hf environment pins. A trained model is converted and saved
as one that is only rounded, so that both are the same kind of artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from quantize import checkpoint

Scheme = Literal[
    "int8-weight-only",
    "int8-dynamic",
    "int8-static",
    "int4-weight-only",
    "fp8-weight-only",
    "fp8-dynamic",
    "intx-weight-only",
    "int8-dynamic-intx",
]
GROUPED = frozenset({"int4-weight-only", "intx-weight-only", "int8-dynamic-intx"})
INTX = frozenset({"intx-weight-only", "int8-dynamic-intx"})


def base_config(scheme: Scheme, bits: int = 4, group_size: int = 64) -> Any:
    """The library's own configuration of a scheme; `bits` of the intx ones, `group_size` -1 a whole row.

    Its inductor settings are left alone: they would change the arithmetic of everything else in the process.
    """
    import torch
    from torchao.quantization import quant_api as ao
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow, PerTensor

    still: dict[str, Any] = {"set_inductor_config": False}
    rows: Any = PerAxis(0) if group_size == -1 else PerGroup(group_size)
    kind = getattr(torch, f"int{bits}")
    made: dict[str, Callable[[], Any]] = {
        "int8-weight-only": lambda: ao.Int8WeightOnlyConfig(**still),
        "int8-dynamic": lambda: ao.Int8DynamicActivationInt8WeightConfig(**still),
        "int8-static": lambda: ao.Int8StaticActivationInt8WeightConfig(granularity=[PerTensor(), PerRow()], **still),
        "int4-weight-only": lambda: ao.Int4WeightOnlyConfig(
            group_size=group_size, int4_packing_format="tile_packed_to_4d", **still
        ),
        "fp8-weight-only": lambda: ao.Float8WeightOnlyConfig(**still),
        "fp8-dynamic": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), **still),
        "intx-weight-only": lambda: ao.IntxWeightOnlyConfig(weight_dtype=kind, granularity=rows),
        "int8-dynamic-intx": lambda: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=kind, weight_granularity=rows
        ),
    }
    return made[scheme]()


def weight_bits(scheme: Scheme, group_size: int) -> float:
    """Bits that a weight is stored in: the intx schemes keep each in a byte, int4 has two types a group."""
    return 4 + 32 / group_size if scheme == "int4-weight-only" else 8.0


def load(folder: Path, dtype: str, on: str) -> Any:
    """The unquantized model of `folder`, every weight in `dtype`, in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM

    model_folder.weight_files(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), device_map={"": on}, local_files_only=True, use_safetensors=True
    ).eval()


def wanted(model: Any, scheme: Scheme, group_size: int = 64) -> Callable[[Any, str], bool]:
    """Which modules a scheme is for, as `quantize_` asks: every linear layer but the head.

    A layer whose inputs the group does not divide is left as it is: the library skips it in int4, and fails
    on it in the others.
    """
    import torch

    head = model.get_output_embeddings()
    group = group_size if scheme in GROUPED and group_size != -1 else 1

    def fits(module: Any, name: str) -> bool:
        del name
        linear = isinstance(module, torch.nn.Linear) and module is not head
        return linear and module.in_features % group == 0

    return fits


def prepare(model: Any, config: Any, fits: Callable[[Any, str], bool]) -> None:
    """Round in every forward pass as `config` would, with gradients passed straight through the rounding.

    For the intx schemes of 2 bits and more. The modules become others over the same parameters: make the
    optimizer afterwards. `convert` makes of the trained weights what `quantize_` makes of any.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    quantize_(model, QATConfig(config, step="prepare"), filter_fn=fits)


def convert(model: Any, config: Any) -> None:
    """Quantize a prepared model for good: its logits stay what they were in eval mode."""
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    quantize_(model, QATConfig(config, step="convert"))


def save(model: Any, config: Any, folder: Path, out: Path) -> Mapping[str, Any]:
    """Write a model that `quantize_` has converted by `config`; return what is worth recording of it.

    transformers flattens torchao's tensors into safetensors itself; the rest of the folder is its source's.
    UserError when no weight is the library's own.
    """
    import torchao
    from transformers import TorchAoConfig
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    kinds, whole = layers(model)
    if not kinds:
        raise UserError("torchao left every linear layer as it was: choose another scheme or group_size")
    settings = TorchAoConfig(config, modules_to_not_convert=whole or None)
    model.config.quantization_config = settings
    model.hf_quantizer = TorchAoHfQuantizer(settings)
    model.save_pretrained(out)
    source = model_folder.read_config(folder)
    written = model_folder.quantization(model_folder.read_config(out))
    dtype = str(model.dtype).removeprefix("torch.")
    checkpoint.carry(folder, out)
    named = checkpoint.with_dtype({"dtype": dtype, **source}, dtype)
    checkpoint.write_config(out, {**named, "quantization_config": written})
    return {
        "dtype": dtype,
        "modules_quantized": sum(kinds.values()),
        "modules_skipped": whole,
        "tensor_kinds": kinds,
        "torchao": torchao.__version__,
        "settings": written,
    }


def layers(model: Any) -> tuple[dict[str, int], list[str]]:
    """({kind of quantized weight: layers}, [linear layers with a plain weight, the head apart])."""
    import torch
    from torchao.utils import TorchAOBaseTensor

    kinds: dict[str, int] = {}
    whole = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        if isinstance(module.weight, TorchAOBaseTensor):
            kind = type(module.weight).__name__
            kinds[kind] = kinds.get(kind, 0) + 1
        elif module is not model.get_output_embeddings():
            whole.append(name)
    return kinds, whole
