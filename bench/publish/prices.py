"""The prices that a user gave: for everything that is shown, by device in prices.yaml, by suite in its file.

`prices.yaml` lies in the folder of results and names devices as their folders there are named:

    gpu-nvidia-l4-24gib: {amount: 0.80, currency: USD, what: a machine with one L4 on demand}

A device's price counts before its suite's, and one that is given with the command before both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench import paths, yaml
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.spec import ApiPrice, HourPrice, Suite
from bench.foreign import is_foreign
from bench.store import safe_name
from bench.suite import config
from bench.suite.price import HOUR_FORM

FILE = "prices.yaml"
Pair = tuple[HourPrice | None, ApiPrice | None]  # of a machine's hour, and of the API that it is compared with


@dataclass(frozen=True)
class Prices:
    """`given`, `api_given`: of the command; `devices`: by results folder; `suites`: by name, of files that are known.

    Suites that ship are known without. `problems`: a sentence for each device of the file that has no records.
    """

    given: HourPrice | None = None
    api_given: ApiPrice | None = None
    devices: Mapping[str, HourPrice] = field(default_factory=dict)
    suites: Mapping[str, Pair] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def hour(self, device: str, suite: str) -> HourPrice | None:
        """What an hour of that device costs in that suite, if anybody said; of an imported one by the file alone."""
        own = self.devices.get(safe_name(device))
        return own if is_foreign(device) else self.given or own or self._of(suite)[0]

    def api(self, suite: str) -> ApiPrice | None:
        """What tokens of the API cost that the suite's machines are compared with."""
        return self.api_given or self._of(suite)[1]

    def both(self, device: str, suite: str) -> Pair:
        """The machine's and the API's; UserError where they are in two currencies."""
        hour, api = self.hour(device, suite), self.api(suite)
        if hour is not None and api is not None and hour.currency != api.currency:
            raise UserError(
                f"an hour of the machine is priced in {hour.currency} and the API in {api.currency}: give both in one "
                "currency"
            )
        return hour, api

    def require_one_machine(self, devices: Iterable[str]) -> None:
        """UserError where a price that was given with the command would be that of several machines."""
        names = sorted({device for device in devices if not is_foreign(device)})
        if self.given is not None and len(names) > 1:
            raise UserError(
                f"--price is of one machine, and these are {', '.join(names)}: give each its own in {FILE} in the "
                "folder of results, or choose one with --device where the command has it"
            )

    def _of(self, suite: str) -> Pair:
        return self.suites[suite] if suite in self.suites else _shipped(suite)


NO_PRICES = Prices()


def read(results: Path, price: str = "", api: str = "", suite: Suite | Path | None = None) -> Prices:
    """The prices for records in a folder, of one `suite` or its file, or of any.

    UserError for one that is none, or in another currency than the API's.
    """
    given = config.hour_price(price or None, "--price")
    devices = _devices(results / FILE)
    suites: dict[str, Pair] = {}
    if isinstance(suite, Suite):
        suites[suite.name] = suite.price_per_hour, suite.api_price
    elif suite is not None and wire.is_file(suite):
        suites[suite.stem] = _of_file(suite)
    api_given = config.api_price(api or None, "--api-price")
    prices = Prices(given, api_given, devices, suites, tuple(_unknown(results, devices)))
    for device in (*devices, ""):
        prices.both(device, next(iter(suites), ""))
    return prices


def _devices(file: Path) -> dict[str, HourPrice]:
    """The file's, or none: results that cannot be a folder are told where records are read or written."""
    if not file.parent.is_dir():
        return {}
    try:
        entries = yaml.load_file(file)
    except FileNotFoundError:
        return {}
    devices = {}
    for device, value in entries.items():
        try:
            price = config.hour_price(value, str(device))
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if price is None:
            raise UserError(f"{file}: {device}: expected a price, {HOUR_FORM}; or leave the device out")
        devices[str(device)] = price
    return devices


def _unknown(results: Path, devices: Iterable[str]) -> Iterable[str]:
    known = [folder.name for folder in results.iterdir() if folder.is_dir()] if results.is_dir() else []
    for device in devices:
        if known and device not in known:
            near = difflib.get_close_matches(device, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"its folders are {', '.join(sorted(known))}"
            yield f"{results / FILE}: no records of the device {device}: {hint}"


@cache
def _shipped(suite: str) -> Pair:
    """Of a suite that ships: records name their suite, and no more of it."""
    file = paths.CONFIGS / f"{suite}.yaml"
    return _of_file(file) if "/" not in suite and wire.is_file(file) else (None, None)


def _of_file(file: Path) -> Pair:
    data = yaml.load_file(file)
    hour, api = data.get("price_per_hour"), data.get("api_price")
    return config.hour_price(hour, f"{file}: price_per_hour"), config.api_price(api, f"{file}: api_price")
