"""A short training run that mends what compression broke: for distillation, fine-tuning and QAT alike.

Seeded, and resumable: what was trained is kept in the work folder at intervals, and a run that was
interrupted goes on from there to the same weights. AdamW, linear warm-up and cosine decay to a tenth; on a
CPU in float32, on a GPU in bfloat16 over float32 weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.record import Source
from eval import corpora
from quantize import calibration, transformer

_CHARACTERS = 8  # of text a token, at the most: what is read to find enough tokens
_SAVED_S, _SAVED_SHARE, _TOLD_S = 10.0, 0.05, 2.0
_POINTS = 40  # of the loss curve
_FLOOR = 0.1  # of the learning rate, at the end
_CLIP, _DECAY, _BETAS = 1.0, 0.0, (0.9, 0.95)
_SPARSE = 0.01  # a layer with that share of zeros was pruned


@dataclass(frozen=True)
class Plan:
    """`tokens` of text in batches of `batch` windows of `length`.

    `alpha`: the share of the divergence from the teacher in the loss; the rest is cross entropy.
    `temperature`: of both distributions, the divergence then times its square (Hinton et al., 2015,
    arXiv:1503.02531).
    """

    corpus: str
    tokens: int
    length: int
    batch: int
    learning_rate: float
    warmup: float
    alpha: float
    temperature: float
    seed: int

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.length)


def plan(options: Any) -> Plan:
    """The plan that a method's options name, which are called as the plan's fields are."""
    return Plan(**{field.name: getattr(options, field.name) for field in fields(Plan)})


def unfit(plan: Plan, source: Source) -> str | None:
    """Why it cannot be trained so."""
    wrong = {
        f"tokens {plan.tokens} are less than one batch of {plan.batch} x {plan.length}": plan.steps < 1,
        "batch and length start at 1 and 2": plan.batch < 1 or plan.length < 2,
        f"alpha {plan.alpha:g} is a share, from 0 to 1": not 0 <= plan.alpha <= 1,
        f"warmup {plan.warmup:g} is a share of the steps, from 0 to 1": not 0 <= plan.warmup <= 1,
        "temperature and learning_rate are above zero": min(plan.temperature, plan.learning_rate) <= 0,
    }
    reason = next((text for text, is_so in wrong.items() if is_so), None)
    return reason or calibration.unsupported_length(source, plan.length)


def run(
    student: Any, teacher: Any, plan: Plan, seen: calibration.Calibration, device: str, work: Path
) -> dict[str, Any]:
    """Train `student` in place, and return what is worth recording. `teacher` may be None with alpha 0.

    Weights that are zero in a pruned layer stay zero.
    """
    import torch

    torch.manual_seed(plan.seed)
    student.train()
    trained = [p for p in student.parameters() if p.requires_grad]
    masks = _zeros(student)
    optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, betas=_BETAS, weight_decay=_DECAY)
    state = _Progress(work, plan.steps, student, optimizer)
    while state.step < plan.steps:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _rate(state.step / plan.steps, plan.warmup)
        rows = seen.ids[state.step * plan.batch : (state.step + 1) * plan.batch]
        loss = _loss(student, teacher, torch.tensor(rows, device=device), plan)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, mask in masks:
                weight.mul_(mask)
        state.done(loss.item())
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
    part = corpora.Corpus(whole.name, whole.split, whole.text[: _CHARACTERS * plan.tokens])
    found = calibration.cut(folder, part, plan.steps * plan.batch, plan.length, plan.seed)
    ids = list(found.ids)
    random.Random(plan.seed).shuffle(ids)  # noqa: S311  (reproducible, not secret)
    return calibration.Calibration(found.corpus, found.sha256, found.paragraphs, tuple(ids))


def _loss(student: Any, teacher: Any, ids: Any, plan: Plan) -> Any:
    """Nats per token: alpha x T^2 x KL(teacher || student) at temperature T + (1 - alpha) x cross entropy."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    on_gpu = ids.device.type == "cuda"
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=on_gpu):
        own = student(input_ids=ids, use_cache=False).logits[:, :-1].float().flatten(0, 1)
    loss = own.new_zeros(())
    if plan.alpha < 1:
        loss = (1 - plan.alpha) * cross_entropy(own, ids[:, 1:].flatten())
    if plan.alpha > 0:
        with torch.no_grad(), torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            wanted = teacher(input_ids=ids, use_cache=False).logits[:, :-1].float().flatten(0, 1)
        pair = [log_softmax(logits / plan.temperature, dim=-1) for logits in (own, wanted)]
        distance = kl_div(*pair, reduction="batchmean", log_target=True)
        loss = loss + plan.alpha * plan.temperature**2 * distance
    return loss


def _rate(done: float, warmup: float) -> float:
    """The learning rate's factor when that share of the steps is done."""
    if done < warmup:
        return (done + 1e-3) / warmup if warmup else 1.0
    turned = (done - warmup) / max(1 - warmup, 1e-9)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * turned))


def _zeros(model: Any) -> list[tuple[Any, Any]]:
    """The weights of pruned layers, with a mask of what is not zero."""
    found = []
    for layer in transformer.linears(model).values():
        kept = layer.weight.detach() != 0
        if float((~kept).float().mean()) > _SPARSE:
            found.append((layer.weight, kept))
    return found


class _Progress:
    """How far the run is, kept in the work folder and told in its file `progress`."""

    def __init__(self, work: Path, steps: int, model: Any, optimizer: Any) -> None:
        self._file, self._told = work / "last.pt", work / "progress"
        self._steps, self._model, self._optimizer = steps, model, optimizer
        self.step, self._losses, self._spent = 0, list[float](), 0.0
        self._resumed: list[int] = []
        self._resume()
        self._began = self._saved_at = self._told_at = time.monotonic()
        self._first, self._save_s = self.step, 0.0  # how long keeping it took last

    def done(self, loss: float) -> None:
        """One more step; a loss that is no number ends the run."""
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is {loss} at step {self.step}: lower learning_rate")
        self.step += 1
        self._losses.append(loss)
        now = time.monotonic()
        if now - self._told_at > _TOLD_S:
            self._told_at = now
            left = (now - self._began) / (self.step - self._first) * (self._steps - self.step)
            wire.write(self._told, f"step {self.step} of {self._steps}, loss {loss:.3f}, about {left:.0f} s left")
        if now - self._saved_at > max(_SAVED_S, self._save_s / _SAVED_SHARE):
            self._save()
            self._saved_at = time.monotonic()
            self._save_s = self._saved_at - now

    def facts(self) -> dict[str, Any]:
        each = max(1, len(self._losses) // _POINTS)
        parts = [self._losses[i : i + each] for i in range(0, len(self._losses), each)]
        curve = [[min((i + 1) * each, self.step), sum(p) / len(p)] for i, p in enumerate(parts)]
        return {
            "train_steps": self.step,
            "train_s": self._spent_now(),
            "loss_curve": curve,
            "resumed_at_steps": self._resumed,
        }

    def _spent_now(self) -> float:
        return self._spent + time.monotonic() - self._began

    def _save(self) -> None:
        import torch

        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": self._losses,
            "spent_s": self._spent_now(),
            "resumed": self._resumed,
        }
        beside = self._file.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(self._file)

    def _resume(self) -> None:
        """Go on from what an interrupted run of the same step left."""
        import torch

        if not self._file.is_file():
            return
        state: Mapping[str, Any] = torch.load(self._file, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._losses, self._spent = state["step"], state["losses"], state["spent_s"]
        self._resumed = [*state["resumed"], self.step]
