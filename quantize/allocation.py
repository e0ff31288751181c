"""The choice of a type for each layer that costs least within a size: a multiple-choice knapsack, solved exactly.

Layers' losses are taken to add up. By SciPy's milp, which is HiGHS's branch and bound (Huangfu and Hall 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bench.contract.errors import UserError

_LIMIT_S = 600.0
_SCALED = 1e6  # the largest loss, in the solver's numbers: its absolute gap is 1e-6


def least_loss(losses: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], most: int) -> list[int]:
    """For each layer the index of its choice, the sum of losses least with a sum of sizes of at most `most`.

    Each layer has as many losses as sizes; UserError where even the smallest choices are larger than `most`, or the
    solver does not end in ten minutes.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    if sum(map(min, sizes)) > most:
        raise UserError(f"the smallest choices take {sum(map(min, sizes)):,} bytes, and {most:,} are allowed")
    counts = [len(row) for row in sizes]
    flat_losses = np.array([loss for row in losses for loss in row])
    flat_sizes = np.array([size for row in sizes for size in row], dtype=float)
    owners = np.repeat(np.arange(len(counts)), counts)
    one_each = csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))))
    largest = float(np.abs(flat_losses).max()) or 1.0
    unit = float(max(flat_sizes.max(), 1.0))
    solved = milp(
        flat_losses * (_SCALED / largest),
        integrality=np.ones(len(owners), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(flat_sizes[None, :] / unit, -np.inf, most / unit),
        ],
        options={"mip_rel_gap": 0.0, "time_limit": _LIMIT_S},
    )
    if solved.status != 0 or solved.x is None:
        raise UserError(f"no assignment of types was found within the budget: {solved.message}")
    starts = np.concatenate([[0], np.cumsum(counts)])
    picks = [int(solved.x[a:b].argmax()) for a, b in pairwise(starts)]
    if sum(row[pick] for row, pick in zip(sizes, picks, strict=True)) > most:
        raise UserError("the solver's assignment is larger than the budget by its rounding: ask for a little more")
    return picks
