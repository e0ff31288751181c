"""What the hf engine does with small models of many architectures, as one JSON object, by their names.

`python hf_architecture_checks.py DEMO`: each gets the demo model's tokenizer; the current directory is scratch. The
weights are random, and so large that what an architecture forgets would show.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from bench.contract.errors import UserError
from bench.contract.hooks import Prompt, Question
from bench.contract.job import Job
from bench.contract.record import Artifact, Audit
from bench.engines import hf
from bench.process import worker
from eval.scoring import likelihood

_VOCAB, _CONTEXT, _NEW = 4096, 512, 6
_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=_VOCAB, context=_CONTEXT)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
_LARGE = 0.15
_USUAL: dict[str, Any] = {
    "vocab_size": _VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "initializer_range": _LARGE,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_ATTENTION = {**_USUAL, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", {**_USUAL, "state_size": 8}),
    "rwkv": ("RwkvConfig", {**_USUAL, "context_length": _CONTEXT}),
    "jamba": (
        "JambaConfig",
        {**_ATTENTION, "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    ),
    "bamba": (
        "BambaConfig",
        {**_ATTENTION, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16},
    ),
    "bloom": ("BloomConfig", {**_USUAL, "n_layer": 2, "n_head": 4}),
    "gemma2": ("Gemma2Config", {**_ATTENTION, "head_dim": 16, "max_position_embeddings": _CONTEXT}),
    "gptj": ("GPTJConfig", {**_USUAL, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8}),
    "opt": ("OPTConfig", {**_USUAL, "num_attention_heads": 4, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    "bert": ("BertConfig", {**_USUAL, "num_attention_heads": 4, "intermediate_size": 128}),
}


def main(demo: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {name: _checks(name, demo) for name in _MODELS}


def _checks(name: str, demo: Path) -> dict[str, Any]:
    folder = _model_folder(name, demo)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with hf.open(folder, _ARTIFACT, hf.Options(threads=1), "cpu") as session:
        scored = _scored(session, plain) if name != "bert" else {}
        return {**scored, "attention": session.receipts()["attention"], "perplexity": _perplexity(folder)}


def _model_folder(name: str, demo: Path) -> Path:
    torch.manual_seed(0)
    config, settings = _MODELS[name]
    folder = Path(name)
    AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)).save_pretrained(folder)
    for file in demo.glob("*token*.json"):
        shutil.copy(file, folder)
    return folder


def _scored(session: Any, plain: Any) -> dict[str, Any]:
    """The largest difference of logits in blocks of 16 rows, and of choices, from whole passes; and what is greedy."""
    ids = [(31 * i) % 4000 + 5 for i in range(40)]
    prompts = [ids[:3], ids[3:9], ids[9:12]]
    questions = [Question(tuple(ids[:9]), ((1, 2), (3,))), Question(tuple(ids[5:9]), ((4, 5, 6), (7, 8)))]
    session.rows = 16
    with torch.no_grad():
        expected = plain(torch.tensor([ids])).logits[0].numpy()
    logits = np.concatenate([block.logits for block in session.logits(ids)])
    own, by_logits = dict(session.loglikelihood(questions)), dict(likelihood.by_logits(session, questions))
    pairs = [pair for k in own for pair in zip(own[k], by_logits[k], strict=True)]
    continued = likelihood.continued(session, [Prompt(tuple(p), _NEW) for p in prompts], lambda _, __: False)
    return {
        "logits": float(abs(logits - expected).max()),
        "choices": max(abs(a.logprob - b.logprob) for a, b in pairs),
        "continued": [continued[k] for k in range(len(prompts))],
        "greedy": [_greedy(plain, p) for p in prompts],
    }


def _greedy(plain: Any, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(_NEW):
            ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def _perplexity(folder: Path) -> float | str:
    """How far later tokens move earlier logits, where a worker scores it; or why it does not."""
    job = Job(
        kind="score",
        plugin="hf",
        folder=str(folder),
        device="cpu",
        options={"threads": 1},
        answer=str(folder.resolve() / "answer.json"),
        artifact=_ARTIFACT,
        task="perplexity",
        task_options={"context": 64, "tokens": 128},
    )
    try:
        return float(worker.JOBS["score"](job).facts["causal_shift"])
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
