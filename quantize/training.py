"""A short training run that repairs what compression broke: for distillation, fine-tuning and QAT.

Seeded, and resumed from checkpoints in the work folder to the same weights. AdamW, linear warm-up, cosine decay to
a tenth; on a CPU in float32, on a GPU in bfloat16 over float32 weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.contract import phase
from bench.contract.record import Source
from eval import corpora
from quantize import calibration, option_checks, transformer

_CHARACTERS_PER_TOKEN = 8  # at most: how much text is tokenized to get enough tokens
_SAVE_EVERY_S, _SAVE_SHARE = 10.0, 0.05  # the least interval, and the most of the run's time that saving may take
_CURVE_POINTS = 40
_FINAL_RATE = 0.1  # of the learning rate
_CLIP, _DECAY, _BETAS = 1.0, 0.0, (0.9, 0.95)
_LOGITS_BYTES = 2**30  # of a pass in float32; the loss and its gradients take about seven times that
_PRUNED = 0.01  # a layer with that share of zeros was pruned


@dataclass(frozen=True)
class Plan:
    """`tokens` of the corpus's training split, in batches of `batch` windows of `length`.

    `alpha`: the share of the divergence from the teacher in the loss, the rest is cross entropy.
    `temperature`: of both distributions, the divergence then times its square (Hinton et al., 2015,
    arXiv:1503.02531). `warmup`: a share of the steps. `dtype`: of what is not quantized; auto: as the source's.
    """

    alpha: float = 1.0
    temperature: float = 1.0
    corpus: str = "stdlib"
    tokens: int = 65536
    length: int = 256
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: float = 0.1
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.length)


def unsupported_reason(plan: Plan, source: Source) -> str | None:
    """Why the source cannot be trained by this plan."""
    problems = {
        f"tokens {plan.tokens} are less than one batch of {plan.batch} x {plan.length}": plan.steps < 1,
        "batch and length start at 1 and 2": plan.batch < 1 or plan.length < 2,
        f"alpha {plan.alpha:g} is a share, from 0 to 1": not 0 <= plan.alpha <= 1,
        f"warmup {plan.warmup:g} is a share of the steps, from 0 to 1": not 0 <= plan.warmup <= 1,
        "temperature and learning_rate are above zero": min(plan.temperature, plan.learning_rate) <= 0,
    }
    reason = next((text for text, holds in problems.items() if holds), None)
    return reason or option_checks.sample_length(source, plan.length)


def run(
    student: Any, teacher: Any, plan: Plan, windows: calibration.Calibration, device: str, work: Path
) -> dict[str, Any]:
    """Train `student` in place; return facts to record. `teacher` is None with alpha 0. Pruned weights stay zero."""
    import torch

    torch.manual_seed(plan.seed)
    student.train()
    trained = [p for p in student.parameters() if p.requires_grad]
    masks = _pruned_weights(student)
    optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, betas=_BETAS, weight_decay=_DECAY)
    state = _State(work, plan.steps, student, optimizer)
    while state.step < plan.steps:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _rate(state.step / plan.steps, plan.warmup)
        rows = windows.ids[state.step * plan.batch : (state.step + 1) * plan.batch]
        loss = _backward(student, teacher, torch.tensor(rows, device=device), plan)
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, mask in masks:
                weight.mul_(mask)
        state.add(loss)
    student.eval()
    return {
        **state.facts(),
        "train_tokens": plan.steps * plan.batch * plan.length,
        "trained_parameters": sum(p.numel() for p in trained),
        "layers_kept_sparse": len(masks),
    }


def text(folder: Path, plan: Plan) -> calibration.Calibration:
    """The windows of a run, in the order they are trained on, from the split that nothing else reads."""
    import random

    whole = corpora.load(plan.corpus, "train")
    part = corpora.Corpus(whole.name, whole.split, whole.text[: _CHARACTERS_PER_TOKEN * plan.tokens])
    windows = calibration.cut(folder, part, plan.steps * plan.batch, plan.length, plan.seed)
    ids = list(windows.ids)
    random.Random(plan.seed).shuffle(ids)  # noqa: S311  (reproducible, not secret)
    return replace(windows, ids=tuple(ids))


def _backward(student: Any, teacher: Any, ids: Any, plan: Plan) -> float:
    """Add the gradients of a batch, in parts that a large vocabulary leaves memory for; the batch's loss."""
    row_bytes = 4 * plan.length * student.get_output_embeddings().weight.shape[0]
    total = 0.0
    for part in ids.split(max(1, _LOGITS_BYTES // row_bytes)):
        loss = _loss(student, teacher, part, plan) * (len(part) / len(ids))
        loss.backward()
        total += loss.item()
    return total


def _loss(student: Any, teacher: Any, ids: Any, plan: Plan) -> Any:
    """Nats per token: alpha x T^2 x KL(teacher || student) at temperature T + (1 - alpha) x cross entropy."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    on_gpu = ids.device.type == "cuda"
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=on_gpu):
        logits = student(input_ids=ids, use_cache=False).logits[:, :-1].float().flatten(0, 1)
    loss = logits.new_zeros(())
    if plan.alpha < 1:
        loss = (1 - plan.alpha) * cross_entropy(logits, ids[:, 1:].flatten())
    if plan.alpha > 0:
        with torch.no_grad(), torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            target = teacher(input_ids=ids, use_cache=False).logits[:, :-1].float().flatten(0, 1)
        pair = [log_softmax(part / plan.temperature, dim=-1) for part in (logits, target)]
        divergence = kl_div(*pair, reduction="batchmean", log_target=True)
        loss = loss + plan.alpha * plan.temperature**2 * divergence
    return loss


def _rate(done: float, warmup: float) -> float:
    """The learning rate's factor when that share of the steps is done."""
    if done < warmup:
        return (done + 1e-3) / warmup if warmup else 1.0
    decayed = (done - warmup) / max(1 - warmup, 1e-9)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * decayed))


