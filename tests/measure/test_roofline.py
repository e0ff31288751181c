from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from bench.contract.record import Architecture, Artifact, Audit, Hardware, RequestTrace, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.contract.workload import Closed, Offline, Sweep, Workload
from bench.measure import roofline
from bench.measure.sanity import check

# Two layers of 16 dimensions, four heads of four, two of them kept; ten words.
GROUPED = Architecture(2, 16, 4, 2, 4, 10, tied_head=True)
LINEARS = 1000  # parameters of its linear layers, but for the tied head
MEASURED = {"bandwidth": {"1000": 900.0, "4000": 500.0, "16000": 100.0}, "flop_per_s": {"float32": 1e5}}
VENDOR = {"bandwidth": {"0": 400.0}, "flop_per_s": {"float16": 1e6, "float32": 2e5}}
HARDWARE = Hardware("cpu", "cpu-x", "x", 2**34, "x", 2, 2**34, (), "float32", "Linux")
SEEN = {"compute_dtype": "float32", "kv_dtype": "float32 100%"}


def a_result(
    facts: Mapping[str, Any], receipts: Mapping[str, str], load: Workload | None = None, *, tied: bool = True
) -> Result:
    load = load or Offline(batch=3, prompt_tokens=8, new_tokens=4)
    audit = Audit("hf", 0, 0, 0, LINEARS, 0, 32.0, 0.0, tied_head=tied, vocab_size=10, context=64)
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("hf"), "cpu", load)
    known = {"architecture": dataclasses.asdict(GROUPED), "ceiling": {"measured": MEASURED}}
    artifact_ = Artifact("a", "hf", "m", (), audit)
    return Result("d", "s", cell, 0, "ok", HARDWARE, artifact=artifact_, receipts=receipts, facts={**known, **facts})


def test_keys_and_values_by_hand() -> None:
    """2 tensors x 2 layers x 2 kept heads x 4 dimensions x 10 tokens: 320 numbers; q8_0 has 8.5 bits each."""
    assert roofline.kv_bytes(GROUPED, 32, 10) == 4 * 320
    assert roofline.kv_bytes(GROUPED, 16, 10) == 2 * 320
    assert roofline.kv_bytes(GROUPED, 8.5, 10) == 340
    assert roofline.kv_bytes(dataclasses.replace(GROUPED, window=6), 32, 10) == 4 * 192


def test_operations_of_a_token_by_hand() -> None:
    """2 x (1000 + a tied head of 160) + 4 x 2 layers x 4 heads x 4 dimensions x 10 tokens."""
    assert roofline.token_flop(GROUPED, LINEARS, 10) == 2 * 1160 + 1280
    untied = dataclasses.replace(GROUPED, tied_head=False)
    assert roofline.token_flop(untied, LINEARS, 10) == 2 * 1000 + 1280


def test_operations_of_a_prompt_by_hand() -> None:
    """The body for each of 4 tokens, the head once, attention to 1 + 2 + 3 + 4 tokens, by a window less."""
    attention = 4 * 2 * 4 * 4
    assert roofline.prefill_flop(GROUPED, LINEARS, 4) == 2 * (4000 + 160) + attention * 10
    untied = dataclasses.replace(GROUPED, tied_head=False)
    assert roofline.prefill_flop(untied, LINEARS, 4) == 2 * (840 * 4 + 160) + attention * 10
    windowed = dataclasses.replace(GROUPED, window=2)
    assert roofline.prefill_flop(windowed, LINEARS, 4) == 2 * (4000 + 160) + attention * (1 + 2 + 2 + 2)


def test_a_prompt_after_a_context_attends_to_it_too() -> None:
    """3 tokens after 10 attend to 11 + 12 + 13; with a window of 4 to 4 each, and with one of 12 to 11 + 12 + 12."""
    attention = 4 * 2 * 4 * 4
    for window, attended in {0: 36, 4: 12, 12: 35}.items():
        architecture = dataclasses.replace(GROUPED, window=window)
        assert roofline.prefill_flop(architecture, LINEARS, 3, 10) == 2 * (3000 + 160) + attention * attended


def test_a_step_at_a_depth_reads_the_context_too() -> None:
    """The keys and values of 3 sequences of 100 tokens more, in 8.5 and 4.5 bits: 6.5 on average."""
    types = {"compute_dtype": "float32", "kv_dtype_k": "q8_0", "kv_dtype_v": "q4_0"}
    shallow, deep = (
        roofline.roofline_metrics(a_result({"weights_bytes": 4000, **depth}, types), (), {"tpot_s": 1.0})
        for depth in ({}, {"depth_tokens": 100})
    )

    assert roofline.kv_bits(types) == 6.5
    assert deep["decode_step_bytes"] - shallow["decode_step_bytes"] == 3 * roofline.kv_bytes(GROUPED, 6.5, 100)


