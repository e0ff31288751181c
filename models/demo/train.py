"""Train the demo model from nothing but this machine's Python standard library.

    python -m models.demo.train --work ~/demo-train                # an hour on 2 cores; run again to resume
    python -m models.demo.train --work ~/demo-train --export-only  # write the best checkpoint so far

The model exists so that every compression method and engine can be run, checked and timed with no download.
Its shape is chosen to fit all of them: hidden and intermediate sizes are multiples of 256 (K-quants,
Marlin), grouped queries, tied head, a SentencePiece tokenizer with byte fallback (the GGUF converter needs
`tokenizer.model`).

Needs torch, transformers, sentencepiece, numpy. Evaluation and calibration modules (see eval.corpora) are
never read, except the first 64 Ki tokens of the calibration split, on which the best checkpoint is picked.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizerFast

from eval import corpora

HERE = Path(__file__).parent
VOCAB, CONTEXT = 4096, 1024
BATCH, STEPS, WARMUP, DECAY_FROM = 8, 2100, 60, 0.35
SPLIT_FROM, SPLIT_SHARE = 2000, 0.03  # step, share of words
LEARNING_RATE, FLOOR, WEIGHT_DECAY, SEED = 4e-3, 0.02, 0.1, 1234
EVALUATE_EVERY, VALIDATION_TOKENS = 100, 65536


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )


def train_tokenizer(work: Path) -> None:
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2

    if (work / "tokenizer.model").exists():
        return
    lines = (line for _, text in corpora.stdlib_modules("train") for line in text.splitlines() if line.strip())
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(work / "building"),
        model_type="bpe",
        vocab_size=VOCAB,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=0.9995,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=2,
        minloglevel=2,
    )
    made = sentencepiece_model_pb2.ModelProto.FromString((work / "building.model").read_bytes())
    made.trainer_spec.model_prefix = "tokenizer"  # not this machine's path
    (work / "tokenizer.model").write_bytes(made.SerializeToString())


def tokenize(work: Path, split: corpora.Split, *, tests: bool) -> np.ndarray[Any, Any]:
    """Token ids of a split as one uint16 array, each module opened by BOS; kept in the work folder."""
    import sentencepiece as spm

    kept = work / f"{split}.npy"
    if not kept.exists():
        pieces = spm.SentencePieceProcessor(model_file=str(work / "tokenizer.model"))
        ids = [i for _, text in corpora.stdlib_modules(split, tests=tests) for i in [1, *pieces.encode(text)]]
        np.save(kept, np.array(ids, dtype=np.uint16))
    return np.load(kept)


def learning_rate(step: int) -> float:
    """Linear warm-up, flat, then linear decay to a small floor (WSD): a resumed run may be made longer."""
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    progress = (step / STEPS - DECAY_FROM) / (1 - DECAY_FROM)
    return LEARNING_RATE * (1 - (1 - FLOOR) * min(max(progress, 0.0), 1.0))


def batch_at(tokens: np.ndarray[Any, Any], step: int, parts: np.ndarray[Any, Any]) -> torch.Tensor:
    """The batch of a step, by the step's own seed: a resumed run sees what an unbroken one would have.

    In the last steps some words are cut behind their leading space, so that a prompt may end in a space:
    `def ` is two tokens where `def f` has its space in the second word.
    """
    draw = np.random.default_rng((SEED, step))
    rows = [tokens[s : s + CONTEXT + 1] for s in draw.integers(0, len(tokens) - CONTEXT - 1, BATCH)]
    if step >= SPLIT_FROM:
        rows = [cut_words(row, parts, draw)[: CONTEXT + 1] for row in rows]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def cut_words(row: np.ndarray[Any, Any], parts: np.ndarray[Any, Any], draw: np.random.Generator) -> Any:
    """Token ids with a share of the words cut in two; parts[id] is the word without its space, or -1."""
    cut = (parts[row] >= 0) & (draw.random(len(row)) < SPLIT_SHARE)
    out = np.repeat(row, 1 + cut)
    second = np.cumsum(1 + cut)[cut] - 1
    out[second - 1], out[second] = parts[-1], parts[row[cut]]
    return out


def words_without_space(work: Path) -> np.ndarray[Any, Any]:
    """parts[id]: the id of the piece without its leading space, or -1; the last entry is the space itself."""
    import sentencepiece as spm

    pieces = spm.SentencePieceProcessor(model_file=str(work / "tokenizer.model"))
    space, parts = pieces.piece_to_id("\u2581"), np.full(VOCAB + 1, -1, dtype=np.int64)
    for i in range(VOCAB):
        piece = pieces.id_to_piece(i)
        word = piece.removeprefix("\u2581")
        if piece != word and word and not word.startswith("\u2581"):
            found = pieces.piece_to_id(word)
            parts[i] = found if found != pieces.unk_id() else -1
    parts[VOCAB] = space
    return parts


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    # bfloat16 products double the speed where the CPU has them, and are 25 times slower where it has not.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: Any, tokens: np.ndarray[Any, Any]) -> float:
    rows = len(tokens) // (CONTEXT + 1)
    ids = torch.from_numpy(tokens[: rows * (CONTEXT + 1)].reshape(rows, -1).astype(np.int64))
    return sum(loss_of(model, part).item() * len(part) for part in ids.split(8)) / rows


def optimizers(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(work: Path, steps_now: int | None) -> None:
    tokens = tokenize(work, "train", tests=True)
    held_out = tokenize(work, "calibration", tests=False)[:VALIDATION_TOKENS]
    parts = words_without_space(work)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config())
    opts = optimizers(model)
    start, best, minutes = 0, math.inf, 0.0
    last = work / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        start, best, minutes = state["step"], state["best"], state["minutes"]
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {len(tokens):,} training tokens, from step {start} of {STEPS}", flush=True)
    compiled = torch.compile(model)
    began, losses = time.monotonic(), []
    for step in range(start, min(STEPS, start + (steps_now or STEPS))):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = learning_rate(step)
        loss = loss_of(compiled, batch_at(tokens, step, parts))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % EVALUATE_EVERY == 0 or step + 1 == STEPS:
            model.eval()
            held = validation_loss(model, held_out)
            model.train()
            spent = minutes + (time.monotonic() - began) / 60
            row = [step + 1, (step + 1) * BATCH * CONTEXT, f"{np.mean(losses):.4f}", f"{held:.4f}", f"{spent:.1f}"]
            print(*row, flush=True)
            note(work / "loss.csv", row)
            losses = []
            if held < best:
                best = held
                replace(work / "best.pt", {"model": model.state_dict(), "step": step + 1, "loss": held})
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts]}
            replace(last, {**state, "step": step + 1, "best": best, "minutes": spent})


def note(path: Path, row: list[Any]) -> None:
    """Append a row to the loss curve, dropping rows of a run that was interrupted after it wrote them."""
    rows = list(csv.reader(path.open()))[1:] if path.exists() else []
    rows = [r for r in rows if int(r[0]) < row[0]] + [row]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["step", "tokens", "train_loss", "held_out_loss", "minutes"], *rows])


def replace(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def export(work: Path, out: Path) -> None:
    """Write the best checkpoint as a Hugging Face folder.

    Float16, which every GPU and GGUF's f16 hold exactly.
    """
    state = torch.load(work / "best.pt", weights_only=True)
    model = LlamaForCausalLM(config())
    model.load_state_dict(state["model"])
    model.half().save_pretrained(out)
    (out / "tokenizer.model").write_bytes((work / "tokenizer.model").read_bytes())
    (out / "tokenizer.json").unlink(missing_ok=True)  # an older one would be read in place of tokenizer.model
    LlamaTokenizerFast.from_pretrained(out, model_max_length=CONTEXT, add_bos_token=True).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    (out / "loss.csv").write_bytes((work / "loss.csv").read_bytes())
    print(json.dumps({"step": state["step"], "held_out_loss": round(state["loss"], 4)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and tokens, kept for resuming")
    parser.add_argument("--steps", type=int, help="stop after this many steps of this call")
    parser.add_argument("--out", type=Path, default=HERE, help="where the exported model goes")
    parser.add_argument("--export-only", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.export_only:
        train_tokenizer(args.work)
        train(args.work, args.steps)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
