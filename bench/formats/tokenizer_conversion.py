"""A tokenizer.json of a model that has only older tokenizer files, by Transformers and as its own library cuts text.

Runs in the environment of tokenizer_files.ENV. Transformers 5 reads many a SentencePiece model otherwise than the
library that it was trained with, and silently: no space before the first word, no BOS where the class is said to add
it, runs of spaces and unknown characters lost. So what it makes is compared with SentencePiece itself on hard texts,
put together from the model's own rules where it differs, and refused where that differs too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError, first_line
from bench.formats import sentencepiece_model, tokenizer_files
from bench.formats.tokenizer_files import CONFIG, FAST

# None begins with a space: Transformers' classes, and the tokenizer.json of published models, put no second one there.
TEXTS = (
    "Hello  world",
    "runs   of    spaces     and      trailing   ",
    "\n\nif x == 1:\n        return 12345  # \t tab\n",
    "\r\n a\u00a0b\u3000c\u200bd \u00bd \ufb01 \u00b2 e\u0301 \u00e9 \u2028 \ue000",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "x",
    "",
)
_ALL_BYTES = 256
_SPACE = "\u2581"  # SentencePiece's
GENERIC = "PreTrainedTokenizerFast"  # the class by which every Transformers takes a tokenizer.json as it is


def convert(folder: Path, out: Path) -> None:
    """Write tokenizer.json into `out`, and a tokenizer_config.json where the folder's is missing or leads astray.

    UserError where none can be made that cuts text as the model's own files do.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    form = tokenizer_files.form(folder)
    if form is None:
        raise UserError(f"{folder.name} has no tokenizer files to make a {FAST} of")
    loaded = _load(folder)
    if form.kind == tokenizer_files.PIECES:
        backend, texts = _of_pieces(folder / form.files[0], loaded)
    else:
        backend, texts = _of_vocabulary(folder, form, loaded)
    _surround(backend, folder, loaded)
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(out / FAST))
    _settle_config(folder, out, loaded, backend, texts)


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error, 300)}"
        raise UserError(
            f"Transformers cannot read the tokenizer of {folder.name} ({reason}): put the {FAST} of the model beside it"
        ) from error


def _of_pieces(file: Path, loaded: Any) -> tuple[Any, list[str]]:
    """The first backend that cuts the texts into the pieces that SentencePiece does, and those texts."""
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except Exception as error:
        raise UserError(sentencepiece_model.corrupt(file, "SentencePiece cannot load it")) from error
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    words = [piece.replace(_SPACE, " ") for i, piece in enumerate(pieces) if _is_text(processor, i)]
    texts = [*TEXTS, *samples(words)]
    candidates = [loaded.backend_tokenizer] if loaded.is_fast else []
    if all(loaded.convert_tokens_to_ids(piece) == number for number, piece in enumerate(pieces)):
        candidates += [_built(file, loaded)]
    for backend in candidates:
        if all(_pieces(backend, text) == _expected(processor, loaded, text) for text in texts):
            return backend, texts
    raise UserError(
        f"{file.parent.name}: Transformers makes no {FAST} of {file.name} that cuts text as SentencePiece does: "
        "put the model's own beside it"
    )


def _is_text(processor: Any, number: int) -> bool:
    return not (
        processor.is_control(number)
        or processor.is_unknown(number)
        or processor.is_byte(number)
        or processor.is_unused(number)
    )


def _pieces(backend: Any, text: str) -> list[str]:
    return [backend.id_to_token(number) for number in backend.encode(text, add_special_tokens=False).ids]


def _expected(processor: Any, loaded: Any, text: str) -> list[str]:
    """By the class itself where it has rules of its own over SentencePiece's, in Python."""
    ids = processor.encode(text) if loaded.is_fast else loaded.encode(text, add_special_tokens=False)
    return [processor.id_to_piece(i) for i in ids]


