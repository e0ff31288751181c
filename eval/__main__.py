"""One measurement without a suite, or two of them on the same items.

`python -m eval ARTIFACT --task perplexity`, `python -m eval compare BASE OTHER --task lm_eval`.
"""

import sys

from bench.cli.exit_codes import guarded


def _command() -> None:
    from eval import command

    command.run(sys.argv[1:])


if __name__ == "__main__":
    guarded(_command)
