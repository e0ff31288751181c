"""Start of a worker, which dies with its parent: `python -m bench.process.worker_main PARENT job.json`."""

from __future__ import annotations

import sys

from bench.process import bound


def main(parent: str, job_file: str) -> int:
    bound.to(parent)
    from bench.process import worker  # only now: the parent may end while this is imported

    return worker.run(job_file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
