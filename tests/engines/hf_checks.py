"""What the hf engine does on the demo model, as one JSON object; test_hf.py starts it in that environment.

`python hf_checks.py MODEL CORPUS TOKENS`; the current directory is scratch. What is expected is computed here
with Transformers alone, what is observed comes through the engine.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit
from bench.engines import hf
from eval import corpora
from eval.tasks import perplexity
from tests.engines import broken

_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
_NEW = 24


def main(model: Path, corpus: str, tokens: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(model)(corpora.load(corpus).text).input_ids
    prompts = [ids[:40], ids[40:80], ids[80:120]]
    return {
        "perplexity": [_perplexity(plain, ids, model, corpus, tokens, c) for c in (512, 1024)],
        "generate": [_generate(plain, model, prompts[:batch]) for batch in (1, 3)],
        "eos": _eos(plain, model, prompts[0]),
        "variants": [_variant(model, prompts, **o) for o in _VARIANTS],
        "blocks": _blocks(plain, model, ids[:300]),
        "nf4": _nf4(model, prompts[:1]),
        "untied": _untied(plain),
        "served": _served(plain, model),
        "broken": {name: _broken(model, name) for name in ("cut", "lacking", "misshapen", "alien", "bare", "long")},
    }


_VARIANTS: tuple[dict[str, Any], ...] = ({}, {"attention": "eager", "cache": "static"}, {"dtype": "bfloat16"})


def _open(model: Path, **options: Any) -> Any:
    return hf.open(model, _ARTIFACT, hf.Options(threads=1, **options), "cpu")


def _perplexity(plain: Any, ids: list[int], model: Path, corpus: str, tokens: int, context: int) -> Any:
    """Ours, and exp of the mean of the losses that Transformers itself returns for each window."""
    with _open(model) as session:
        options = perplexity.Options(corpus, context, tokens=tokens)
        facts = perplexity.evaluate(session, options, model)
    cut = torch.tensor([ids[: tokens or None]])
    losses = []
    with torch.no_grad():
        for at in range(0, cut.shape[1] - context + 1, context):
            window = cut[:, at : at + context]
            losses.append(plain(window, labels=window).loss.item())
    expected = math.exp(math.fsum(losses) / len(losses))
    return {"context": context, "ours": perplexity.metrics(facts)["perplexity"], "plain": expected}


def _greedy(plain: Any, prompts: list[list[int]]) -> list[list[int]]:
    """One list of ids per step, from whole forward passes without a cache."""
    ids = torch.tensor(prompts)
    with torch.no_grad():
        for _ in range(_NEW):
            best = plain(ids).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
    return ids[:, len(prompts[0]) :].T.tolist()  # type: ignore[no-any-return]


def _generate(plain: Any, model: Path, prompts: list[list[int]]) -> Any:
    with _open(model) as session:
        steps = list(session.generate(prompts, _NEW))
        memory = session.memory()
    config, fed = plain.config, len(prompts[0]) + _NEW - 1
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    return {
        "times": [step.time_s for step in steps],
        "tokens": [list(step.tokens) for step in steps],
        "plain": _greedy(plain, prompts),
        "memory": memory,
        "kv_bytes": len(prompts) * fed * per_token,
        "kv_token_bytes": per_token,
        "weights_bytes": sum(p.nbytes for p in plain.parameters()) + sum(b.nbytes for b in plain.buffers()),
    }


def _eos(plain: Any, model: Path, prompt: list[int]) -> Any:
    """A copy of the model whose end token is the second it makes, for ours and for `generate` as it comes."""
    tokens = [row[0] for row in _greedy(plain, [prompt])]
    folder = broken.folder(model, "eos")
    for name in ("config.json", "generation_config.json"):
        broken.edit(folder / name, eos_token_id=tokens[1], repetition_penalty=1.3)
    stopping = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    output = stopping.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=_NEW)
    with _open(folder) as session:
        ours = [step.tokens[0] for step in session.generate([prompt], _NEW)]
    return {"plain": tokens, "ours": ours, "stopping_steps": output.shape[1] - len(prompt)}


def _served(plain: Any, model: Path) -> Any:
    """A copy of the model that would stop early, a prompt for its server, the text of its greedy tokens."""
    tokenizer, prompt = AutoTokenizer.from_pretrained(model), "import os\n\n\ndef main("
    tokens = [row[0] for row in _greedy(plain, [tokenizer(prompt).input_ids])]
    folder = broken.folder(model, "served")
    for name in ("config.json", "generation_config.json"):
        broken.edit(folder / name, eos_token_id=tokens[3], repetition_penalty=1.3, do_sample=True)
    return {"folder": str(folder.resolve()), "prompt": prompt, "text": tokenizer.decode(tokens)}


def _variant(model: Path, prompts: list[list[int]], **options: Any) -> Any:
    with _open(model, **options) as session:
        tokens = [list(step.tokens) for step in session.generate(prompts, 8)]
        return {"tokens": tokens, "receipts": session.receipts(), "memory": session.memory()}


def _blocks(plain: Any, model: Path, ids: list[int]) -> Any:
    """The largest difference of any logit from one whole pass, in one block and in blocks of 64 rows."""
    with torch.no_grad():
        expected = plain(torch.tensor([ids])).logits[0].numpy()
    results = {}
    with _open(model) as session:
        for rows in (session.rows, 64):
            session.rows = rows
            blocks = list(session.logits(ids))
            worst = max(abs(b.logits - expected[b.start : b.start + len(b.logits)]).max() for b in blocks)
            results[str(len(blocks))] = float(worst)
    return results


def _nf4(model: Path, prompts: list[list[int]]) -> Any:
    """An artifact whose own config asks for bfloat16 arithmetic, opened for float32."""
    request = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    quantized = AutoModelForCausalLM.from_pretrained(model, quantization_config=request, dtype=torch.float32)
    folder = Path("nf4")
    quantized.save_pretrained(folder)
    with _open(folder, dtype="float32") as session:
        steps = list(session.generate(prompts, 4))
        return {"steps": len(steps), "receipts": session.receipts(), "memory": session.memory()}


def _untied(plain: Any) -> Any:
    """Bytes that a step does not read, of the same model with a head of its own."""
    config = copy.deepcopy(plain.config)
    config.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained("untied")
    with _open(Path("untied")) as session:
        return {"unread": session.memory()["unread_bytes"], "table": 4 * config.vocab_size * config.hidden_size}


def _broken(model: Path, how: str) -> str:
    """The sentence a broken artifact (or, for `long`, a prompt that does not fit) is refused with."""
    folder = broken.folder(model, how)
    try:
        with _open(folder) as session:
            list(session.generate([[5] * 1020], 8))
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
