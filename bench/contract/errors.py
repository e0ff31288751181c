"""The one exception that means that the user can mend this.

Its text says how; the commands print it and exit with 2.
"""


class UserError(Exception):
    """One sentence, complete without a traceback, that says what is wrong and what to do."""