def test_a_sweep_over_the_depth_has_a_roofline_at_each() -> None:
    """By what was in the cache there; another sweep has none."""
    sweep = Sweep(over="depth", depth_tokens=100, most=300, prompt_tokens=8, new_tokens=4)
    metrics = {"output_tok_per_s": 10.0, "tpot_s": 0.1}
    result = a_result({"weights_bytes": 4000}, SEEN, sweep)
    at = [roofline.depth_stage_metrics(result, {"level": level, "metrics": metrics}) for level in (100, 300)]
    other = a_result({"weights_bytes": 4000}, SEEN, Sweep())

    assert at[1]["roofline_s"] - at[0]["roofline_s"] == pytest.approx(roofline.kv_bytes(GROUPED, 32, 200) / 100)
    assert roofline.depth_stage_metrics(other, {"level": 1, "metrics": metrics}) == {}


def test_the_ceiling_of_a_working_set_is_that_of_a_smaller_one() -> None:
    """The largest measured set that is no larger, so that what lies between is bounded from above."""
    known = {"measured": MEASURED}
    sizes = (1, 1000, 3999, 4000, 15999, 16000, 10**9)
    metrics_ = [roofline.bandwidth_for(known, size) or 0.0 for size in sizes]

    assert metrics_ == [900, 900, 900, 500, 500, 100, 100]
    assert metrics_ == sorted(metrics_, reverse=True)


def test_a_cache_may_beat_the_vendors_memory() -> None:
    """The vendor's figure is the memory's: a set that was measured faster had it from a cache."""
    both = {"vendor": VENDOR, "measured": MEASURED}
    assert roofline.bandwidth_for(both, 2000) == 900
    assert roofline.bandwidth_for(both, 10**9) == 400
    assert roofline.bandwidth_for({}, 10) is None


def test_operations_are_the_vendors_where_it_states_them() -> None:
    """Of several types the fastest, none where one has no figure. What it cannot tell apart is one."""
    both = {"vendor": VENDOR, "measured": MEASURED}
    assert roofline.flop_for(both, ("float32",)) == 2e5
    assert roofline.flop_for(both, ("float16", "float32")) == 1e6
    assert roofline.flop_for(both, ("float16_acc16",)) == 1e6
    assert roofline.flop_for({"measured": VENDOR}, ("float16_acc16",)) is None
    assert roofline.flop_for(both, ("tf32",)) == 2e5
    assert roofline.flop_for(both, ("float32", "int8")) is None
    assert roofline.flop_for(both, ()) is None


@pytest.mark.parametrize(
    ("receipts", "dtypes", "bits"),
    [
        ({"compute_dtype": "f32", "kv_dtype": "u8"}, ("float32",), 8),
        ({"compute_dtype": "bfloat16", "kv_dtype": "float8_e4m3fn"}, ("bfloat16",), 8),
        ({"compute_dtype": "float32 activations", "product_dtype": "int8", "kv_dtype": "f16"}, ("int8",), 16),
        ({"product_dtype": "int8 per token, dynamic x35", "kv_dtype": "q8_0"}, ("int8",), 8.5),
        (
            {"compute_dtype": "float32 in and out, inside MatMulNBits down to int8 by accuracy_level 4"},
            ("float32", "int8"),
            None,
        ),
        ({"compute_dtype": "none", "kv_dtype": "none yet"}, (), None),
    ],
)
def test_types_are_read_from_receipts(receipts: Mapping[str, str], dtypes: tuple[str, ...], bits: float | None) -> None:
    """As each engine spells them; what products are in goes before what activations are."""
    assert roofline.product_dtypes(receipts) == dtypes
    assert roofline.kv_bits(receipts) == bits


def test_a_static_batch_by_hand() -> None:
    """5000 bytes of weights, and three sequences that attend to 8 + 4 / 2 tokens on average."""
    facts = {"weights_bytes": 5000}
    metrics_ = roofline.roofline_metrics(a_result(facts, SEEN), (), {"tpot_s": 20.0, "ttft_s": 2.0})
    size, work = 5000 + 3 * 4 * 320, 3 * (2 * 1160 + 1280)
    prompt = 3 * (2 * (8 * 1000 + 160) + 4 * 2 * 4 * 4 * 36)

    assert metrics_["decode_step_bytes"] == size
    assert metrics_["decode_step_flop"] == work
    assert metrics_["mbu_fraction"] == pytest.approx(size / 20 / 500)
    assert metrics_["decode_mfu_fraction"] == pytest.approx(work / 20 / 1e5)
    assert metrics_["mfu_fraction"] == pytest.approx(prompt / 2 / 1e5)
    assert metrics_["roofline_s"] == pytest.approx(size / 500)
    assert metrics_["roofline_fraction"] == pytest.approx(size / 500 / 20)


