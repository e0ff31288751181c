"""The exceptions whose text is for a person: no traceback goes with it."""


class UserError(Exception):
    """One sentence that says what is wrong and what to do. The commands print it and exit with 2."""


class CellError(Exception):
    """A cell, or what it needs, was tried and failed; the text is its record's reason. Other cells go on."""