def _pruned_weights(model: Any) -> list[tuple[Any, Any]]:
    """The weights of pruned layers, each with the mask of its nonzero entries."""
    pairs = [(layer.weight, layer.weight.detach() != 0) for layer in transformer.linears(model).values()]
    return [(weight, mask) for weight, mask in pairs if float((~mask).float().mean()) > _PRUNED]


class _State:
    """How far the run is: saved in the work folder."""

    def __init__(self, work: Path, steps: int, model: Any, optimizer: Any) -> None:
        self._file = work / "last.pt"
        self._steps, self._model, self._optimizer = phase.Steps("step {done} of {total}", steps), model, optimizer
        self.step, self._losses, self._earlier_s = 0, list[float](), 0.0
        self._resumed: list[int] = []
        self._resume()
        self._began = self._saved_at = time.monotonic()
        self._save_s = 0.0  # how long the last one took
        self._steps.at(self.step)

    def add(self, loss: float) -> None:
        """One more step; a loss that is not finite ends the run."""
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is {loss} at step {self.step}: lower learning_rate")
        self.step += 1
        self._losses.append(loss)
        self._steps.at(self.step, f"loss {loss:.3f}")
        now = time.monotonic()
        if now - self._saved_at > max(_SAVE_EVERY_S, self._save_s / _SAVE_SHARE):
            self._save()
            self._saved_at = time.monotonic()
            self._save_s = self._saved_at - now

    def facts(self) -> dict[str, Any]:
        size = max(1, len(self._losses) // _CURVE_POINTS)
        parts = [self._losses[i : i + size] for i in range(0, len(self._losses), size)]
        curve = [[min((i + 1) * size, self.step), sum(p) / len(p)] for i, p in enumerate(parts)]
        return {
            "train_steps": self.step,
            "train_s": self._total_s(),
            "loss_curve": curve,
            "resumed_at_steps": self._resumed,
        }

    def _total_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    def _save(self) -> None:
        import torch

        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": self._losses,
            "spent_s": self._total_s(),
            "resumed": self._resumed,
        }
        part = self._file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._file)

    def _resume(self) -> None:
        """Go on from the last save of an interrupted run of the same step."""
        import torch

        if not self._file.is_file():
            return
        state: Mapping[str, Any] = torch.load(self._file, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._losses, self._earlier_s = state["step"], state["losses"], state["spent_s"]
        self._resumed = [*state["resumed"], self.step]