def test_arithmetic_may_be_the_lower_roof() -> None:
    """Where operations take longer than bytes, the least time of a step is theirs."""
    slow = {"bandwidth": {"0": 1e9}, "flop_per_s": {"float32": 1e3}}
    facts = {"weights_bytes": 5000, "ceiling": {"measured": slow}}
    metrics_ = roofline.roofline_metrics(a_result(facts, SEEN), (), {"tpot_s": 20.0})

    assert metrics_["roofline_s"] == pytest.approx(metrics_["decode_step_flop"] / 1e3)


def test_an_embedding_that_is_not_the_head_is_not_read() -> None:
    """What the engine names as unread is left out; where it names nothing and the head is apart, no MBU."""
    tied, load = GROUPED, roofline.Load(1, 8, 10)
    kv = roofline.kv_bytes(tied, 32, 10)

    assert roofline.step_bytes({"weights_bytes": 5000}, SEEN, tied, load) == 5000 + kv
    named = {"weights_bytes": 5000, "unread_bytes": 640}
    assert roofline.step_bytes(named, SEEN, dataclasses.replace(tied, tied_head=False), load) == 4360 + kv
    unknown = a_result({"weights_bytes": 5000}, SEEN, tied=False)
    assert "mbu_fraction" not in roofline.roofline_metrics(unknown, (), {"tpot_s": 1.0})


def test_a_head_is_counted_once() -> None:
    """A conversion gave a tied head its own matrix: it is a linear layer, whatever the config says."""
    metrics_ = roofline.roofline_metrics(a_result({}, SEEN, tied=False), (), {"tpot_s": 1.0})
    assert metrics_["decode_step_flop"] == 3 * (2 * LINEARS + 1280)


def test_nothing_is_said_of_what_is_not_known() -> None:
    """No ceiling, no weights or no type of the cache: no figure, rather than a guess."""
    assert roofline.roofline_metrics(a_result({"ceiling": {}}, SEEN), (), {"tpot_s": 1.0}) == {}
    for facts, receipts in (({}, SEEN), ({"weights_bytes": 0}, SEEN), ({"weights_bytes": 5}, {})):
        metrics_ = roofline.roofline_metrics(a_result(facts, receipts), (), {"tpot_s": 1.0})
        assert "mbu_fraction" not in metrics_
        assert "roofline_s" not in metrics_


def test_a_servers_batch_is_what_decodes_together() -> None:
    """Ten tokens a second, each in a quarter of one: 2.5 sequences, however many wait."""
    traces = [
        RequestTrace(0, 0, 10, 0.0, 0.0, (1.0, 2.0), (1, 1)),
        RequestTrace(1, 0, 20, 0.0, 0.0, (1.0,), (6,)),
        RequestTrace(2, 0, 99, 0.0, 0.0, (), (), "reset"),
    ]
    load = Closed(concurrency=4, requests=3)
    measured = {"concurrency": 200.0, "output_tok_per_s": 10.0, "tpot_s": 0.25}
    metrics_ = roofline.load_of(load, traces, measured)
    slow = roofline.load_of(load, traces, {"output_tok_per_s": 1.0, "tpot_s": 0.25})

    assert metrics_ == roofline.Load(2.5, (10 * 2 + 20 * 6) / 8, (11 * 2 + 23 * 6) / 8)
    assert slow is not None
    assert slow.batch == 1
    assert roofline.load_of(load, traces, {}) is None


@pytest.mark.parametrize(
    ("figures", "client", "word"),
    [
        ({"roofline_fraction": 0.5, "mbu_fraction": 0.5, "decode_mfu_fraction": 0.1}, False, "memory"),
        ({"roofline_fraction": 0.5, "mbu_fraction": 0.5}, False, "memory"),
        ({"roofline_fraction": 0.6, "mbu_fraction": 0.3, "decode_mfu_fraction": 0.6}, False, "compute"),
        ({"roofline_fraction": 0.39, "mbu_fraction": 0.39, "decode_mfu_fraction": 0.1}, False, "launch"),
        ({"roofline_fraction": 0.1, "mbu_fraction": 0.1}, False, ""),
        ({"roofline_fraction": 0.9, "mbu_fraction": 0.9}, True, "client"),
        ({}, False, ""),
    ],
)
def test_what_bounds_a_step(figures: Mapping[str, float], word: str, *, client: bool) -> None:
    """From 0.4 of the roofline on the nearer ceiling; below it the overhead, if both ceilings are known."""
    assert roofline.bound(figures, client=client) == word


@pytest.mark.parametrize("key", roofline.FRACTIONS)
def test_more_than_a_device_can_do_is_refused(key: str) -> None:
    """A fraction of a ceiling above one is a mistake somewhere, and is not published."""
    over = dataclasses.replace(a_result({}, SEEN), metrics={key: 1.01})
    assert any(sentence.startswith(f"{key} is 1.01, more than") for sentence in check(over, (), None))
    assert check(dataclasses.replace(over, metrics={key: 1.0}), (), None) == []
