"""Model folders with the demo's weights whose tokenizer is in the files of older libraries.

By itself it is a program for the hf environment, which trains SentencePiece models of seven kinds and converts each:
`$PYTHON tests/formats/tokenizer_folders.py FOLDER` prints, by kind, [text, ids by SentencePiece, ids by tokenizer.json]
for every text, and for the text "" the tokens put around it.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
DEMO = _ROOT / "models" / "demo"
TEXTS = (
    "Hello  world",
    "runs   of \t\t  whitespace \n\n\n        and its end   ",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467 \u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \uac00",
    "a\u00a0b\u3000c \u00bd \ufb01 \u00b2 e\u0301 \u00e9 \ue000 \r\n",
    "def f(x_1):\n    return {'key': [1234, 5.6]}  # don't\n",
    "x",
    "",
)
_IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {  # the trainer's settings, then type and class
    "as Llama": ({"model_type": "bpe", "byte_fallback": True, **_IDENTITY}, "llama", "LlamaTokenizer"),
    "as Mistral": ({"model_type": "bpe", "byte_fallback": True, **_IDENTITY}, "mistral", "LlamaTokenizer"),
    "class unnamed": ({"model_type": "bpe", "byte_fallback": True, **_IDENTITY}, "llama", ""),
    "no first space": (
        {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **_IDENTITY},
        "gemma",
        "GemmaTokenizer",
    ),
    "no bytes": ({"model_type": "bpe", **_IDENTITY}, "llama", "LlamaTokenizer"),
    "own symbols": (
        {"model_type": "bpe", "byte_fallback": True, "user_defined_symbols": ["<|x|>", "\u2581" * 4], **_IDENTITY},
        "llama",
        "LlamaTokenizer",
    ),
    "unigram, normalized": ({"model_type": "unigram"}, "llama", "LlamaTokenizer"),
}


def model(folder: Path) -> Path:
    """The demo's config and weights, without a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(DEMO / name, folder / name)
    return folder


def of_pieces(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """As Llama 2 was published, without its tokenizer.json: tokenizer.model alone, and maybe its settings."""
    shutil.copyfile(DEMO / "tokenizer.model", model(folder) / "tokenizer.model")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def of_merges(folder: Path, tokenizer_class: str = "GPT2Tokenizer") -> Path:
    """As GPT-2 was published: a byte-level vocab.json and merges.txt, here trained on the demo's README."""
    tokenizer = byte_level()
    tokenizer.model.save(str(model(folder)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    return folder


def byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(DEMO / "README.md"), str(DEMO / "train.py")], trainer)
    return tokenizer


def main(scratch: Path) -> None:
    import sentencepiece
    from tokenizers import Tokenizer

    from bench.formats import tokenizer_conversion

    printed = {}
    for number, (kind, (settings, model_type, tokenizer_class)) in enumerate(KINDS.items()):
        folder, out = scratch / f"m{number}", scratch / f"out{number}"
        folder.mkdir()
        out.mkdir()
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=[str(DEMO / "README.md"), str(DEMO / "train.py"), str(_ROOT / "README.md")],
            model_writer=written,
            vocab_size=600,
            minloglevel=2,
            **settings,
        )
        (folder / "tokenizer.model").write_bytes(written.getvalue())
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        if tokenizer_class:
            (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
        tokenizer_conversion.convert(folder, out)
        made = Tokenizer.from_file(str(out / "tokenizer.json"))
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        ids = [[text, processor.encode(text), made.encode(text, add_special_tokens=False).ids] for text in TEXTS]
        printed[kind] = {
            "ids": ids,
            "around": made.encode("").tokens,
            "config": (out / "tokenizer_config.json").exists(),
        }
    print(json.dumps(printed))  # noqa: T201


if __name__ == "__main__":
    sys.path.insert(0, str(_ROOT))
    main(Path(sys.argv[1]))
