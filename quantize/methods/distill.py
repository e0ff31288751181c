"""Distillation: the student is trained towards the teacher's whole distribution over a text.

Logit distillation with forward KL and temperature (Hinton et al., 2015, arXiv:1503.02531). The student is
the output of the step before (a pruned model), or the recipe's model where a larger `teacher` is named. With
alpha 0 there is no teacher: plain fine-tuning on the same text, which is what distillation has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Hardware, Source
from bench.formats import folder as model_folder
from quantize import training, transformer

ENV = "hf"
VERSION = 1
READS = frozenset({"hf"})
WRITES = "hf"
PATHS = ("teacher",)


@dataclass(frozen=True)
class Options(training.Plan):
    """`teacher`: a model folder, of the student's vocabulary; none: the model the recipe began with.

    The rest as of training.Plan. Zeros of a pruned layer stay zero.
    """

    teacher: str = ""


def unsupported(options: Options, source: Source, hardware: Hardware) -> str | None:
    if options.teacher:
        try:
            teacher = model_folder.read_config(_folder(options.teacher))
        except UserError as error:
            return f"teacher: {error}"
        if source.config and (reason := _mismatch(source.config, teacher)):
            return reason
    return training.unsupported_reason(options, source)


def train(folder: Path, teacher: Path, options: Options, out: Path, device: str, work: Path) -> Mapping[str, Any]:
    """Train the model in `folder`; every weight of it, the embedding too."""
    windows = training.text(folder, options)
    model = transformer.load(folder, device)
    guide = transformer.load(_folder(options.teacher) if options.teacher else teacher, device)
    facts = training.run(model, guide if options.alpha > 0 else None, options, windows, device, work)
    transformer.save(model, folder, out, options.dtype)
    windows.write(out)
    return {**windows.facts(), **facts}


def _mismatch(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str | None:
    """Why the one cannot learn from the other."""
    sizes = [model_folder.vocab_size(config) for config in (student, teacher)]
    if sizes[0] != sizes[1]:
        return f"the student's vocabulary has {sizes[0]} entries and its teacher's {sizes[1]}: they must be the same"
    depths = [model_folder.layer_count(config) for config in (student, teacher)]
    if depths[0] > depths[1]:
        return f"the student has {depths[0]} layers and its teacher {depths[1]}: use a teacher at least as deep"
    return None


def _folder(teacher: str) -> Path:
    return Path(teacher.removeprefix("path:")).expanduser()
