"""What a format of artifacts has to offer: the table of its hooks, as those of the other roles in `hooks`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from bench.contract.hooks import required_if
from bench.contract.record import Architecture, Audit, Parameters, Source


class Format(Protocol):
    """A format of artifacts: how its files are recognised, read and counted, without any engine's library.

    FORMATS: their names in records, READS, WRITES and LOADS. FLOATS: which weights are plain floats, which an
    engine converts to the type it computes in: "all", those that are "unquantized" (embeddings, norms), or
    "none", where all are used as they are stored. FILES: patterns of the files that hold weights, DOWNLOADED:
    whether those of a Hub repository are fetched. SUFFIX: of a file that is a model by itself; `folder` may be
    such a file. TOKENIZER_ENV: the environment where the tokenizer in the model's file can be read.
    """

    FORMATS: tuple[str, ...]
    FLOATS: Literal["all", "unquantized", "none"]
    FILES: tuple[str, ...]
    DOWNLOADED: bool = True
    SUFFIX: str = ""
    TOKENIZER_ENV: str = ""

    @abstractmethod
    def detect(self, folder: Path) -> str | None:
        """Which of FORMATS the model in `folder` has; None for any other."""

    @abstractmethod
    def source(self, name: str, folder: Path) -> Source:
        """What a method may know of a model in the format `name`; UserError for missing or broken files."""

    @abstractmethod
    def audit(self, name: str, folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool) -> Audit:
        """Count what is stored; with `zeros` the zeros too, where weights are plain floats.

        `reference`: the unquantized model's linear layers, name -> (out, in), where they are known.
        """

    @abstractmethod
    def parameters(self, folder: Path) -> Parameters:
        """The model's parameters by how an engine keeps them in memory."""

    def architecture(self, folder: Path) -> Architecture | None:  # noqa: ARG002
        """What the model computes per token; None for other than plain decoders."""
        return None

    def stored_types(self, folder: Path) -> Mapping[str, str]:  # noqa: ARG002
        """The type that each linear layer is stored in, by the layer's name; {} where a format has one for all."""
        return {}

    @required_if(lambda plugin: bool(plugin.SUFFIX))
    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of the model at `path`, a file of SUFFIX or its folder; UserError for a missing or second model."""

    @required_if(lambda plugin: bool(plugin.SUFFIX))
    def part_pattern(self, name: str) -> str:
        """A glob pattern of the files that the model of a file called `name` consists of."""

    @required_if(lambda plugin: bool(plugin.SUFFIX))
    def several_models(self, names: Sequence[str]) -> str:
        """A phrase for files of these names where they are more than one model; "" where they are one."""

    @required_if(lambda plugin: bool(plugin.TOKENIZER_ENV))
    def tokenizer(self, folder: Path, out: Path) -> None:
        """Write the tokenizer of the model, as files that Transformers reads, into `out`. Runs in TOKENIZER_ENV."""
