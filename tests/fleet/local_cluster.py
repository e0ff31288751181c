"""A Ray cluster of several nodes on this machine, as a program: `python local_cluster.py FOLDER NODE...`.

A node is NAME or NAME:CPUS, which is bound to the first so many CPUs and so is another kind of device; each has a cache
of its own below FOLDER. The first node is the cluster's head, without which it ends. Commands on stdin:
"add NODE [VARIABLE=VALUE]...", "kill NAME" (its raylet and workers, at once), and its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

_STORE_BYTES = 80 * 2**20


def _add(cluster: Cluster, folder: Path, node: str, variables: Mapping[str, str]) -> Any:
    name, _, cpus = node.partition(":")
    cache = folder / name
    cache.mkdir(exist_ok=True)
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[: int(cpus)] if cpus else usable)
    try:
        own = {"LLM_BENCH_CACHE": str(cache), "LLM_BENCH_CEILING": "off", **variables}
        return cluster.add_node(
            num_cpus=1,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            node_name=name,
            env_vars=own,
        )
    finally:
        os.sched_setaffinity(0, usable)


def main(folder: Path, *names: str) -> None:
    cluster = Cluster()
    nodes = {node.partition(":")[0]: _add(cluster, folder, node, {}) for node in names}
    print(cluster.address, flush=True)  # noqa: T201
    for line in sys.stdin:
        verb, node, *settings = line.split()
        name = node.partition(":")[0]
        if verb == "add":
            nodes[name] = _add(cluster, folder, node, dict(word.split("=", 1) for word in settings))
        else:
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        print(verb, name, flush=True)  # noqa: T201
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
