"""llama.cpp, in process, through the C API that llama-cpp-python binds: GGUF files on CPUs and GPUs.

The C API and not the binding's `Llama` class: static batches, no reuse of a prefix, a stamp at every step.
Buffers, offloaded layers and flash attention are in the library's log alone, which is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Hardware
from bench.contract.server import Server
from bench.contract.spec import Cell
from bench.contract.speculation import SINCE
from bench.contract.workload import Trace
from bench.engines.llamacpp import speculation
from bench.engines.llamacpp.log import Log, is_on_gpu
from bench.engines.llamacpp.session import LlamaSession, Options

__all__ = [
    "DEPTH_MODES",
    "ENV",
    "LAYER_FORMATS",
    "LOADS",
    "MODES",
    "OPTIONS_SINCE",
    "VERSION",
    "WITHOUT_WINDOW",
    "Options",
    "may_offload",
    "open",
    "read_log",
    "serve",
    "unsupported",
]

ENV = "llamacpp"
VERSION = 1
LOADS = LAYER_FORMATS = frozenset({"gguf"})
MODES = frozenset({"offline", "online", "score"})
DEPTH_MODES = frozenset({"offline", "online"})
OPTIONS_SINCE = frozenset({"kv_dtype_k", "kv_dtype_v", "prefix_caching"}) | SINCE
WITHOUT_WINDOW = frozenset({"mistral", "mixtral", "phi3"})  # llama.cpp's llama and phi3 have no windowed layers
_CUDA_FLASH = ("f32", "f16", "bf16", "q8_0", "q4_0")
_LOADS_DRAFT = "loading draft model"  # the line of its log below which the draft's buffers are
_SLOTS, _SLOT_TOKENS = 16, 4096  # of the server: requests computed together, and tokens for each


def unsupported(cell: Cell, artifact_format: str, hardware: Hardware) -> str | None:
    options = Options(**cell.engine.options)  # type: ignore[arg-type]  # validated against Options by the planner
    if cell.device.startswith("cuda") and options.n_gpu_layers == 0:
        return "n_gpu_layers is 0, which leaves the GPU unused: ask for the device cpu instead"
    if options.speculates and (reason := speculation.unsupported(options, cell)):
        return reason
    if options.needs_flash_attention and options.flash_attention == "off":
        return (
            f"llama.cpp reads values in {options.value_type} by flash attention alone: leave flash_attention on, or "
            "set kv_dtype_v: f16"
        )
    if cell.device.startswith("cuda") and (reason := _no_cuda_kernel(options)):
        return reason
    load = cell.workload
    if load and load.online and not isinstance(load, Trace) and load.longest > (room := _slot_tokens(options, 0)):
        return f"{load.longest} tokens exceed the {room} of a slot of llama-server: set the engine's option context"
    return None


def _no_cuda_kernel(options: Options) -> str | None:
    """Pairs of types without flash attention in a CUDA build as ours: it would run on the CPU, or not at all.

    Those of ggml-cuda/fattn.cu without GGML_CUDA_FA_ALL_QUANTS. Unquantized values are read without it unless it is on.
    """
    keys, values = options.key_type, options.value_type
    if not options.needs_flash_attention and options.flash_attention != "on":
        return None
    if (keys == values and keys in _CUDA_FLASH) or (keys, values) == ("q8_0", "q4_0"):
        return None
    return (
        f"llama.cpp's CUDA build has no flash attention for keys in {keys} with values in {values}: take one of "
        f"{', '.join(_CUDA_FLASH)} for both, or q8_0 with q4_0"
    )


def may_offload(options: Options) -> bool:
    """Layers that are not on the GPU are in the host's memory."""
    return options.n_gpu_layers >= 0


