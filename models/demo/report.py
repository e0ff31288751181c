"""The figures of the model card: held-out perplexity beside a unigram model's, and what the model writes.

python -m models.demo.report      # in the hf environment; prints Markdown
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from eval import corpora

HERE = Path(__file__).parent
CONTEXT, PROMPTS, NEW_TOKENS = 1024, ("def ", "class Reader:\n    def __init__(self, ", "    try:\n"), 64


def unigram_perplexity(train: list[int], held: list[int], vocabulary: int) -> float:
    """Add-one smoothed: exp of the mean -log((count + 1) / (train tokens + vocabulary))."""
    counts, total = Counter(train), len(train) + vocabulary
    return math.exp(-sum(math.log((counts[i] + 1) / total) for i in held) / len(held))


@torch.no_grad()
def perplexity(model: Any, ids: list[int]) -> float:
    """Full windows of 1,024 tokens that do not overlap, the first token of each unscored (`hf-1024`)."""
    rows = torch.tensor(ids[: len(ids) // CONTEXT * CONTEXT]).view(-1, CONTEXT)
    losses = [model(input_ids=row[None], labels=row[None]).loss.item() for row in rows]
    return math.exp(sum(losses) / len(losses))


def encode(tokenizer: Tokenizer, split: corpora.Split) -> list[int]:
    return [i for _, text in corpora.stdlib_modules(split) for i in tokenizer.encode(text).ids]


def main() -> None:
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32).eval()
    train, held = encode(tokenizer, "train"), encode(tokenizer, "evaluation")
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters; {len(held):,} held-out tokens")
    print(f"perplexity hf-{CONTEXT} on the evaluation split: {perplexity(model, held):.2f}")
    print(f"unigram perplexity on it: {unigram_perplexity(train, held, tokenizer.get_vocab_size()):.1f}")
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        made = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0].tolist()
        print(f"\n```python\n{tokenizer.decode(made)}\n```")


if __name__ == "__main__":
    main()
