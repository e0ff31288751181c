"""Where plugins run by their options and by formats; and that saying so made no committed record stale."""

from __future__ import annotations

import platform

import pytest

from bench.contract import plugins
from bench.contract.record import Hardware
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step
from bench.contract.workload import Offline
from bench.envs import environment
from bench.models import resolve
from bench.run import artifacts, plan, planned, task_inputs
from bench.suite import config

CPU = Hardware("cpu", "cpu", "cpu", 0, "cpu", 2, 0, (), "float32", "linux")


@pytest.fixture(autouse=True)
def _anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a digest takes from the machine, held still: the environments' builds and the Python release."""
    monkeypatch.setattr(environment, "identity", lambda name: f"env-{name}")
    monkeypatch.setattr(task_inputs, "_identity", lambda name: f"env-{name}")
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.7")


def _digests(recipe: Recipe) -> tuple[str, ...]:
    return artifacts.digests("model", artifacts.steps_for(recipe, CPU, "hf"))


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [("gptq-w4g128", "9d156cd08c79e85f"), ("awq-w4g128", "7e64541ae2d5d7a4"), ("nf4", "0db44e89853f8fc0")],
)
def test_a_recipe_has_the_digest_it_had_before_methods_had_backends(recipe: str, digest: str) -> None:
    """Artifacts and records made before are found: these were computed by the release before."""
    assert _digests(config.recipe_named(recipe)) == (digest,)


@pytest.mark.parametrize(("engine", "digest"), [("hf", "a850d8d93794cebd"), ("vllm", "485f21a196015f0b")])
def test_a_cell_has_the_digest_it_had_before_engines_had_environments(engine: str, digest: str) -> None:
    """A format that an engine runs in its own environment, as before."""
    resolved = resolve.Resolved(None, "model", "hf")
    artifact = planned.PlannedArtifact(Model("m"), resolved, Recipe("r"), CPU, (), "artifact", "gptq", 0, "")
    cell = Cell(Model("m"), Recipe("r"), EngineSpec(engine, {}), "cpu", workload=Offline(name="w"))

    assert plan._digest(cell, artifact, 0, None, {}) == digest


def test_another_backend_is_another_artifact() -> None:
    """Its name and its environment are in the digest."""
    one, two = (_digests(config.recipe_named(name)) for name in ("awq-w4g128", "awq-w4g128-autoawq"))

    assert one != two


def test_a_step_runs_where_its_options_say() -> None:
    """The backend chooses the environment; without one it is the method's own."""
    places = {name: plugins.step_env(Step("awq", {"backend": name})) for name in ("gptqmodel", "autoawq")}

    assert places == {"gptqmodel": "hf", "autoawq": "autoawq"}
    assert plugins.step_env(Step("gptq", {"backend": "auto-gptq"})) == "auto_gptq"
    assert plugins.step_env(Step("bnb", {})) == "hf"


def test_an_engine_runs_a_format_where_it_can() -> None:
    """The engine hf loads compressed-tensors where that package is; the rest runs in the engine's own."""
    engine = plugins.load(plugins.ENGINES, "hf")

    assert plugins.engine_env(engine, "compressed-tensors") == "llmcompressor"
    assert plugins.engine_env(engine, "gptq") == "hf"
    assert plugins.engine_env(plugins.load(plugins.ENGINES, "vllm"), "compressed-tensors") == "vllm"


@pytest.mark.parametrize("name", plugins.names(plugins.ENGINES))
def test_formats_with_an_environment_are_loaded_and_the_environment_exists(name: str) -> None:
    """ENV_BY_FORMAT names formats of LOADS and files of configs/envs."""
    engine = plugins.load(plugins.ENGINES, name)
    elsewhere = engine.ENV_BY_FORMAT

    assert set(elsewhere) <= engine.LOADS
    assert set(elsewhere.values()) <= set(environment.names())
