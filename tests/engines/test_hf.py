"""The hf engine on the demo model, against Transformers used by hand in the same environment."""

from __future__ import annotations

import http.client
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit, Gpu, Hardware, Source
from bench.contract.server import Server
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.engines import hf
from bench.envs import environment
from bench.load import client
from bench.load.job import ClosedSchedule, Endpoint, LoadJob, Request
from bench.load.request import body
from bench.process import server as serving
from tests.conftest import ROOT, json_of

_NEW = 24
_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)


@pytest.fixture(scope="module")
def checks(hf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What hf_checks.py saw, on 20,000 tokens of the file LLM_BENCH_WIKITEXT names or else of the stdlib."""
    text = os.environ.get("LLM_BENCH_WIKITEXT")
    words = (ROOT / "models/demo", f"path:{text}" if text else "stdlib", "20000")
    return json_of(
        hf_python,
        "engines/hf_checks.py",
        *words,
        cwd=tmp_path_factory.mktemp("hf"),
        timeout=3600,
        variables={"GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["512", "1024"])
def test_perplexity_is_that_of_a_plain_loop(checks: Any, which: int) -> None:
    """Ours equals exp of the mean loss of `model(ids, labels=ids)` over the same windows, to 1e-5 of it."""
    check = checks["perplexity"][which]

    assert check["ours"] == pytest.approx(check["plain"], rel=1e-5)


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["batch1", "batch3"])
def test_generate_makes_the_greedy_tokens_one_step_at_a_time(checks: Any, which: int) -> None:
    """Exactly the asked steps, stamped in order, with the tokens of a plain loop without a cache."""
    check = checks["generate"][which]

    assert check["tokens"] == check["plain"]
    assert len(check["times"]) == _NEW
    assert all(a < b for a, b in pairwise(check["times"]))


@pytest.mark.engine
@pytest.mark.parametrize("which", [0, 1], ids=["batch1", "batch3"])
def test_memory_is_the_tensors_own(checks: Any, which: int) -> None:
    """Weights count a tied head once; the cache holds every token but the last one made."""
    check = checks["generate"][which]

    sizes = ("kv_bytes", "kv_token_bytes", "weights_bytes")
    assert check["memory"] == {"unread_bytes": 0, **{size: check[size] for size in sizes}}


@pytest.mark.engine
def test_no_end_token_and_no_penalty_of_the_checkpoint_applies(checks: Any) -> None:
    """A checkpoint that would stop after two tokens and penalize repetition makes all tokens all the same."""
    check = checks["eos"]

    assert check["stopping_steps"] < _NEW
    assert check["ours"] == check["plain"]


@pytest.mark.engine
def test_receipts_say_what_ran(checks: Any) -> None:
    """Dtype, attention and cache are the loaded model's; eager attention, static cache: the same tokens."""
    usual, other, narrow = checks["variants"]

    expected = {
        "kernel": "Linear x36",
        "weight_dtype": "float32 100%",
        "compute_dtype": "float32",
        "attention": "sdpa",
        "kv_dtype": "float32 100%",
        "threads": "1",
    }
    assert {key: usual["receipts"][key] for key in expected} == expected
    assert (other["receipts"]["attention"], other["receipts"]["cache"]) == ("eager", "static")
    assert other["tokens"] == usual["tokens"]
    assert narrow["receipts"]["weight_dtype"].startswith("bfloat16")
    assert narrow["receipts"]["compute_dtype"] == "bfloat16"
    assert narrow["memory"]["weights_bytes"] == pytest.approx(usual["memory"]["weights_bytes"] / 2, rel=1e-3)


@pytest.mark.engine
def test_logits_in_blocks_are_those_of_one_pass(checks: Any) -> None:
    """One block of 300 rows is the plain pass; five over a KV cache differ by rounding only."""
    assert checks["blocks"]["1"] == 0.0
    assert checks["blocks"]["5"] < 1e-4


@pytest.mark.engine
def test_a_table_that_is_not_the_head_is_not_read(checks: Any) -> None:
    """An input embedding with a head beside it is looked up in: its bytes are named as unread."""
    assert checks["untied"]["unread"] == checks["untied"]["table"]


@pytest.mark.engine
def test_nf4_computes_in_the_dtype_asked_for(checks: Any) -> None:
    """The artifact's config says bfloat16, the option float32: float32 it is, on 4-bit weights."""
    check = checks["nf4"]

    assert check["steps"] == 4
    assert check["receipts"]["kernel"] == "Linear4bit x35, Linear x1"
    assert check["receipts"]["compute_dtype"] == "float32"
    assert "uint8" in check["receipts"]["weight_dtype"]
    whole = checks["generate"][0]["memory"]["weights_bytes"]
    assert check["memory"]["weights_bytes"] < 0.4 * whole


@pytest.mark.engine
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "a .safetensors file of the artifact is damaged"),
        ("lacking", "lack 18 tensors of its config.json"),
        ("misshapen", "have the wrong shape for 1 tensors"),
        ("alien", "model type `zorgon` but Transformers does not recognize"),
        ("bare", "no config.json"),
        ("long", "1028 tokens exceed the model's context of 1024"),
    ],
)
def test_what_cannot_run_is_one_sentence_without_a_path(checks: Any, how: str, words: str) -> None:
    """Transformers would fill missing tensors with noise and log it: here it is an error like the others."""
    sentence = checks["broken"][how]

    assert words in sentence
    assert len(sentence.splitlines()) == 1
    assert "/hf" not in sentence


