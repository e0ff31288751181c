"""A model loaded by ONNX Runtime GenAI, and what is computed with it."""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.hooks import ChoiceScore, DecodeStep, LogitBlock, Question, Session
from bench.engines._batch import check_context
from bench.engines._logits import LogSoftmax, rows_per_block
from bench.engines._receipts import captured_output, load_error
from bench.engines.onnxruntime import receipts
from bench.engines.onnxruntime.receipts import Node, StoredWeights

_ACCURACY = {1: "float32", 2: "float16", 3: "bfloat16", 4: "int8"}  # levels of MatMulNBits


class OnnxSession(Session):
    """A loaded model. `model` is the library's own object."""

    def __init__(
        self, model: Any, config: Mapping[str, Any], device: str, threads: int, provider: str, weights: StoredWeights
    ) -> None:
        self.model, self.config, self.device = model, config["model"], device
        self.threads, self.provider, self.weights = threads, provider, weights
        self.context = int(self.config["context_length"])
        self.rows = rows_per_block(int(self.config["vocab_size"]))
        self.kv_cache: tuple[str, int, int] | None = None  # type, bytes, a token's bytes, after the last `generate`

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """A generator of the library's own for the batch, with a KV cache of just its length."""
        generator = self._generator(len(prompts), len(prompts[0]) + new_tokens)
        yield from self._generate(generator, prompts, new_tokens)

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """The contexts are fed anew in each call."""
        import numpy as np

        generator = self._generator(len(prompts), len(contexts[0]) + len(prompts[0]) + new_tokens)
        generator.append_tokens(np.asarray(contexts, np.int32))
        generator.get_output("logits")  # waits for them
        start()
        yield from self._generate(generator, prompts, new_tokens)

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

        for index, question in enumerate(questions):
            context, longest = question.context, max(map(len, question.choices))
            generator = self._generator(1, len(context) + longest)
            generator.append_tokens(np.asarray([context], np.int32))
            last, scores = self._rows(generator)[-1:], []
            for choice in question.choices:
                rows = last
                if len(choice) > 1:
                    generator.rewind_to(len(context))
                    generator.append_tokens(np.asarray([choice[:-1]], np.int32))
                    rows = np.concatenate([last, self._rows(generator)])
                scores.append(LogSoftmax(rows).score(range(len(choice)), choice))
            yield index, scores

    def receipts(self) -> Mapping[str, str]:
        """From the load's log, the file and a short run's profile; UserError where a node ran on another provider."""
        nodes = self._profile()
        receipts.check_provider(nodes, self.provider)
        profiled = receipts.of_nodes(nodes)
        levels = [f"{_ACCURACY.get(n, 'any type')} by accuracy_level {n}" for n in self.weights.accuracy_levels]
        inside = f" in and out, inside MatMulNBits down to {', '.join(levels)}" if levels else ""
        packed = f", {self.weights.packed}" if self.weights.packed else ""
        return {
            **profiled,
            "compute_dtype": profiled["compute_dtype"] + inside,
            "weight_dtype": self.weights.dtypes + packed,
            "kv_dtype": self.kv_cache[0] if self.kv_cache else "none yet",
            "threads": str(self.threads),
            "device": self.device,
            "logits": "of the generator, for the tokens it is fed; choices each after a context fed once",
            "onnxruntime": _version("onnxruntime", "onnxruntime-gpu"),
            "onnxruntime_genai": _version("onnxruntime-genai", "onnxruntime-genai-cuda"),
        }

    def memory(self) -> Mapping[str, int]:
        """`weights_bytes` as stored in the file; `kv_bytes`: the cache of the last `generate`."""
        sizes = {"weights_bytes": self.weights.size, "unread_bytes": self.weights.looked_up}
        if self.kv_cache:
            _, sizes["kv_bytes"], sizes["kv_token_bytes"] = self.kv_cache
        return sizes

    def _generate(self, generator: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        import numpy as np

        generator.append_tokens(np.asarray(prompts, np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
            tokens = generator.get_next_tokens()
            yield DecodeStep(time.perf_counter(), tuple(tokens.tolist()))
        self.kv_cache = self._kv_cache(generator)  # copies it: not between two steps

    def _generator(self, batch: int, tokens: int) -> Any:
        import onnxruntime_genai as og

        check_context(tokens, self.context)
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=tokens, batch_size=batch, do_sample=False)
        return og.Generator(self.model, params)

    def _rows(self, generator: Any) -> Any:
        import numpy as np

        return np.array(generator.get_output("logits")[0], np.float32)

    def _kv_cache(self, generator: Any) -> tuple[str, int, int]:
        """Type and bytes of the keys and values of all layers, and of those of one token, by the first layer's.

        These are [batch, heads, tokens, size].
        """
        names = self.config["decoder"]["outputs"]
        layers = int(self.config["decoder"]["num_hidden_layers"])
        key, value = (generator.get_output(names[kind] % 0) for kind in ("present_key_names", "present_value_names"))
        size = layers * (key.nbytes + value.nbytes)
        return str(key.dtype), size, size // (key.shape[0] * key.shape[2])

    def _profile(self) -> list[Node]:
        import numpy as np

        with tempfile.TemporaryDirectory() as scratch:
            generator = self._generator(1, 3)
            generator.set_runtime_option("enable_profiling", str(Path(scratch) / "run"))
            generator.append_tokens(np.asarray([[5]], np.int32))
            generator.generate_next_token()
            generator.generate_next_token()
            del generator
            return receipts.profiled_nodes(Path(scratch))


def load(scratch: Path, folder: Path, device: str) -> tuple[Any, int]:
    """The model of the settings and links in `scratch`, and the threads of its pool; UserError where it cannot."""
    import onnxruntime
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    if device.startswith("cuda"):
        if not og.is_cuda_available():
            raise UserError(
                f"the cell asks for {device}, and this ONNX Runtime GenAI has no CUDA: install its cuda build"
            )
        onnxruntime.preload_dlls()
    try:
        with captured_output(2, quiet=receipts.VERBOSE) as log:
            model = og.Model(og.Config(str(scratch)))
    except RuntimeError as error:
        raise load_error("ONNX Runtime", error, scratch, folder) from error
    return model, receipts.pool_threads(log[0])


def _version(*packages: str) -> str:
    """Of the first of these that is installed."""
    for package in packages[:-1]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return importlib.metadata.version(packages[-1])
