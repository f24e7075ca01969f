"""Durations, rates and sizes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Self

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?)/([smhd])")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Duration(float):
    """Seconds. In the file: a number and one unit, such as "500ms", "30s", "2m", "12h" or "9d"."""

    def __new__(cls, text: str | float) -> Self:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError('expected a duration such as "500ms", "30s", "2m", "12h" or "9d"')
        return super().__new__(cls, float(Decimal(match[1]) * _SECONDS[match[2]]))

    def __str__(self) -> str:
        # decimal, because 0.7 s is not a whole number of milliseconds in binary
        seconds = Decimal(repr(float(self)))
        for unit, length in _SECONDS.items():
            if seconds >= length and seconds % length == 0:
                return f"{int(seconds / length)}{unit}"
        return f"{seconds.normalize():f}s"


class Rate(float):
    """Events per second. As text: a number and a unit, such as "10/s", "30/m", "5/h" or "1000/d"; or "0"."""

    #: a pool works some thousands per second; more is a typing mistake
    MAX = 1_000_000
    _UNITS = ("s", "m", "h", "d")

    def __new__(cls, text: str | float) -> Self:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _RATE.fullmatch("0/s" if text == "0" else text) if isinstance(text, str) else None
        rate = float(match[1]) / float(_SECONDS[match[2]]) if match else -1.0
        if not 0 <= rate <= cls.MAX:
            raise ValueError('expected a rate such as "10/s", "30/m" or "5/h"')
        return super().__new__(cls, rate)

    def __str__(self) -> str:
        """The text in the unit that takes the fewest characters: 5/s, 0.5/m, 1000/d."""
        numbers = {unit: float(self) * float(_SECONDS[unit]) for unit in self._UNITS}
        # four decimals of a number that is at least 0.1 lose nothing that anybody would write
        texts = [(f"{round(number, 4):.12g}", unit) for unit, number in numbers.items() if number >= 0.1 or not self]
        number, unit = min(texts or [(f"{numbers['d']:.6g}", "d")], key=lambda text: len(text[0]))
        return f"{number}/{unit}"


class Size(int):
    """Bytes. In the file: a whole number and one unit, such as "512B", "16KiB", "100MiB" or "1GiB"."""

    def __new__(cls, text: str | int) -> Self:
        if isinstance(text, int) and not isinstance(text, bool):
            return super().__new__(cls, text)
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError('expected a size such as "512B", "16KiB", "100MiB" or "1GiB"')
        return super().__new__(cls, int(match[1]) * _BYTES[match[2]])

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}B"