@contextmanager
def open(folder: Path, artifact: Artifact, options: Options, device: str) -> Iterator[LlamaSession]:  # noqa: A001
    """Load the GGUF file that `folder` is or holds; UserError when it, or the GPU asked for, is not there."""
    import llama_cpp.llama_cpp as lib

    log = Log()
    callback = lib.llama_log_callback(log.add)
    lib.llama_log_set(callback, None)
    on_gpu = device.startswith("cuda")
    if on_gpu and not lib.llama_supports_gpu_offload():
        raise UserError(
            f"the cell asks for {device}, and this llama.cpp has no GPU to use: "
            "build it where nvcc and a GPU are (bench envs remove llamacpp; bench envs build llamacpp)"
        )
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = options.n_gpu_layers if on_gpu else 0
    settings.split_mode = 0  # one device
    model = _loaded(lib, folder, settings, log)
    session = LlamaSession(lib, model, options, device, log, _model_file(folder))
    draft = None
    try:
        if on_gpu and not log.memory(on_gpu=True).get("weights_bytes"):
            raise UserError(f"the cell asks for {device}, and llama.cpp put no layer on it")
        if options.speculative_method == "draft":
            draft = _loaded(lib, Path(options.draft_path), settings, log)
        session.speculate(draft)
        yield session
    finally:
        session.close()
        lib.llama_model_free(model)
        if draft:
            lib.llama_model_free(draft)
        lib.llama_log_set(lib.llama_log_callback(), None)


def _loaded(lib: Any, folder: Path, settings: Any, log: Log) -> Any:
    model = lib.llama_model_load_from_file(str(_model_file(folder)).encode(), settings)
    if not model:
        raise UserError(f"llama.cpp cannot load the file: {log.reason(folder)}")
    return model


def serve(folder: Path, artifact: Artifact, options: Options, python: str, port: int, device: str) -> Server:
    """llama-server, with as many slots as it computes together.

    Each keeps its last prompt, and begins with what it has, where a request says so, or with `prefix_caching` always.
    """
    program = Path(python).with_name("llama-server")
    if not program.is_file():
        build = "python -m bench envs build llamacpp --tools"
        raise UserError(f"there is no llama-server beside {python}: build it with `{build}`, or put one there")
    context = _slot_tokens(options, artifact.audit.context)
    on_gpu = device.startswith("cuda")
    flags = {
        "--model": _model_file(folder),
        "--host": "127.0.0.1",
        "--port": port,
        "--alias": "model",
        "--ctx-size": context * _SLOTS,
        "--parallel": _SLOTS,
        "--batch-size": options.batch,
        "--ubatch-size": options.ubatch,
        "--flash-attn": options.flash_attention,
        "--cache-type-k": options.key_type,
        "--cache-type-v": options.value_type,
        "--cache-ram": 0,
        "--gpu-layers": (options.n_gpu_layers if options.n_gpu_layers >= 0 else "all") if on_gpu else 0,
    }
    flags |= speculation.flags(options, _model_file, on_gpu=on_gpu) if options.speculates else {}
    threads = ("--threads", str(options.threads)) if options.threads else ()
    template = ("--no-jinja", "--chat-template", "chatml")  # instead of the model's, which it would run at its start
    cache = "--cache-prompt" if options.prefix_caching else "--no-cache-prompt"
    # From this level on it names buffers, and the cache's types; 30 lines more a request, which take about 0.02 ms.
    log_level = ("--log-verbosity", "4")
    counted = ("--metrics",) if options.speculates else ()
    switches = ("--no-kv-unified", cache, "--no-webui", *template, *threads, *log_level, *counted)
    argv = (str(program), *(str(part) for flag in flags.items() for part in flag), *switches)
    return Server(argv, "model", reuse={"cache_prompt": True})


def _slot_tokens(options: Options, model_context: int) -> int:
    """Tokens for each request of the server; `model_context` 0 is not known."""
    return options.context or min(model_context or _SLOT_TOKENS, _SLOT_TOKENS)


def read_log(text: str) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """What runs, and its buffers in bytes, by the server's log; UserError where it left out the speculation.

    Receipts, and `weights_bytes`, are of the model without its draft.
    """
    speculation.check_log(text)
    own, _, draft = text.partition(_LOADS_DRAFT)
    log, whole = Log(own), Log(text)
    receipts = {**log.receipts(), "slots": str(_SLOTS), "system": whole.find(r"system_info: (.+)")}
    on_gpu = any(is_on_gpu(device) for device, _, _ in whole.buffers())
    sizes = whole.memory(on_gpu=on_gpu)
    if of_draft := Log(draft).memory(on_gpu=on_gpu).get("weights_bytes"):
        sizes |= {"weights_bytes": sizes["weights_bytes"] - of_draft, "draft_bytes": of_draft}
    return receipts, sizes


def _model_file(folder: Path) -> Path:
    """The model's file. Of a split one the first part, which sorts first; several models failed the audit."""
    if folder.is_file():
        return folder
    if not (files := sorted(folder.glob("*.gguf"))):
        raise UserError("the artifact has no GGUF file: make it again, or name the file itself")
    return files[0]
