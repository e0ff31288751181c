"""`transformers serve`: its command line, and what its log tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Artifact
from bench.contract.server import Server
from bench.engines.hf.session import Options
from bench.formats import folder as model_folder

STATIC_CACHE = "continuous batching has a cache of its own: turn it off, or leave cache dynamic"
_CPU_KV_BLOCKS, _CPU_BATCH_TOKENS = 128, 2048
# -1 ends nothing; null would be filled in from the checkpoint's settings, as whatever is not named here.
_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "eos_token_id": -1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """`transformers serve`, whose model's name is the folder's path; requests make it greedy, without end tokens.

    It takes no ids. UserError for what it would do otherwise than `open`.
    """
    model_folder.require_weights(folder)
    dtype = options.dtype_on(device)
    _check_dtype(folder, dtype)
    batching = {"on": True, "off": False, "auto": options.cache == "dynamic"}[options.continuous_batching]
    if batching and options.cache == "static":
        raise UserError(STATIC_CACHE)
    flags = {"--host": "127.0.0.1", "--port": port, "--device": device, "--dtype": dtype, "--log-level": "warning"}
    if options.attention != "sdpa":  # which it takes by itself where the architecture has it
        flags["--attn-implementation"] = options.attention
    if batching and (blocks := options.kv_blocks or (_CPU_KV_BLOCKS if device == "cpu" else 0)):
        flags["--cb-num-blocks"] = blocks
    if batching and device == "cpu":  # the attention mask grows with both, and Transformers would take 60%
        flags["--cb-max-batch-tokens"] = _CPU_BATCH_TOKENS
    command = (python, "-m", "transformers.cli.transformers", "serve", str(folder))
    arguments = (str(part) for flag in flags.items() for part in flag)
    argv = (*command, *arguments, *(["--continuous-batching"] * batching))
    variables = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    if options.threads:
        variables["OMP_NUM_THREADS"] = str(options.threads)
    generation = _GREEDY if options.cache == "dynamic" else {**_GREEDY, "cache_implementation": "static"}
    extra = {"ignore_eos": None, "generation_config": json.dumps(generation)}
    ends = {name: value for name, value in generation.items() if name != "eos_token_id"}
    natural = {"generation_config": json.dumps(ends)}
    return Server(argv, str(folder), variables, takes_ids=False, extra=extra, natural=natural)


def read_log(text: str) -> tuple[dict[str, str], dict[str, int]]:
    """(receipts, {}) from the server's log, which tells little; UserError when it made up weights."""
    if missing := re.search(r"^(\S+)\s*\|\s*MISSING\b", text, re.MULTILINE):
        raise UserError(f"the artifact's weights do not fill the model, first {missing[1]}")
    receipts = {}
    if requests := re.findall(r"\[Request received\] .*, CB: (True|False)", text):
        receipts["continuous_batching"] = "on" if requests[-1] == "True" else "off"
    if switches := re.findall(r"Switching from \w+ to (\w+)", text):
        receipts["attention"] = switches[-1]
    return receipts, {}


def _check_dtype(folder: Path, dtype: str) -> None:
    """UserError when the server would compute in the artifact's own dtype, which `open` can override."""
    quantization, stored = model_folder.quantization(model_folder.read_config(folder)), dtype
    if quantization.get("quant_method") == "torchao":
        kind = ((quantization.get("quant_type") or {}).get("default") or {}).get("_type", "")
        if kind == "Int8StaticActivationInt8WeightConfig":
            raise UserError("transformers serve cannot load static activation scales: measure this artifact offline")
        stored = model_folder.stored_dtype(folder)
    elif quantization.get("load_in_4bit"):
        stored = quantization.get("bnb_4bit_compute_dtype", "float32")
    if dtype not in {"auto", stored}:
        raise UserError(f"transformers serve computes this artifact in {stored} only, not in {dtype}")
