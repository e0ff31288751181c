"""The exceptions whose text is for a person: no traceback goes with it."""


class UserError(Exception):
    """One sentence that says what is wrong and what to do. The commands print it and exit with 2."""


class CellError(Exception):
    """A cell, or what it needs, was tried and failed; the text is its record's reason. Other cells go on."""


class UnsupportedError(CellError):
    """A cell that cannot be, which only what it needs could tell; the text is the reason of its record."""


def first_line(error: BaseException, most: int = 200) -> str:
    """What a library's error says first, in at most so many characters: for a sentence that names it as the reason."""
    return (str(error).strip().splitlines() or ["no message"])[0][:most]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP. `is_reported`: a person was told already.

    A class of its own, for a plain KeyboardInterrupt that passes through `exec` of a text, with which dataclasses
    are made, has CPython end by SIGINT in the end, whatever the exit code and whoever caught it.
    """

    is_reported = False
