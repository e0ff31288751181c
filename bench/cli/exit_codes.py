"""How a command ends: exit codes, and errors as one sentence on stderr."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from bench.cli.params import say
from bench.contract.errors import UserError


def guarded(command: Callable[[], Any]) -> None:
    """Run a command; an error that the user can fix is one sentence on stderr and exit code 2.

    SIGTERM stops it as Ctrl-C does (exit code 130), so that workers are ended and scratch folders cleared.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except UserError as error:
        _stop(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing more
        sys.exit(0)
    except PermissionError as error:
        _stop(f"no permission for {error.filename}; choose another --results folder or LLM_BENCH_CACHE")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        state = "is read-only" if error.errno == errno.EROFS else "has no space left"
        _stop(
            f"the disk {state}{f' ({error.filename})' if error.filename else ''}; free some, or move the "
            "cache with LLM_BENCH_CACHE; what was recorded is kept"
        )


def _stop(sentence: str) -> None:
    say(f"error: {sentence}")
    sys.exit(2)
