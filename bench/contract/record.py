"""What is recorded: hardware, artifacts, traces and results, as frozen dataclasses. Units are in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contract.spec import Cell, Step
from bench.contract.wire import OMITTED_AT_DEFAULT

SCHEMA = 1
Status = Literal["ok", "unsupported", "failed"]


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it; `index` is NVML's."""

    index: int
    name: str
    memory_bytes: int
    compute_capability: str
    driver: str


@dataclass(frozen=True)
class Hardware:
    """One device and its machine. `slug` names the results folder: device, memory and count, no host name."""

    device: str
    slug: str
    name: str
    memory_bytes: int
    cpu: str
    physical_cores: int
    ram_bytes: int
    isa: tuple[str, ...]
    compute_dtype: str
    system: str
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What the files of an artifact hold, whoever wrote them.

    `bits_per_weight` counts every stored tensor of the linear layers except biases, over their parameters.
    `quantized_fraction` is the share of linear parameters stored below 16 bits. A tied head is no stored
    linear weight. `zero_fraction`: how many of the linear weights are zero, `two_of_four_fraction`: how many
    groups of four inputs have two zeros or more; None where weights are not stored as plain numbers.
    """

    format: str
    total_bytes: int
    weight_bytes: int
    parameters: int
    linear_parameters: int
    linear_bytes: int
    bits_per_weight: float
    quantized_fraction: float
    tied_head: bool
    vocab_size: int
    context: int
    tensor_types: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    zero_fraction: float | None = None
    two_of_four_fraction: float | None = None


@dataclass(frozen=True)
class Architecture:
    """A decoder's sizes by its config or GGUF header. `window`: tokens attention spans at most, 0 being all."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_head: bool
    window: int = 0

    @property
    def kv_elements(self) -> int:
        """Elements of the KV cache per token: keys and values in every layer."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Parameters:
    """A model's parameters by storage. `stored_bytes` are those of its weight files.

    `linear`: of the layers that methods quantize; `rest`: embeddings, norms and a head of its own.
    """

    linear: int
    rest: int
    stored_bytes: int
    architecture: Architecture | None


@dataclass(frozen=True)
class Ceiling:
    """The peak rates of one device. `source`: "measured here", or the vendor's data sheet by its address.

    `bandwidth`: bytes in use -> bytes/s of reading them over and over, since caches make small sets fast; one
    entry "0" where it holds for any. `flop_per_s`: dtype -> dense operations of a matrix product, a second.
    """

    source: str
    bandwidth: Mapping[str, float]
    flop_per_s: Mapping[str, float]
    device: str = ""
    isa: tuple[str, ...] = ()
    threads: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    started: str = ""


@dataclass(frozen=True)
class Artifact:
    """What a recipe produced.

    `source` is the model's identity: a content hash, or a Hub id at a commit. No path is stored. `make_s` and
    `make_peak_bytes` are of the last step, `make_total_s` is of all of them; at most that, where not `make_alone`:
    other work of the run went on beside it.
    """

    digest: str
    format: str
    source: str
    steps: tuple[Step, ...]
    audit: Audit
    make_s: float = 0.0
    make_peak_bytes: int = 0
    make_total_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, str] = field(default_factory=dict)

    @property
    def make_alone(self) -> bool:
        """Whether nothing else of its run went on while it was made, as far as its facts say."""
        return bool(self.facts.get("make_alone", True))


@dataclass(frozen=True)
class Source:
    """What a method may know before it runs; `linears` as name -> (out, in), `config` as in config.json."""

    format: str
    linears: Mapping[str, tuple[int, int]]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class RequestTrace:
    """One request, in seconds from the first window's start; event i came at `token_s[i]`.

    `prompt_id`, `category`: of a prompt of real text, by its file. `accepted_tokens`: of drafts, where the server says
    so and each token was an event of its own. `reasoning_tokens`: of thoughts before the answer, which began at
    `answer_s`; None where there were none, or nothing came after them.
    """

    request: int
    window: int
    prompt_tokens: int
    due_s: float
    sent_s: float
    token_s: tuple[float, ...]
    event_tokens: tuple[int, ...]
    error: str = ""
    prompt_id: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    category: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    accepted_tokens: int = field(default=0, metadata=OMITTED_AT_DEFAULT)
    reasoning_tokens: int = field(default=0, metadata=OMITTED_AT_DEFAULT)
    answer_s: float | None = field(default=None, metadata=OMITTED_AT_DEFAULT)


@dataclass(frozen=True)
class Result:
    """One round of a cell, or the build of an artifact (no workload, no task)."""

    digest: str
    suite: str
    cell: Cell
    round: int
    status: Status
    hardware: Hardware
    reason: str = ""
    artifact: Artifact | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    receipts: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    started: str = ""
    duration_s: float = 0.0
    schema: int = SCHEMA
