"""A comparison of committed records, against their items."""

from __future__ import annotations

import json

import pytest

from bench.publish.compare.compare import BETTER
from bench.store import Store
from eval.stats import paired
from tests.conftest import ROOT, Command


@pytest.mark.records
def test_committed_records_give_what_their_items_say(command: Command) -> None:
    """nf4 beside int8: McNemar's p by the items in the records, and the perplexities' own ratio."""
    done = command("bench", "compare", "nf4", "int8", "--suite", "quality", "--json")
    figures = {(f["what"], f["metric"]): f for f in json.loads(done.stdout)["figures"]}
    store = Store(ROOT / "results")
    known = {(r.cell.recipe.name, r.cell.measurement): r for r in store.all("*/quality/quality/*")}
    tasks = [what for what, metric in figures if metric == "accuracy_fraction"]

    assert len(tasks) == 3
    for what in tasks:
        mine, base = ([int(s) for s in known[name, what].facts["item_scores"]] for name in ("int8", "nf4"))
        lost = sum(a < b for a, b in zip(mine, base, strict=True))
        won = sum(a > b for a, b in zip(mine, base, strict=True))
        assert figures[what, "accuracy_fraction"]["ratio"]["p"] == pytest.approx(paired.mcnemar(lost, won))
    ppl = next(what for what, metric in figures if metric == "perplexity")
    ratio = known["int8", ppl].metrics["perplexity"] / known["nf4", ppl].metrics["perplexity"]
    assert figures[ppl, "perplexity"]["ratio"]["value"] == pytest.approx(ratio, rel=1e-4)
    assert figures[ppl, "perplexity"]["verdict"] == BETTER
