"""Which tokenizer files a model folder has, and whether a tokenizer.json can be made of them: known without a library.

The table beside this file is printed by Transformers itself (tests/formats/tokenizer_classes.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats import sentencepiece_model

FAST, CONFIG = "tokenizer.json", "tokenizer_config.json"
ENV = "hf"  # where Transformers makes the one of the other
SUFFIXES = frozenset({".json", ".model", ".txt", ".jinja"})
PIECES, MERGES, WORDS = "SentencePiece", "BPE", "WordPiece"  # kinds of files
_PIECES_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model")
_VOCAB, _MERGES, _WORDS = "vocab.json", "merges.txt", "vocab.txt"
_PACKAGES = {PIECES: ("transformers", "tokenizers", "sentencepiece", "protobuf")}
# By their documentation these put BOS before a text unless told otherwise, and so did Transformers before release 5.
_BEGIN_WITH_BOS = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"})
_GENERIC = frozenset({"TokenizersBackend", "PreTrainedTokenizer", "PythonBackend", ""})
_LARGEST = 1 << 27


@dataclass(frozen=True)
class Form:
    """The files of one kind that hold a tokenizer's vocabulary; the first is the vocabulary itself."""

    kind: str
    files: tuple[str, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        """What the environment that makes tokenizer.json of them needs."""
        return _PACKAGES.get(self.kind, ("transformers", "tokenizers"))


def form(folder: Path) -> Form | None:
    """The files by which the model's tokenizer is known: those its class reads, where there are several kinds."""
    forms = [Form(PIECES, (name,)) for name in _PIECES_FILES if (folder / name).is_file()]
    if (folder / _VOCAB).is_file() and (folder / _MERGES).is_file():
        forms.append(Form(MERGES, (_VOCAB, _MERGES)))
    if (folder / _WORDS).is_file():
        forms.append(Form(WORDS, (_WORDS,)))
    reads = _classes()["classes"].get(class_name(folder), {"files": []})["files"]
    return next((each for each in forms if each.files[0] in reads), forms[0] if forms else None)


def unusable(folder: Path) -> str:
    """Why no tokenizer.json can be made of the folder's files, in one sentence; "" where it can, or is there."""
    if (folder / FAST).is_file():
        return ""
    try:
        chosen = form(folder)
        return _without_files(folder) if chosen is None else _class_reason(folder, chosen) or _read(folder, chosen)
    except UserError as error:
        return str(error)


def class_name(folder: Path) -> str:
    """Transformers' class of the tokenizer, without Fast: by the folder's files, else the model's; "" for none."""
    named = settings(folder).get("tokenizer_class")
    config = model_folder.read_config(folder) if (folder / model_folder.CONFIG).is_file() else {}
    named = named or config.get("tokenizer_class") or _classes()["types"].get(str(config.get("model_type")), "")
    name = str(named).removesuffix("Fast")
    return "" if name in _GENERIC else name


def settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; {} where there is none."""
    if not (folder / CONFIG).is_file():
        return {}
    value = _json(folder / CONFIG)
    if not isinstance(value, dict):
        raise UserError(f"{folder.name}/{CONFIG} is not a JSON object")
    return value


def added(folder: Path) -> tuple[bool, bool] | None:
    """Whether BOS is put before a text and EOS behind it; None where the class decides by rules of its own."""
    config, name, chosen = settings(folder), class_name(folder), form(folder)
    begins = name in _BEGIN_WITH_BOS or (not name and chosen is not None and chosen.kind == PIECES)
    bos, eos = config.get("add_bos_token"), config.get("add_eos_token")
    if bos is None and eos is None and not begins:
        return None
    return (begins if bos is None else bool(bos)), bool(eos)


def vocabulary(folder: Path, chosen: Form) -> dict[str, int]:
    """Token -> id of any form; UserError for a file that is not what its name says."""
    file = folder / chosen.files[0]
    if chosen.kind == PIECES:
        return {piece.text: number for number, piece in enumerate(sentencepiece_model.read(file))}
    if chosen.kind == WORDS:
        return {line: number for number, line in enumerate(_lines(file))}
    value = _json(file)
    if not isinstance(value, dict) or not value or not all(type(number) is int for number in value.values()):
        raise UserError(f"{folder.name}/{file.name} is not a vocabulary: it has to be a JSON object of tokens and ids")
    return value


def merges(folder: Path) -> list[tuple[str, str]]:
    """The pairs of merges.txt in order; UserError where a line is no pair."""
    lines = _lines(folder / _MERGES)
    pairs = [tuple(line.split(" ")) for line in lines[lines[0].startswith("#version") if lines else 0 :] if line]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{folder.name}/{_MERGES} is not a list of merges: every line has to have two tokens")
    return [(left, right) for left, right in pairs]


def _without_files(folder: Path) -> str:
    lone = f": {_VOCAB} is there without {_MERGES}" if (folder / _VOCAB).is_file() else ""
    return (
        f"{folder.name} has no tokenizer{lone}; text needs {FAST}, tokenizer.model, or {_VOCAB} with {_MERGES}: put "
        "the model's own into the folder"
    )


def _class_reason(folder: Path, chosen: Form) -> str:
    """Why Transformers' class for the files is none that makes a tokenizer.json."""
    name, remedy = class_name(folder), f"put a {FAST} beside it"
    known = _classes()["classes"].get(name)
    if known is None and (code := settings(folder).get("auto_map")):
        named = code.get("AutoTokenizer") if isinstance(code, dict) else code
        if named:
            return f"the tokenizer of {folder.name} is code of its own ({_first(named)}), which is not run: {remedy}"
    if known is None and name:
        return f"the tokenizer of {folder.name} is of a class that Transformers does not know ({name}): {remedy}"
    if known and not known["fast"] and not known["pieces"]:
        return f"the tokenizer of {folder.name}, {name}, has no form as {FAST}: it needs another tokenizer or model"
    if chosen.kind == MERGES and (known is None or _MERGES not in known["files"]):
        if name and "<0x00>" in vocabulary(folder, chosen):  # SentencePiece's BPE, which class and files agree on
            return ""
        which = f"the class {name} does not read them" if name else "nothing says of which class they are"
        return (
            f"{folder.name} has {_VOCAB} and {_MERGES}, and {which}: name theirs as tokenizer_class in {CONFIG} "
            f"(as GPT2Tokenizer), or {remedy}"
        )
    return ""


def _read(folder: Path, chosen: Form) -> str:
    """Read what is to be converted; UserError where it cannot be."""
    if chosen.kind == PIECES and _is_tiktoken(folder / chosen.files[0]):
        return f"{folder.name}/{chosen.files[0]} is tiktoken's, not SentencePiece's: put the model's {FAST} beside it"
    vocabulary(folder, chosen)
    if chosen.kind == MERGES:
        merges(folder)
    return ""


def _is_tiktoken(file: Path) -> bool:
    """Lines of a token in base64 and its rank."""
    with file.open("rb") as opened:
        words = opened.readline(1 << 12).split(b" ")
    return len(words) == 2 and words[1].strip().isdigit() and words[0].isascii()


def _first(named: object) -> str:
    return next((str(each) for each in named if each), "") if isinstance(named, list | tuple) else str(named)


def _json(file: Path) -> Any:
    try:
        return wire.read_json(file, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read: {error}") from None


def _lines(file: Path) -> list[str]:
    try:
        with wire.open_regular(file) as opened:
            return opened.read(_LARGEST).decode("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{file.parent.name}/{file.name} cannot be read as text: {error}") from None


@cache
def _classes() -> Mapping[str, Any]:
    text = Path(__file__).with_name("tokenizer_classes.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
