"""Whether a tokenizer's ids have rows in the model's embedding: one that has none ends an engine's process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats import tokenizer_files

_TOKENIZER = tokenizer_files.FAST
_LARGEST = 1 << 27
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)


def require_rows(folder: Path) -> None:
    """UserError where text can give ids that the embedding has no row for, as far as the files say.

    Special tokens that no text and no template of the tokenizer gives (a padding token) may lie beyond.
    """
    if not (folder / model_folder.CONFIG).is_file() or not (rows := _rows(folder)):
        return
    if (folder / _TOKENIZER).is_file():
        tokens = _tokens(folder / _TOKENIZER)
    elif not tokenizer_files.unusable(folder) and (form := tokenizer_files.form(folder)):
        tokens = iter(tokenizer_files.vocabulary(folder, form).items())
    else:
        return
    beyond = [(token, number) for token, number in tokens if number >= rows]
    if beyond:
        token, number = max(beyond, key=lambda pair: pair[1])
        raise UserError(
            f"{folder.name}: its tokenizer gives ids up to {number} ({token[:40]!r}), and the model's embedding has "
            f"{rows} rows: they are not of one model; use the model's own tokenizer, or resize its embedding"
        )


def _rows(folder: Path) -> int:
    """Of the stored embedding; by the config where none is stored under a name known here; 0 where nothing says."""
    if any(folder.glob("*.safetensors")):
        for name, tensor in model_folder.read_headers(folder).tensors.items():
            if name.endswith(_EMBEDDINGS) and len(tensor.shape) == 2 and "vision" not in name:
                return tensor.shape[0]
    return model_folder.vocab_size(model_folder.read_config(folder))


def _tokens(file: Path) -> Iterator[tuple[str, int]]:
    """Tokens that a text may be cut into, and those that the tokenizer adds around it, with their ids."""
    try:
        tokenizer = wire.read_json(file, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read: {error}") from None
    if not isinstance(tokenizer, dict):
        raise UserError(f"{file.parent.name}/{file.name} is not a JSON object")
    model = _mapping(tokenizer.get("model"))
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        yield from ((token, number) for token, number in vocabulary.items() if isinstance(number, int))
    elif isinstance(vocabulary, list) and vocabulary:  # a unigram model's, in the order of ids
        yield str(vocabulary[-1])[:40], len(vocabulary) - 1
    added = tokenizer.get("added_tokens")
    for entry in map(_mapping, added if isinstance(added, list) else ()):
        if not entry.get("special") and isinstance(entry.get("id"), int):
            yield str(entry.get("content")), entry["id"]
    for token, special in _mapping(_mapping(tokenizer.get("post_processor")).get("special_tokens")).items():
        numbers = _mapping(special).get("ids")
        yield from ((token, n) for n in (numbers if isinstance(numbers, list) else ()) if isinstance(n, int))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
