"""Has one node of a cluster fetch a folder of another's cache: `python fetching.py ADDRESS DIGEST FROM TO`.

Prints whether it is there then, and how far the memory of the process that fetched it has grown at the most.
"""

from __future__ import annotations

import json
import resource
import sys

import psutil

from bench.fleet import cluster, transfer
from bench.fleet.transfer import REFERENCES, CacheFolder


def fetch(digest: str, holder: str) -> tuple[bool, int]:
    """Runs on the node that fetches; the peak is the process's own, since its start."""
    before = psutil.Process().memory_info().rss
    is_there = transfer.fetch(CacheFolder(REFERENCES, digest), [holder], lambda _: None)
    return is_there, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main(address: str, digest: str, holder: str, target: str) -> None:
    with cluster.connected(address, print) as library:
        ids = {node.name: node.id for node in cluster.nodes(library)}
        task = library.remote(num_cpus=0)(fetch).options(scheduling_strategy=cluster.on(library, ids[target]))
        is_there, grown_bytes = library.get(task.remote(digest, ids[holder]))
    print(json.dumps({"is_there": is_there, "grown_bytes": grown_bytes}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
