"""Print bench/formats/tokenizer_classes.json by the transformers of the interpreter that runs this.

It is made anew with the hf environment's interpreter (`python -m bench env path hf` prints it) when a pin moves:
$PYTHON tests/formats/tokenizer_classes.py > bench/formats/tokenizer_classes.json
"""

from __future__ import annotations

import json

import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

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
    lines = [f'"{name}": {json.dumps(entry, sort_keys=True)}' for name, entry in classes.items()]
    named = {model: kind for model, kind in types.items() if kind in classes}
    print("{")  # noqa: T201
    print(f' "transformers": "{transformers.__version__}",')  # noqa: T201
    print(f' "types": {json.dumps(named, sort_keys=True)},')  # noqa: T201
    print(' "classes": {\n  ' + ",\n  ".join(lines) + "\n }\n}")  # noqa: T201


if __name__ == "__main__":
    main()
