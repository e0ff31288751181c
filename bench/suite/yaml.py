"""YAML without the base-60 numbers of YAML 1.1: `2:4` is a string, not 124."""

from __future__ import annotations

import re
from typing import Any

import yaml

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without those numbers among its implicit types."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's attribute)
        first: [
            (tag, re.compile(f"(?!.*:){resolver.pattern}", resolver.flags)) if tag in _NUMBERS else (tag, resolver)
            for tag, resolver in resolvers
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load(text: str) -> Any:
    """The value of the text; yaml.YAMLError for invalid YAML."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506  (a subclass of the safe one)
