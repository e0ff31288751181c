"""Print bench/formats/tokenizer_classes.json by the transformers of the interpreter that runs this.

It is made anew with the hf environment's interpreter (`python -m bench envs list` shows it) when a pin moves:
HF_PYTHON -m tests.formats.tokenizer_classes > bench/formats/tokenizer_classes.json
"""

from __future__ import annotations

import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from tests.formats.printed_table import show

_GENERIC = {
    *("TokenizersBackend", "PythonBackend", "MistralCommonBackend"),
    *("PreTrainedTokenizer", "PreTrainedTokenizerFast"),
}


def main() -> None:
    types = {
        name: kind.removesuffix("Fast") for name, kind in sorted(TOKENIZER_MAPPING_NAMES.items()) if kind is not None
    }
    names = {*types.values(), *(n for n in dir(transformers) if n.endswith(("Tokenizer", "TokenizerFast")))} - _GENERIC
    classes = {}
    for name in sorted({name.removesuffix("Fast") for name in names}):
        kind = tokenizer_class_from_name(name)
        base = {parent.__name__ for parent in kind.__mro__} if isinstance(kind, type) else set()
        if "PreTrainedTokenizerBase" not in base:  # of a package that is not here
            continue
        files = sorted(file for file in kind.vocab_files_names.values() if file != "tokenizer.json")
        classes[name] = {"files": files, "fast": "TokenizersBackend" in base, "pieces": "SentencePieceBackend" in base}
    named = {model: kind for model, kind in types.items() if kind in classes}
    show("classes", classes, transformers.__version__, types=named)


if __name__ == "__main__":
    main()
