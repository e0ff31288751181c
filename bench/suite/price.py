"""Prices as one line of text: an hour of a machine, a million tokens of an API."""

from __future__ import annotations

import re

from bench.contract.spec import ApiPrice, HourPrice

_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_HOUR = re.compile(rf"\s*({_NUMBER})\s+([A-Z]{{3}})\s+(\S.*?)\s*", re.DOTALL)
_API = re.compile(rf"\s*({_NUMBER})\s*/\s*({_NUMBER})\s+([A-Z]{{3}})\s+(\S.*?)\s*", re.DOTALL)
_LONGEST = 200  # characters of a wrong one that are shown
HOUR_FORM = "'AMOUNT CURRENCY WHAT', as '2.49 USD one H100 on demand'"
API_FORM = "'INPUT/OUTPUT CURRENCY WHAT' for a million tokens of each, as '0.15/0.60 USD small model, list price'"


def hour_price(text: str) -> HourPrice:
    """A price from its text, '2.49 USD one H100 on demand'; ValueError, one sentence, for another."""
    match = _HOUR.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid price of an hour {text[:_LONGEST]!r}: expected {HOUR_FORM}")
    return HourPrice(float(match[1]), match[2], match[3])


def api_price(text: str) -> ApiPrice:
    """A price from its text, '0.15/0.60 USD small model, list price'; ValueError, one sentence, for another."""
    match = _API.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid price of an API {text[:_LONGEST]!r}: expected {API_FORM}")
    return ApiPrice(float(match[1]), float(match[2]), match[3], match[4])
