"""torchao (github.com/pytorch/ao) for methods torchao and qat, which write the same kind of artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
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
LAYERS = "linear layer {n} of {total}"  # as phase.Steps has it
GROUPED = frozenset({"int4-weight-only", "intx-weight-only", "int8-dynamic-intx"})
INTX = frozenset({"intx-weight-only", "int8-dynamic-intx"})


def base_config(scheme: Scheme, bits: int = 4, group_size: int = 64) -> Any:
    """The library's own configuration of a scheme; `bits` of the intx ones, `group_size` -1 a whole row.

    It must not set inductor's options: they would change the arithmetic of everything else in the process.
    """
    import torch
    from torchao.quantization import quant_api as ao
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow, PerTensor

    common: dict[str, Any] = {"set_inductor_config": False}
    rows: Any = PerAxis(0) if group_size == -1 else PerGroup(group_size)
    dtype = getattr(torch, f"int{bits}")
    configs: dict[str, Callable[[], Any]] = {
        "int8-weight-only": lambda: ao.Int8WeightOnlyConfig(**common),
        "int8-dynamic": lambda: ao.Int8DynamicActivationInt8WeightConfig(**common),
        "int8-static": lambda: ao.Int8StaticActivationInt8WeightConfig(granularity=[PerTensor(), PerRow()], **common),
        "int4-weight-only": lambda: ao.Int4WeightOnlyConfig(
            group_size=group_size, int4_packing_format="tile_packed_to_4d", **common
        ),
        "fp8-weight-only": lambda: ao.Float8WeightOnlyConfig(**common),
        "fp8-dynamic": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), **common),
        "intx-weight-only": lambda: ao.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=rows),
        "int8-dynamic-intx": lambda: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=dtype, weight_granularity=rows
        ),
    }
    return configs[scheme]()


def weight_bits(scheme: Scheme, group_size: int) -> float:
    """Bits that a weight is stored in: the intx schemes keep each in a byte, int4 has two types a group."""
    return 4 + 32 / group_size if scheme == "int4-weight-only" else 8.0


def layer_filter(model: Any, scheme: Scheme, group_size: int = 64) -> Callable[[Any, str], bool]:
    """The modules that a scheme applies to, as `filter_fn` of `quantize_`: every linear layer but the head.

    A layer whose inputs the group does not divide is left out: the library skips it in int4, and fails on it
    in the others.
    """
    import torch

    head = model.get_output_embeddings()
    group = group_size if scheme in GROUPED and group_size != -1 else 1

    def applies(module: Any, _name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and module is not head and module.in_features % group == 0

    return applies


def quantize(model: Any, config: Any, applies: Callable[[Any, str], bool]) -> None:
    """Quantize the modules that `applies` takes, each told as it is reached: the library asks for one after another."""
    from torchao.quantization import quantize_

    steps = phase.Steps(LAYERS, sum(applies(module, name) for name, module in model.named_modules()))
    count = 0

    def counted(module: Any, name: str) -> bool:
        nonlocal count
        if applied := applies(module, name):
            steps.at(count)
            count += 1
        return applied

    quantize_(model, config, filter_fn=counted)
    steps.at(count)


def qat(
    model: Any, config: Any, step: Literal["prepare", "convert"], applies: Callable[[Any, str], bool] | None = None
) -> None:
    """Prepare a model, to round in each forward pass as intx `config` would (2 bits and more); convert it thereafter.

    Gradients pass straight through the rounding. Modules are replaced: create the optimizer afterwards.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    quantize_(model, QATConfig(config, step=step), filter_fn=applies)


def save(model: Any, config: Any, folder: Path, out: Path) -> Mapping[str, Any]:
    """Write a model that was quantized by `config`; return what is worth recording of it.

    transformers flattens torchao's tensors into safetensors itself; the rest of the folder is the source's.
    UserError when no layer was quantized.
    """
    import torchao
    from transformers import TorchAoConfig
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    phase.begin("writing the artifact")
    classes, skipped = _layers(model)
    if not classes:
        raise UserError("torchao quantized no linear layer: choose another scheme or group_size")
    settings = TorchAoConfig(config, modules_to_not_convert=skipped or None)
    model.config.quantization_config = settings
    model.hf_quantizer = TorchAoHfQuantizer(settings)
    model.save_pretrained(out)
    written = model_folder.quantization(model_folder.read_config(out))
    dtype = str(model.dtype).removeprefix("torch.")
    checkpoint.complete(folder, out, dtype, {"quantization_config": written})
    return {
        "dtype": dtype,
        "modules_quantized": sum(classes.values()),
        "modules_skipped": skipped,
        "tensor_kinds": classes,
        "torchao": torchao.__version__,
        "settings": written,
    }


def _layers(model: Any) -> tuple[dict[str, int], list[str]]:
    """({class of quantized weight: layers}, [linear layers with a plain weight, without the head])."""
    import torch
    from torchao.utils import TorchAOBaseTensor

    classes: Counter[str] = Counter()
    skipped = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        if isinstance(module.weight, TorchAOBaseTensor):
            classes[type(module.weight).__name__] += 1
        elif module is not model.get_output_embeddings():
            skipped.append(name)
    return dict(classes), skipped
