"""The weights in a GGUF file as a Transformers model: dequantized, with its config, and compared with llama.cpp."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError, first_line
from bench.formats import gguf_reader, gguf_tokenizer
from bench.formats.gguf_reader import Gguf
from eval import corpora
from quantize.backends import gguf_converter, llama_cpp
from quantize.first_token import replaced

_LARGEST_KL = 0.02  # nats a token: what a lost setting costs is more, what llama.cpp's 8-bit activations cost far less
_FIRST, _TOKENS, _MOST_TOKENS = 16, 256, 1152  # compared: beyond a sliding window where there is one
_ROWS = 64
_CHARACTERS = 20_000
_FACTORS, _OF_HEADS = "rope_freqs.weight", 8192  # Llama 3.1's and later: by its original context
_REMEDY = "name the model that it was made from, or run the file itself in llamacpp (recipe as-is)"


def write(file: Path, out: Path) -> dict[str, Any]:
    """Write a model folder in float32; the record of how far it is from llama.cpp on the same file.

    UserError where Transformers has no class for the model, where the file lacks one of its tensors, and where the two
    do not predict alike: what is left out of the file shows there.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()
    stored = gguf_reader.read(file)
    with _single(stored) as single:
        model = _model(single, stored)
        phase.begin("writing the model")
        model.save_pretrained(out)
        gguf_tokenizer.write(single, out)
        gguf_converter.write_vocabulary(single, out / llama_cpp.VOCABULARY_FILE)
    dequantized = time.perf_counter()
    phase.begin("comparing with llama.cpp")
    kl, tokens = _divergence(stored, out, model)
    if not kl <= _LARGEST_KL:
        raise UserError(
            f"{file.name} predicts other tokens as Transformers' {type(model).__name__} than in llama.cpp, by {kl:.3g} "
            f"nats a token where {_LARGEST_KL} is the most for one model: {_REMEDY}"
        )
    return {
        "source_type": stored.file_type,
        "class": type(model).__name__,
        "dequantize_s": dequantized - began,
        "compare_s": time.perf_counter() - dequantized,
        "compared_tokens": tokens,
        "kl_from_llama_cpp": kl,
    }


@contextmanager
def _single(stored: Gguf) -> Iterator[Path]:
    """The file, or the parts of a split one copied into one."""
    if len(stored.files) == 1:
        yield stored.files[0]
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        whole = Path(folder) / "model.gguf"
        with llama_cpp.error_log() as errors:
            llama_cpp.copy(stored.files[0], whole, errors)
        yield whole


def _model(file: Path, stored: Gguf) -> Any:
    """The causal language model, float32, with every tensor of the file in it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, modeling_gguf_pytorch_utils
    from transformers.initialization import no_init_weights
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        for name, value in _rope_settings(file, stored, config).items():
            setattr(config, name, value)
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with replaced(modeling_gguf_pytorch_utils, "tqdm", phase.bar("tensor {n} of {total}")):
            tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{file.name}: Transformers cannot read a GGUF file of architecture {stored.architecture} "
            f"({type(error).__name__}: {first_line(error)}): {_REMEDY}"
        ) from error
    missing = set(model.load_state_dict(tensors, strict=False, assign=True).missing_keys)
    missing -= set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    if missing:
        raise UserError(f"{file.name} holds no {min(missing)}, as Transformers calls it: {_REMEDY}")
    model.tie_weights()
    return model.eval()


def _rope_settings(file: Path, stored: Gguf, config: Any) -> dict[str, Any]:
    """Settings of rotary positions that Transformers leaves in the file: linear and YaRN scaling, Llama 3's factors."""
    own = {k.removeprefix(f"{stored.architecture}.rope.scaling."): v for k, v in stored.metadata.items()}
    rope, kind = dict(config.rope_parameters or {}), own.get("type", "none")
    longest = own.get("original_context_length")
    if kind in ("linear", "yarn") and "factor" in own:
        rope |= {"rope_type": kind, "factor": own["factor"]}
        rope |= {"original_max_position_embeddings": longest} if kind == "yarn" and longest else {}
    elif _FACTORS in stored.tensors:
        rope |= _llama3(file, config)
    else:
        return {}
    return {"rope_parameters": rope}


def _llama3(file: Path, config: Any) -> dict[str, Any]:
    """The setting whose factors by frequency are the file's: all of Llama's have these bounds."""
    import numpy as np
    import torch
    from gguf import GGUFReader
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    tensors = {tensor.name: tensor.data for tensor in GGUFReader(str(file)).tensors}
    factors = np.asarray(tensors[_FACTORS], np.float64)
    rope = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": _OF_HEADS,
    }
    plain = 1.0 / config.rope_parameters["rope_theta"] ** (np.arange(0, 2 * len(factors), 2) / (2 * len(factors)))
    config.rope_parameters = {**config.rope_parameters, **rope}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if not np.allclose(plain / scaled.numpy(), factors, rtol=1e-3):
        raise UserError(f"{file.name} has rotary factors ({_FACTORS}) that are not Llama 3's: {_REMEDY}")
    return rope


def _divergence(stored: Gguf, out: Path, model: Any) -> tuple[float, int]:
    """The mean KL divergence of llama.cpp's predictions from the model's, in nats, and over how many tokens."""
    import torch
    from llama_cpp import Llama
    from transformers import AutoTokenizer

    window = stored.metadata.get(f"{stored.architecture}.attention.sliding_window", 0)
    count = min(max(_TOKENS, _TOKENS + window), _MOST_TOKENS, stored.context or _TOKENS)
    text = corpora.load("stdlib").text[:_CHARACTERS]
    ids = AutoTokenizer.from_pretrained(out, local_files_only=True).encode(text)[:count]
    llama = Llama(str(stored.files[0]), n_ctx=len(ids), n_batch=len(ids), logits_all=True, verbose=False)
    llama.eval(ids)
    total = 0.0
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        for start in range(_FIRST, len(ids), _ROWS):
            rows = slice(start, start + _ROWS)
            other = torch.from_numpy(llama.scores[: len(ids)][rows]).double().log_softmax(-1)
            ours = logits[rows].double().log_softmax(-1)
            total += float((ours.exp() * (ours - other)).sum())
    llama.close()
    return total / (len(ids) - _FIRST), len(ids) - _FIRST
