"""What machines and storage cost, from a small file that the user gives (standard library only)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Prices:
    """In any one currency; what the file does not name costs nothing."""

    vcpu_hour: float = 0.0
    gpu_hour: float = 0.0
    gb_month: float = 0.0  # of what is written, 10^9 bytes
    get_1000: float = 0.0  # requests that read
    put_1000: float = 0.0  # requests that write

    def of(self, use: Mapping[str, float]) -> float:
        """The price of vcpu_seconds, gpu_seconds, get_requests, put_requests, and of written_bytes for a month."""
        machines = self.vcpu_hour * use["vcpu_seconds"] / 3600 + self.gpu_hour * use["gpu_seconds"] / 3600
        requests = self.get_1000 * use["get_requests"] / 1000 + self.put_1000 * use["put_requests"] / 1000
        return machines + requests + self.gb_month * use["written_bytes"] / 1e9


def read(path: str) -> Prices:
    """Prices of a TOML or JSON file; ValueError or FileNotFoundError, in one line."""
    file, names = Path(path), [field.name for field in fields(Prices)]
    if not file.is_file():
        raise FileNotFoundError(f"no prices file '{path}'; write one with {', '.join(names)}")
    try:
        found = (json.loads if file.suffix == ".json" else tomllib.loads)(file.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is neither TOML nor JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' holds no names with prices; give some of {', '.join(names)}")
    for name, price in found.items():
        if name not in names:
            raise ValueError(f"'{path}' has an unknown price '{name}'; choose from {', '.join(names)}")
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
            raise ValueError(f"'{path}': {name} = {price}; give a number from 0 up")
    return Prices(**found)
