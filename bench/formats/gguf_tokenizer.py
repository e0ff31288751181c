"""The tokenizer that a GGUF file holds, as tokenizer.json, which cuts text into the very ids that llama.cpp does.

Runs where llama.cpp, Transformers and tokenizers are. Transformers reads vocabulary, merges and special tokens from
the file, and of its pre-tokenizers only a few: of SmolLM2's, which sets digits apart, it makes GPT-2's. So the known
ones are tried in turn, the texts of tokenizer_conversion and others decide, and what fits none is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.contract.errors import UserError
from bench.formats.tokenizer_conversion import GENERIC, TEXTS, samples
from bench.formats.tokenizer_files import CONFIG

_BYTE_SPACE, _PIECE_SPACE = "\u0120", "\u2581"  # of vocabularies over bytes, and of SentencePiece's
_LOADER_KEYS = ("backend", "is_local", "local_files_only")  # of how Transformers read the file
_REMEDY = "put the file into a folder with the model's own tokenizer.json, and name the folder"

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD, _REST = r"|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
_MARKED = r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
_UPPER, _LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PUNCTUATED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"


def _cased(ending: str, digits: str) -> str:
    rest = rf"|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_SPACES}"
    return f"{_UPPER}*{_LOWER}+{ending}|{_UPPER}+{_LOWER}*{ending}{rest}"


# What a pre-tokenizer splits by, expression after expression, as published tokenizer.json files have them; which
# models have which, llama.cpp says (src/llama-vocab.cpp).
_SPLITS = (
    (_GPT2,),
    (r"\p{N}", _GPT2),  # SmolLM2, StarCoder, Command R
    (_CONTRACTIONS + _WORD + r"\p{N}{1,3}" + _REST,),  # Llama 3, GLM 4
    (_CONTRACTIONS + _WORD + r"\p{N}" + _REST,),  # Qwen 2 and 3, StableLM 2
    (_CONTRACTIONS + _MARKED,),  # Qwen 3.5
    (_cased("", ""),),  # Mistral's Tekken
    (_cased(f"{_CONTRACTIONS}?", "{1,3}"),),  # GPT-4o, Llama 4
    (r"\p{N}{1,3}", _HAN, _PUNCTUATED + r"| ?[\p{P}\p{S}]+[\r\n]*" + _SPACES),  # DeepSeek V3
    (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),  # Falcon
    (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),  # files that name none
)
_HARD = (
    " a space before, 0 12 345 6789 01234 3.14159 1e10 0x1F 1,234,567",
    "it's IT'S we'll WE'LL I'd they're 'twas don't 'S '' 's",
    "x=[i**2 for i in y]\r\n\r\n  \t\t}\n\n\n   ...!!! $%^& <|>~`",
    "CamelCase snake_case HTMLParser iPhone Straße ﬁn Ⅳ ½ ² ٣ १२३",
    "नमस्ते สวัสดี 한국어 עברית e\u0301 \u200d naïve 中文123字",
)


def write(file: Path, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template of `file` into the folder `out`.

    UserError where none can be made that cuts text as llama.cpp does.
    """
    from transformers import AutoTokenizer

    loaded = _load(file)
    backend = loaded.backend_tokenizer
    with _llama_cpp(file) as encode:
        texts = _texts(loaded, encode)
        _settle_pre_tokenizer(backend, {text: encode(text, special=False) for text in texts}, file)
        _surround(backend, encode)
        ids = {text: encode(text, special=True) for text in texts}
    loaded.save_pretrained(out)
    config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in _LOADER_KEYS}
    (out / CONFIG).write_text(json.dumps({**config, "tokenizer_class": GENERIC}, indent=2) + "\n", encoding="utf-8")
    written = AutoTokenizer.from_pretrained(out, local_files_only=True)
    if other := [text for text in texts if written.encode(text) != ids[text]]:
        raise UserError(
            f"{file.name}: Transformers cuts {other[0][:20]!r} otherwise than llama.cpp by the tokenizer.json made of "
            f"it: {_REMEDY}"
        )