def _hardware(capability: str = "", dtype: str = "bfloat16") -> Hardware:
    gpus = (Gpu(0, "GPU", 1, capability, "1"),) if capability else ()
    return Hardware("cuda:0" if gpus else "cpu", "s", "n", 1, "c", 2, 1, (), dtype, "Linux", gpus)


def test_a_quantized_cache_is_refused_with_what_it_would_need() -> None:
    """Its packages are not in the environment."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf", {"cache": "quantized"}), "cpu")

    assert "need optimum-quanto or hqq" in (hf.unsupported(cell, "hf", _hardware()) or "")


@pytest.mark.parametrize(
    ("hardware", "options", "reason"),
    [
        (_hardware(dtype="float32"), {}, None),
        (_hardware(dtype="float32"), {"attention": "flash_attention_2"}, "CUDA GPUs only"),
        (_hardware("7.5", "float16"), {"attention": "flash_attention_2"}, "capability 8.0"),
        (_hardware("9.0"), {"attention": "flash_attention_2"}, None),
        (_hardware("9.0"), {"attention": "flash_attention_2", "dtype": "float32"}, "16 bits only"),
    ],
)
def test_flash_attention_is_refused_where_it_cannot_run(
    hardware: Hardware, options: dict[str, str], reason: str | None
) -> None:
    """Known before anything is tried: no GPU, an old one, 32 bits."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf", options), hardware.device)

    refusal = hf.unsupported(cell, "hf", hardware)

    assert (refusal is None) if reason is None else (reason in (refusal or ""))


def test_packed_weights_on_a_gpu_are_computed_in_16_bits() -> None:
    """No kernel of gptqmodel on CUDA takes 32-bit activations; on a CPU one does."""
    for hardware, words in ((_hardware("9.0"), "in 16 bits only"), (_hardware(), "")):
        cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf", {"dtype": "float32"}), hardware.device)
        assert words in (hf.unsupported(cell, "gptq", hardware) or "")
        assert (hf.unsupported(cell, "gptq", hardware) is None) == (not words)