def _built(file: Path, loaded: Any) -> Any:
    """A backend by the rules in the model's file, with the tokens that the model's other files add."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import SentencePieceExtractor
    from transformers.tokenization_utils_base import generate_merges

    proto = SentencePieceExtractor(str(file)).proto
    trainer, rules = proto.trainer_spec, proto.normalizer_spec
    scores = [(piece.piece, piece.score) for piece in proto.pieces]
    fallback = any(piece.type == sentencepiece_model.BYTE for piece in proto.pieces)
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == sentencepiece_model.UNKNOWN)
    if trainer.model_type == sentencepiece_model.BPE:
        merged = {p.piece: p.score for p in proto.pieces if p.type == sentencepiece_model.NORMAL}
        vocabulary = {piece: number for number, (piece, _) in enumerate(scores)}
        model: Any = models.BPE(
            vocabulary,
            generate_merges(vocabulary, merged),
            unk_token=scores[unknown][0],
            fuse_unk=True,
            byte_fallback=fallback,
        )
    else:
        model = models.Unigram(scores, unk_id=unknown, byte_fallback=fallback)
    backend = Tokenizer(model)
    steps: list[Any] = [normalizers.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    # "first" looks at where a text began before its spaces were stripped
    scheme = ("always" if rules.remove_extra_whitespaces else "first") if rules.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for piece in proto.pieces:
        if piece.type in (sentencepiece_model.CONTROL, sentencepiece_model.USER_DEFINED):
            is_control = piece.type == sentencepiece_model.CONTROL
            backend.add_tokens([AddedToken(piece.piece, normalized=not is_control, special=is_control)])
    user_defined = {p.piece for p in proto.pieces if p.type == sentencepiece_model.USER_DEFINED}
    backend.add_tokens([t for _, t in sorted(loaded.added_tokens_decoder.items()) if str(t) not in user_defined])
    return backend


def _of_vocabulary(folder: Path, form: tokenizer_files.Form, loaded: Any) -> tuple[Any, list[str]]:
    """The first backend that has every token of the vocabulary under its id, and loses nothing of a text.

    Transformers 5 leaves the files of a class that names others unread: they are then given to it.
    """
    vocabulary = tokenizer_files.vocabulary(folder, form)
    texts = [*TEXTS, *samples([token.replace("\u0120", " ").replace(_SPACE, " ") for token in vocabulary])]
    for tokenizer in (loaded, *_given(folder, form, loaded, vocabulary)):
        if not tokenizer.is_fast:
            continue
        backend = tokenizer.backend_tokenizer
        ids = backend.get_vocab(with_added_tokens=True)
        if all(ids.get(token) == number for token, number in vocabulary.items()) and _keeps(backend, vocabulary):
            return backend, texts
    raise UserError(
        f"{folder.name}: its tokenizer class ({type(loaded).__name__}) makes no {FAST} of "
        f"{' and '.join(form.files)}: name the class that they belong to as tokenizer_class in {CONFIG}, or put the "
        f"model's own {FAST} beside them"
    )


def _given(folder: Path, form: tokenizer_files.Form, loaded: Any, vocabulary: Mapping[str, int]) -> Iterator[Any]:
    """A tokenizer of the class, with the files' contents and the folder's special tokens."""
    if form.kind == tokenizer_files.MERGES:
        named = {
            k: v for k, v in tokenizer_files.settings(folder).items() if k.endswith("_token") and isinstance(v, str)
        }
        yield type(loaded)(vocab=dict(vocabulary), merges=tokenizer_files.merges(folder), **named)


def _keeps(backend: Any, vocabulary: Mapping[str, int]) -> bool:
    """Whether texts come back whole, where the vocabulary has a token for every byte."""
    from tokenizers import pre_tokenizers

    of_bytes = [set(pre_tokenizers.ByteLevel.alphabet()), {f"<0x{byte:02X}>" for byte in range(_ALL_BYTES)}]
    if not any(alphabet <= set(vocabulary) for alphabet in of_bytes):
        return True
    plain = [text for text in TEXTS if text.isprintable() and text == text.strip()]
    return all(backend.decode(backend.encode(t, add_special_tokens=False).ids).strip() == t for t in plain)


def _surround(backend: Any, folder: Path, loaded: Any) -> None:
    """Put BOS and EOS around texts as the folder says, or else its class by its own documentation, or by its doing."""
    from tokenizers import processors

    flags = tokenizer_files.added(folder)
    if flags is None and loaded.is_fast and backend is loaded.backend_tokenizer:
        return
    before, after = _by_doing(loaded) if flags is None else _by_flags(loaded, flags)
    ids = {name: backend.token_to_id(name) for name in (*before, *after)}
    if any(number is None for number in ids.values()):
        raise UserError(f"{folder.name}: its tokenizer adds {' and '.join(ids)} to every text, and has no such token")
    parts = [
        [*(f"{name}:{kind}" for name in before), f"{text}:{kind}", *(f"{name}:{kind}" for name in after)]
        for kind, text in enumerate(("$A", "$B"))
    ]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(parts[0]), pair=" ".join([*parts[0], *parts[1]]), special_tokens=list(ids.items())
    )


def _by_flags(loaded: Any, flags: tuple[bool, bool]) -> tuple[list[str], list[str]]:
    """The tokens before and behind a text: BOS and EOS, as far as they are added and the tokenizer has them."""
    bos, eos = (
        [str(token)] if adds and token else []
        for adds, token in zip(flags, (loaded.bos_token, loaded.eos_token), strict=True)
    )
    return bos, eos


def _by_doing(loaded: Any) -> tuple[list[str], list[str]]:
    """The tokens that the class puts before and behind a text of its own accord."""
    whole, inner = loaded.encode("x"), loaded.encode("x", add_special_tokens=False)
    start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    ends = whole[:start], whole[start + len(inner) :]
    before, after = (loaded.convert_ids_to_tokens(ids) for ids in ends)
    return before, after


def _settle_config(folder: Path, out: Path, loaded: Any, backend: Any, texts: Sequence[str]) -> None:
    """Leave the folder's tokenizer_config.json where Transformers then reads the same ids from tokenizer.json."""
    specials = [str(token) for token in loaded.all_special_tokens]
    texts = [*texts, *(f"a{token} b" for token in specials)]
    if (folder / CONFIG).is_file() and _reads_alike(folder, out, backend, texts):
        return
    config = tokenizer_files.settings(folder)
    others = {key: value for key, value in config.items() if key not in ("tokenizer_class", "auto_map")}
    names = {key: str(value) for key, value in loaded.special_tokens_map.items() if isinstance(value, str)}
    flags = tokenizer_files.added(folder)
    adds = dict(zip(("add_bos_token", "add_eos_token"), flags, strict=True)) if flags else {}
    text = json.dumps({**names, **adds, **others, "tokenizer_class": GENERIC}, indent=2)
    (out / CONFIG).write_text(text + "\n", encoding="utf-8")
    if not _reads_alike(folder, out, backend, texts):
        raise UserError(
            f"{folder.name}: Transformers reads the {FAST} that it makes of this tokenizer otherwise than the "
            "tokenizer cuts text: put the model's own beside its files"
        )


def _reads_alike(folder: Path, out: Path, backend: Any, texts: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        for source in (folder, out):
            for file in source.iterdir():
                if file.is_file() and file.suffix in tokenizer_files.SUFFIXES:
                    shutil.copyfile(file, Path(scratch) / file.name)
        read = _load(Path(scratch))
        return all(read.encode(text) == backend.encode(text).ids for text in texts)


def samples(words: Sequence[str]) -> Iterator[str]:
    """Texts of the vocabulary's own words, in a seeded order: merges in a wrong order show in them."""
    draw = random.Random(0)  # noqa: S311  (reproducible, not secret)
    for size in (20, 200):
        yield "".join(draw.choices(words, k=size)).lstrip(" ") if words else ""