def _load(file: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except Exception as error:
        raise UserError(
            f"Transformers cannot read the tokenizer in {file.name} ({type(error).__name__}): {_REMEDY}"
        ) from error


def _texts(loaded: Any, encode: _Encode) -> list[str]:
    """What is compared; of a tokenizer that begins texts with a space of its own, none that has one there itself.

    llama.cpp begins with another then, and again behind a special token; Transformers' classes and the tokenizer.json
    of published models do not.
    """
    backend, special = loaded.backend_tokenizer, set(loaded.all_special_tokens)
    words = sorted(set(backend.get_vocab(with_added_tokens=False)) - special)
    plain = [*TEXTS, *samples([word.replace(_BYTE_SPACE, " ").replace(_PIECE_SPACE, " ") for word in words])]
    if str(backend.id_to_token(encode("x", special=False)[0])).startswith(_PIECE_SPACE):
        return [*plain, *(text.lstrip(" ") for text in _HARD), *(f"a {token}" for token in special)]
    return [*plain, *_HARD, *(f"a {token} b" for token in special)]


def _settle_pre_tokenizer(backend: Any, ids: Mapping[str, list[int]], file: Path) -> None:
    """Give the backend the first pre-tokenizer by which it cuts each text into these ids."""
    for pre_tokenizer in _pre_tokenizers(backend):
        backend.pre_tokenizer = pre_tokenizer
        if all(backend.encode(text, add_special_tokens=False).ids == its for text, its in ids.items()):
            return
    raise UserError(f"{file.name}: no pre-tokenizer known here cuts text as llama.cpp does with this file: {_REMEDY}")


def _pre_tokenizers(backend: Any) -> Iterator[Any]:
    """The backend's own and, where it works on bytes, the known ones."""
    from tokenizers import Regex, pre_tokenizers

    yield backend.pre_tokenizer
    if backend.token_to_id(_BYTE_SPACE) is not None:
        for patterns in _SPLITS:
            splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
            yield pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _surround(backend: Any, encode: _Encode) -> None:
    """Put before and behind texts what llama.cpp does."""
    from tokenizers import processors

    inner, whole = encode("x", special=False), encode("x", special=True)
    start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    ends = whole[:start], whole[start + len(inner) :]
    before, after = ([backend.id_to_token(number) for number in ids] for ids in ends)
    parts = [
        [*(f"{name}:{kind}" for name in before), f"{text}:{kind}", *(f"{name}:{kind}" for name in after)]
        for kind, text in enumerate(("$A", "$B"))
    ]
    names = {name: backend.token_to_id(name) for name in (*before, *after)}
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(parts[0]), pair=" ".join([*parts[0], *parts[1]]), special_tokens=list(names.items())
    )


class _Encode(Protocol):
    def __call__(self, text: str, *, special: bool) -> list[int]:
        """The ids of a text in which special tokens count as such, with BOS and EOS around it where `special`."""


@contextmanager
def _llama_cpp(file: Path) -> Iterator[_Encode]:
    """llama.cpp's own tokenizer of the file."""
    import llama_cpp.llama_cpp as lib

    lib.llama_log_set(quiet := lib.llama_log_callback(lambda *_: None), None)
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.vocab_only = True
    model = lib.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        raise UserError(f"llama.cpp cannot read the tokenizer in {file.name}: {_REMEDY}")
    vocabulary = lib.llama_model_get_vocab(model)

    def encode(text: str, *, special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 16
        ids = (lib.llama_token * room)()
        count = lib.llama_tokenize(vocabulary, data, len(data), ids, room, special, True)  # noqa: FBT003  (C)
        return list(ids[:count])

    try:
        yield encode
    finally:
        lib.llama_model_free(model)
        lib.llama_log_set(lib.llama_log_callback(), None)
        del quiet  # alive until here
