"""What tokens and answers cost, from rates and prices: pure functions, no metric of a record.

The whole hour of a machine is divided by the tokens of one kind: a price of output tokens bears that of their prompts,
and the two are not to be added.
"""

from __future__ import annotations

from bench.contract.spec import ApiPrice, HourPrice

HOUR_S, MILLION = 3600.0, 1e6


def per_million(price: HourPrice, tok_per_s: float) -> float:
    """The price of a million tokens at that rate: amount / 3600 / rate x 10^6, in the price's currency."""
    return price.amount / HOUR_S / tok_per_s * MILLION


def per_correct_answer(price: HourPrice, request_per_s: float, accuracy: float) -> float:
    """The price of a request that is answered right, `accuracy` (0 .. 1) being the share of those that are."""
    return price.amount / HOUR_S / request_per_s / accuracy


def joules_per_correct_answer(j_per_output_token: float, output_tokens: float, accuracy: float) -> float:
    """Joules of a request of `output_tokens` that is answered right."""
    return j_per_output_token * output_tokens / accuracy


def break_even_tok_per_s(price: HourPrice, api: ApiPrice, input_per_output: float) -> float:
    """The rate of output tokens at which the API costs as much as the machine.

    `input_per_output`: input tokens a load has for each output token, which the API is paid for too. Both prices in one
    currency. Below the rate the API is cheaper.
    """
    api_per_output_token = (api.output + api.input * input_per_output) / MILLION
    return price.amount / HOUR_S / api_per_output_token
