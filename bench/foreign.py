"""Imported records: a results folder keeps them in devices of their own, whose names begin with `foreign-`.

What a machine measured itself is never mixed with them: whoever reads records leaves imported ones out unless they
are named.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

PREFIX = "foreign-"


def is_foreign(slug: str) -> bool:
    """Whether a device's records were imported."""
    return slug.startswith(PREFIX)


def is_selected(slug: str, device: str = "") -> bool:
    """Whether a glob of devices names this one; "" is every device of this machine's own.

    An imported device only by a glob that begins with `foreign-` itself.
    """
    return fnmatchcase(slug, device or "*") and (not is_foreign(slug) or is_foreign(device))
