"""ONNX Runtime GenAI: models that its builder made, generated from by its own loop, on a CPU or a GPU.

It is given the model's settings in a folder of its own beside links to the files: the end tokens are left out
there, since nothing else makes the generator go on after one (`min_length` would forbid them), and so are the
sampling settings of the checkpoint.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, LogitBlock, Question, Session
from bench.contract.record import Artifact, Hardware
from bench.contract.spec import Cell
from bench.engines.onnxruntime import receipts as seen

ENV = "onnx"
VERSION = 1
LOADS = frozenset({"onnx"})
MODES = frozenset({"offline", "score"})
_CONFIG = "genai_config.json"
_BLOCK_BYTES = 64 << 20
_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "NvTensorRtRtx": "NvTensorRTRTXExecutionProvider",
}
_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "min_length": 0,
    "top_k": 1,
    "top_p": 1.0,
    "temperature": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
_ACCURACY = {1: "float32", 2: "float16", 3: "bfloat16", 4: "int8"}


@dataclass(frozen=True)
class Options:
    """`threads` 0: one per physical core. `provider` auto: cuda for a CUDA device, else cpu."""

    threads: int = 0
    provider: Literal["auto", "cpu", "cuda", "NvTensorRtRtx"] = "auto"


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    if artifact_format not in LOADS:
        return f"ONNX Runtime GenAI loads onnx, not {artifact_format}"
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    provider = _provider(options, cell.device)
    if provider != "cpu" and (cell.device == "cpu" or not hardware.gpus):
        return f"provider {provider} needs an NVIDIA GPU: ask for a CUDA device, or for the provider cpu"
    if provider == "cpu" and cell.device != "cpu":
        return "provider cpu leaves the GPU unused: ask for the device cpu instead"
    return None


@contextmanager
def open(  # noqa: A001  (the protocol's word)
    folder: Path, artifact: Artifact, options: Options, device: str
) -> Iterator[OnnxSession]:
    """Load the model; UserError for files it cannot load, and for a GPU that this build cannot use."""
    del artifact
    settings = configured(folder, options, device)
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.iterdir():
            if file.name != _CONFIG:
                (Path(scratch) / file.name).symlink_to(file.resolve())
        (Path(scratch) / _CONFIG).write_text(json.dumps(settings))
        model, log = _load(folder, Path(scratch), device)
        wanted = _NAMES[_provider(options, device)]
        file = folder / settings["model"]["decoder"]["filename"]
        yield OnnxSession(model, settings, device, log.threads, wanted, seen.stored(file))


class OnnxSession(Session):
    """A loaded model. `model` is the library's own object."""

    def __init__(
        self, model: Any, settings: Mapping[str, Any], device: str, threads: int, provider: str, stored: Any
    ) -> None:
        self.model, self.settings, self.device = model, settings["model"], device
        self.threads, self.provider, self.stored = threads, provider, stored
        self.context = int(self.settings["context_length"])
        self.rows = max(1, _BLOCK_BYTES // (4 * int(self.settings["vocab_size"])))
        self.kv: tuple[str, int] | None = None

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """A generator of the library's own for the batch, with a KV cache of just its length."""
        import numpy as np

        generator = self._generator(len(prompts), len(prompts[0]) + new_tokens)
        generator.append_tokens(np.asarray(prompts, np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
            tokens = generator.get_next_tokens()
            yield DecodeStep(time.perf_counter(), tuple(tokens.tolist()))
        self.kv = self._cache(generator)  # copies it: not between two steps

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """As the generator has them for the tokens it is fed, in blocks of at most 64 MiB over its cache."""
        import numpy as np

        generator = self._generator(1, len(ids))
        for start in range(0, len(ids), self.rows):
            generator.append_tokens(np.asarray([ids[start : start + self.rows]], np.int32))
            yield LogitBlock(start, self._rows(generator))

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each context fed once: the cache is wound back to its end for every choice."""
        import numpy as np

        for place, question in enumerate(questions):
            context, longest = question.context, max(map(len, question.choices))
            generator = self._generator(1, len(context) + longest)
            generator.append_tokens(np.asarray([context], np.int32))
            first, found = self._rows(generator)[-1:], []
            for choice in question.choices:
                rows = first
                if len(choice) > 1:
                    generator.rewind_to(len(context))
                    generator.append_tokens(np.asarray([choice[:-1]], np.int32))
                    rows = np.concatenate([first, self._rows(generator)])
                found.append(_scored(rows, choice))
            yield place, found

    def receipts(self) -> Mapping[str, str]:
        """From the log of the load, the file, and the profile of a run of two tokens, made here.

        UserError where a node ran on another provider than the one asked for.
        """
        nodes = self._profile()
        seen.check(nodes, self.provider)
        ran = seen.told(nodes)
        levels = [f"{_ACCURACY.get(n, 'any type')} by accuracy_level {n}" for n in self.stored["levels"]]
        inside = f" in and out, inside MatMulNBits down to {', '.join(levels)}" if levels else ""
        packed = f", {self.stored['packed']}" if self.stored["packed"] else ""
        return {
            **ran,
            "compute_dtype": ran["compute_dtype"] + inside,
            "weight_dtype": self.stored["dtypes"] + packed,
            "kv_dtype": self.kv[0] if self.kv else "none yet",
            "threads": str(self.threads),
            "device": self.device,
            "logits": "of the generator, for the tokens it is fed; choices each after a context fed once",
            "onnxruntime": importlib.metadata.version(_package("onnxruntime", "onnxruntime-gpu")),
            "onnxruntime_genai": importlib.metadata.version(_package("onnxruntime-genai", "onnxruntime-genai-cuda")),
        }

    def memory(self) -> Mapping[str, int]:
        """`weights_bytes` as stored in the file; `kv_bytes`: the cache of the last `generate`."""
        weights = {"weights_bytes": self.stored["bytes"], "unread_bytes": self.stored["looked_up"]}
        return {**weights, **({"kv_bytes": self.kv[1]} if self.kv else {})}

    def _generator(self, batch: int, tokens: int) -> Any:
        import onnxruntime_genai as og

        if tokens > self.context:
            raise UserError(f"{tokens} tokens exceed the model's context of {self.context}: use shorter prompts")
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=tokens, batch_size=batch, do_sample=False)
        return og.Generator(self.model, params)

    def _rows(self, generator: Any) -> Any:
        import numpy as np

        return np.array(generator.get_output("logits")[0], np.float32)

    def _cache(self, generator: Any) -> tuple[str, int]:
        """Type and bytes of the keys and values of all layers, by the first layer's."""
        names = self.settings["decoder"]["outputs"]
        layers = int(self.settings["decoder"]["num_hidden_layers"])
        both = [generator.get_output(names[kind] % 0) for kind in ("present_key_names", "present_value_names")]
        return str(both[0].dtype), layers * sum(tensor.nbytes for tensor in both)

    def _profile(self) -> list[seen.Node]:
        import numpy as np

        with tempfile.TemporaryDirectory() as scratch:
            generator = self._generator(1, 3)
            generator.set_runtime_option("enable_profiling", str(Path(scratch) / "run"))
            generator.append_tokens(np.asarray([[5]], np.int32))
            generator.generate_next_token()
            generator.generate_next_token()
            del generator
            return seen.ran(Path(scratch))


def configured(folder: Path, options: Options, device: str) -> dict[str, Any]:
    """The model's genai_config.json as it is run here: greedy, without end tokens, on this provider."""
    try:
        settings: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        model, decoder = settings["model"], settings["model"]["decoder"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"the artifact has no readable {_CONFIG}: ONNX Runtime GenAI runs what its model builder made"
        ) from None
    model.pop("eos_token_id", None)
    settings["search"] = {**settings.get("search", {}), **_GREEDY}
    provider = _provider(options, device)
    given = {
        key: value for each in decoder["session_options"].get("provider_options", []) for key, value in each.items()
    }
    own = {**given.get(provider, {}), **({"device_id": device.partition(":")[2] or "0"} if provider != "cpu" else {})}
    decoder["session_options"] |= {
        "intra_op_num_threads": options.threads or os.cpu_count() or 1,
        "inter_op_num_threads": 1,
        "log_severity_level": 1,  # tells the size of the thread pool, and nothing while it runs
        "provider_options": [] if provider == "cpu" else [{provider: own}],
    }
    return settings


def _provider(options: Options, device: str) -> str:
    if options.provider != "auto":
        return options.provider
    return "cuda" if device.startswith("cuda") else "cpu"


def _load(folder: Path, scratch: Path, device: str) -> tuple[Any, seen.Log]:
    import onnxruntime
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    if device.startswith("cuda"):
        if not og.is_cuda_available():
            raise UserError(
                f"the cell asks for {device}, and this ONNX Runtime GenAI has no CUDA: install its cuda build"
            )
        onnxruntime.preload_dlls()
    log = seen.Log()
    try:
        with seen.listening() as log:
            model = og.Model(og.Config(str(scratch)))
    except RuntimeError as error:
        text = str(error).replace(str(scratch), "its folder").replace(str(folder), "its folder")
        raise UserError(f"ONNX Runtime cannot load the artifact: {text.splitlines()[0][:200]}") from error
    return model, log


def _scored(rows: Any, choice: Sequence[int]) -> ChoiceScore:
    """The sum of log-probabilities and whether all were the likeliest; float32 logits, float64 sums."""
    import numpy as np

    wide = rows.astype(np.float64)
    top = wide.max(axis=1)
    sums = np.log(np.exp(wide - top[:, None]).sum(axis=1)) + top
    targets = np.asarray(choice)
    value = float((wide[np.arange(len(choice)), targets] - sums).sum())
    return ChoiceScore(value, bool((wide.argmax(axis=1) == targets).all()))


def _package(*names: str) -> str:
    """The first of these that is installed."""
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return names[0]
