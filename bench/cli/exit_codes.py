"""How a command ends: exit codes, and errors as one sentence on stderr.

Imports the standard library only: a command is imported after its signals are heard, which takes half a second.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from bench.contract.errors import Interrupted, UserError
from bench.progress import stderr

_MENDED = 2  # something has to be mended first
_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNUSABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE),
)


def guarded(command: Callable[[], Any]) -> NoReturn:
    """Run a command and exit; an error that the user can fix is one sentence on stderr and exit code 2.

    SIGTERM, and SIGHUP of a terminal that goes away, stop it as Ctrl-C does (exit code 130), so that workers are
    ended and scratch folders cleared. Output that nobody reads any more is no error: the exit code is 0.
    """
    try:
        _open_closed_streams()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as behind nohup
                signal.signal(number, _interrupt)
        code = _run(command)
        for number in _SIGNALS:  # what is to be done is done: the code says how it went
            signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    sys.exit(code)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    raise Interrupted(signal.Signals(number).name)


def _run(command: Callable[[], Any]) -> int:
    """The exit code of the command."""
    try:
        command()
    except SystemExit as ended:  # how typer ends, whatever it caught
        return _ended(ended)
    except KeyboardInterrupt as interrupt:
        return _stopped(interrupt)
    except UserError as error:
        return _refused(str(error))
    except OSError as error:
        if error.filename is None and (fault := _fault_of_output()):
            return _refused(f"the output cannot be written ({fault}); send it elsewhere")
        return _refused(_sentence(error))
    return _flushed(0)


def _ended(ended: SystemExit) -> int:
    causes = list(_causes(ended))
    if any(isinstance(cause, BrokenPipeError) for cause in causes):
        _discard_output()
        return 0
    if interrupt := next((cause for cause in causes if isinstance(cause, KeyboardInterrupt)), None):
        return _stopped(interrupt)
    return _flushed(ended.code if isinstance(ended.code, int) else int(ended.code is not None))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _stopped(interrupt: KeyboardInterrupt) -> int:
    if not (isinstance(interrupt, Interrupted) and interrupt.is_reported):
        stderr.line("stopped; what is finished is kept, run the same command to go on")
    return _INTERRUPTED


def _refused(sentence: str) -> int:
    stderr.line(f"error: {sentence}")
    return _flushed(_MENDED)


def _flushed(code: int) -> int:
    """The code, once all output is out; where that fails, nothing is left for the interpreter to fail on again."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        return _refused(f"the output cannot be written ({error.strerror}); send it elsewhere")
    return code


def _fault_of_output() -> str:
    """Why stdout takes nothing more, if it does not: a write that failed has emptied its buffer."""
    try:
        os.write(1, b"\n")
    except OSError as error:
        _discard_output()
        return str(error.strerror)
    return ""


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _sentence(error: OSError) -> str:
    """What to do about a file or folder that cannot be used; raises what is no user's to mend."""
    from pathlib import Path

    from bench import paths

    file = Path(error.filename) if isinstance(error.filename, str) else None
    in_cache = file is not None and paths.cache() in (file, *file.absolute().parents)
    if error.errno not in (*_FULL, *_UNUSABLE) and not in_cache:
        raise error
    state = "no space left on the disk" if error.errno in _FULL else error.strerror or type(error).__name__
    remedy = "move the cache with LLM_BENCH_CACHE" if in_cache else "choose another folder, as with --results"
    if error.errno in _FULL:
        remedy = f"free some, or {remedy}"
    return f"{file or 'a file'}: {state}; {remedy}; what was recorded is kept"


def _open_closed_streams() -> None:
    """A stream that the caller closed is /dev/null, and its number no other file's, into which a library prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
