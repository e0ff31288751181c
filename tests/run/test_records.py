from __future__ import annotations

import pytest

from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Task
from bench.contract.workload import Offline, Trace, Workload
from bench.run import records


@pytest.mark.parametrize(
    "model", [Model("org/name"), Model("shape:llama"), Model("/a/b/"), Model("./shape:b"), Model("~/a/b", name="c")]
)
@pytest.mark.parametrize("load", [Trace(path="/a/b.c.csv"), Trace(path="b.csv", name="d"), Offline(), None])
def test_a_cell_and_its_public_form_have_the_same_names(model: Model, load: Workload | None) -> None:
    """A plan's cells find their records and their rows in a table, without being made public one by one."""
    recipe = Recipe("r", (Step("gptq", {"text": "path:/a/b.txt"}),))
    task = None if load else Task("perplexity", {"corpus": "path:/a/b.txt"}, "perplexity-b")
    cell = Cell(model, recipe, EngineSpec("fake", {"tokenizer": "path:/a/b"}), "cpu", load, task)
    public = records.public_cell(cell)

    assert "/a/" not in str(public)
    assert (public.title, public.model.display_name) == (cell.title, cell.model.display_name)