def test_a_format_transformers_does_not_read_is_refused() -> None:
    """GGUF goes to llama.cpp."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf"), "cpu")

    assert "gguf" in (hf.unsupported(cell, "gguf", _hardware()) or "")


@pytest.mark.parametrize(
    ("model_type", "stored", "reason"),
    [
        ("qwen3_moe", "gptq", "GPTQ packs each expert by itself"),
        ("mixtral", "awq", "AWQ packs each expert by itself"),
        ("mixtral", "bnb", ""),
        ("gpt2", "gptq", "Transformers' gpt2 reads the weight of c_proj when it is loaded"),
        ("gpt2", "hf", ""),
        ("llama", "gptq", ""),
    ],
)
def test_packed_layers_that_transformers_finds_nowhere(model_type: str, stored: str, reason: str) -> None:
    """It would make up the experts at random, or fail on a weight that is not there."""
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf"), "cpu")
    config = {"model_type": model_type, **({"num_experts": 8} if model_type == "qwen3_moe" else {})}
    refusal = hf.unsupported_model(Source("hf", {}, config), cell, stored, _hardware())

    assert (refusal or "").startswith(reason)
    assert bool(refusal) == bool(reason)


def _model(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder


def _serve(folder: Path, device: str = "cpu", **options: Any) -> Server:
    return hf.serve(folder, _ARTIFACT, hf.Options(**options), "/env/bin/python", 8123, device)


def test_the_server_is_told_everything(tmp_path: Path) -> None:
    """One model, loopback, float32 and a bounded cache on a CPU; nothing is looked up elsewhere."""
    launch = _serve(_model(tmp_path), threads=2)

    start = ("/env/bin/python", "-m", "transformers.cli.transformers", "serve", str(tmp_path))
    assert launch.argv[:5] == start
    pairs = dict(pairwise(launch.argv))
    expected = {
        "--host": "127.0.0.1",
        "--port": "8123",
        "--device": "cpu",
        "--dtype": "float32",
        "--cb-num-blocks": "128",
    }
    assert {key: pairs[key] for key in expected} == expected
    assert "--attn-implementation" not in launch.argv  # sdpa, where the architecture has it
    assert "--continuous-batching" in launch.argv
    assert launch.variables == {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "2"}
    assert (launch.model, launch.takes_ids) == (str(tmp_path), False)
    on_gpu = _serve(tmp_path, "cuda:0")
    assert "--continuous-batching" in on_gpu.argv
    assert not {"--cb-num-blocks", "--cb-max-batch-tokens"} & set(on_gpu.argv)
    assert dict(pairwise(on_gpu.argv))["--dtype"] == "auto"


def test_a_request_to_the_server_has_no_end_token(tmp_path: Path) -> None:
    """The field that it refuses is removed; its own is greedy, with an end token that no token is."""
    extra = _serve(_model(tmp_path)).extra

    assert extra["ignore_eos"] is None
    document = json.loads(extra["generation_config"])
    assert (document["eos_token_id"], document["do_sample"], document["repetition_penalty"]) == (-1, False, 1.0)


def test_a_static_cache_is_served_one_by_one(tmp_path: Path) -> None:
    """Continuous batching has a cache of its own: together they are refused, alone it gives way."""
    launch = _serve(_model(tmp_path), cache="static")

    assert "--continuous-batching" not in launch.argv
    assert json.loads(launch.extra["generation_config"])["cache_implementation"] == "static"
    with pytest.raises(UserError, match="a cache of its own"):
        _serve(tmp_path, cache="static", continuous_batching="on")


def test_the_server_is_not_asked_for_another_arithmetic(tmp_path: Path) -> None:
    """In process a bitsandbytes artifact computes in the dtype asked for, the server in the one stored."""
    stored = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}
    _model(tmp_path, quantization_config=stored)

    with pytest.raises(UserError, match="in bfloat16 only, not in float32"):
        _serve(tmp_path)
    assert _serve(tmp_path, dtype="bfloat16").argv
    assert _serve(tmp_path, "cuda:0").argv


def test_the_servers_log_is_read() -> None:
    """Whether requests were computed together; made-up weights, which are a line of its log, are an error."""
    request = "[transformers] [Request received] Model: /m@main, CB: {}\n"

    assert hf.read_log(request.format("True")) == ({"continuous_batching": "on"}, {})
    assert hf.read_log(request.format("False")) == ({"continuous_batching": "off"}, {})
    assert hf.read_log("INFO:     Started server process [1]\n") == ({}, {})
    with pytest.raises(UserError, match=r"first model\.layers\.0\.q\.weight"):
        hf.read_log("model.layers.0.q.weight | MISSING | \n")


@pytest.mark.engine
@pytest.mark.parametrize("batching", ["on", "off"])
def test_the_server_makes_the_greedy_tokens(checks: Any, hf_python: Path, batching: Any) -> None:
    """Exactly as many as asked, an event each, whatever end token and penalty the checkpoint suggests."""
    check, port = checks["served"], serving.free_port()
    options = hf.Options(threads=1, continuous_batching=batching, kv_blocks=8)
    server = hf.serve(Path(check["folder"]), _ARTIFACT, options, str(hf_python), port, "cpu")
    endpoint = Endpoint(f"http://127.0.0.1:{port}", server.model, extra=server.extra)
    asks = tuple(Request(_NEW, text=check["prompt"]) for _ in range(12))
    env = environment.ensure("hf", print)

    with serving.running(server, port, env, "cpu", timeout_s=120) as live:
        text = _completed(endpoint, asks[0])
        answer = client.run(LoadJob(endpoint, asks, closed=ClosedSchedule(2)))
        receipts, _ = hf.read_log(live.log.text if live.log else "")

    assert text == check["text"]
    assert receipts == {"continuous_batching": batching}
    assert [(s.failure, s.usage_tokens, s.trace.event_tokens) for s in answer.measured] == [
        (None, _NEW, (1,) * _NEW)
    ] * 8


def _completed(endpoint: Endpoint, ask: Request) -> str:
    """The text of one streamed answer."""
    data, kind = json.dumps(body(endpoint, ask)).encode(), {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(endpoint.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions", data, kind)
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return "".join(event["choices"][0]["text"] for event in events)
