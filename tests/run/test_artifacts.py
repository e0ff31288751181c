"""Steps that a method wants taken first, with methods of this file's own in the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantize.methods
from bench.contract.errors import UserError
from bench.contract.spec import Recipe, Step
from bench.machine import hardware as machine
from bench.models.resolve import Resolved
from bench.run import artifacts, plan
from bench.suite import config
from tests.run import fake_runs

# A method whose small types are made from its own wide one, as quantizers of converted files are.
_METHOD = '''
"""A method for tests."""
from dataclasses import dataclass
from bench.contract.spec import Step
ENV, VERSION, READS, WRITES = "core", 1, frozenset({"hf", "gguf"}), "gguf"
@dataclass(frozen=True)
class Options:
    """Options."""
    type: str = "wide"
    dtype: str = "auto"
    seed: int = 7
def unsupported(options, source, hardware):
    return None
def prerequisites(options, source_format):
    return {BEFORE}
def apply(folder, options, out, device):
    raise NotImplementedError
'''
_WIDE_FIRST = '(Step("two", {"type": "wide"}),) if source_format == "hf" and options.type != "wide" else ()'


@pytest.fixture(autouse=True)
def _registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`two` makes its small types from its wide one; `loop` wants itself; `typo` misspells an option."""
    folder = tmp_path / "methods"
    folder.mkdir()
    for name, before in {
        "two": _WIDE_FIRST,
        "three": '(Step("two", {"type": "small"}),)',
        "loop": '(Step("loop", {"type": options.type + "x"}),)',
        "typo": '(Step("two", {"tipe": "wide"}),)',
    }.items():
        (folder / f"{name}.py").write_text(_METHOD.replace("{BEFORE}", before))
    monkeypatch.setattr(quantize.methods, "__path__", [*quantize.methods.__path__, str(folder)])
    assert quantize.methods.__spec__ is not None
    monkeypatch.setattr(quantize.methods.__spec__, "submodule_search_locations", quantize.methods.__path__)


def _steps(*steps: Step, source: str = "hf") -> tuple[Step, ...]:
    return artifacts.steps_for(Recipe("r", steps), machine.detect("cpu"), source)


def _two(kind: str) -> Step:
    return Step("two", {"type": kind, "dtype": machine.detect("cpu").compute_dtype, "seed": 7})


def test_a_step_brings_the_steps_before_it() -> None:
    """With all their options, `auto` settled; none where the source is already what they make."""
    small = Step("two", {"type": "small", "dtype": "auto", "seed": 7})

    assert _steps(small) == (_two("wide"), _two("small"))
    assert _steps(small, source="gguf") == (_two("small"),)
    assert _steps(_two("wide"), small) == (_two("wide"), _two("small"))
    assert _steps(Step("none", {"dtype": "float16"}), small)[1:] == (_two("wide"), _two("small"))


def test_what_comes_before_may_have_its_own_before() -> None:
    """The expansion goes on until nothing more is wanted."""
    whole = config.options("quantize.methods", "three", {}, "three")

    assert [s.method for s in _steps(Step("three", whole))] == ["two", "two", "three"]


def test_an_endless_expansion_is_one_sentence() -> None:
    """A method that always wants another step first is named; so is a step with an unknown option."""
    with pytest.raises(UserError, match=r"^method loop cannot be planned: .* without end \(loop\)"):
        _steps(Step("loop", {"type": ""}))
    with pytest.raises(UserError, match=r"^typo: prerequisites\.tipe: unknown key; did you mean 'type'"):
        _steps(Step("typo", {}))


def test_the_methods_that_ship_take_one_step() -> None:
    """A baseline, GPTQ, AWQ and bitsandbytes need nothing first."""
    for method in ("none", "gptq", "awq", "bnb"):
        whole = config.options("quantize.methods", method, {}, method)
        assert len(_steps(Step(method, whole))) == 1


@pytest.mark.usefixtures("cache")
def test_two_recipes_share_what_comes_first(tmp_path: Path) -> None:
    """The wide artifact is one entry of the cache for every type; the plan shows both steps."""
    kinds = ("wide", "small", "smaller")
    recipes = [{"name": kind, "steps": [{"method": "two", "type": kind}]} for kind in kinds]
    suite = fake_runs.suite(recipes=recipes, workloads=[{"batch": 1}])
    wide, *rest = plan.plan(suite, fetch=False).artifacts
    identity = Resolved(tmp_path, "x", "hf").identity

    assert [m.format for m in (wide, *rest)] == ["gguf"] * 3
    assert {artifacts.digests(identity, m.steps)[0] for m in (wide, *rest)} == set(
        artifacts.digests(identity, wide.steps)
    )
    assert [len(m.steps) for m in (wide, *rest)] == [1, 2, 2]
    assert len({m.digest for m in (wide, *rest)}) == 3
