# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arguments of faults and strangenesses: `3,0xA5,command=GetSetPoint`. Pure."""

from __future__ import annotations

import math

from usbproto.packets import COMMANDS


class Arguments:
    """Values in their order and KEY=VALUE, separated by commas.

    Every method raises ValueError for what it cannot understand.
    """

    def __init__(self, text: str | None) -> None:
        self.text = text or ""
        parts = [part.strip() for part in self.text.split(",")] if text else []
        self._values = [part for part in parts if "=" not in part]
        self._named = dict(part.split("=", 1) for part in parts if "=" in part)
        self._taken = 0  # values that were asked for
        self._names: set[str] = set()  # names that were asked for

    def number(
        self, default: float, index: int = 0, *, low: float = -math.inf, high: float = math.inf
    ) -> float:
        word = self.word("", index)
        try:
            value = float(word) if word else default
        except ValueError:
            raise ValueError(f"{word!r} is not a number") from None
        if not low <= value <= high:
            raise ValueError(f"{value:g} is not in {low:g}..{high:g}")
        return value

    def seconds(self, default: float, index: int = 0) -> float:
        return self.number(default, index, low=0.0)

    def count(self, default: int, index: int = 0, *, low: float = -math.inf, high: float = math.inf) -> int:
        """A whole number, also in hexadecimal (0xA5)."""
        return self._whole(self.word("", index), default, low, high)

    def byte(self, default: int, index: int = 0) -> int:
        return self.count(default, index, low=0, high=0xFF)

    def word(self, default: str, index: int = 0) -> str:
        self._taken = max(self._taken, index + 1)
        return self._values[index] if len(self._values) > index and self._values[index] else default

    def flag(self, name: str) -> bool:
        """NAME=1 or NAME=0; False without it."""
        return bool(self._whole(self._name(name), 0, 0, 1))

    @property
    def times(self) -> int:
        return self._whole(self._name("times"), 1, -math.inf, math.inf)

    @property
    def codes(self) -> frozenset[int]:
        """The commands that are meant; empty for all."""
        wanted = self._name("command")
        if not wanted:
            return frozenset()
        for code, command in COMMANDS.items():
            if wanted.lower() == command.name.lower():
                return frozenset({code})
        try:
            return frozenset({int(wanted, 16)})
        except ValueError:
            raise ValueError(f"{wanted!r} is neither the name nor the code of a command") from None

    def check_taken(self) -> None:
        """Refuses what no other method asked for: a misspelt argument must not pass for a default."""
        surplus = self._values[self._taken :] + [name for name in self._named if name not in self._names]
        if surplus:
            raise ValueError(f"{', '.join(surplus)}: not an argument of this")

    def _name(self, name: str) -> str:
        self._names.add(name)
        return self._named.get(name, "")

    @staticmethod
    def _whole(word: str, default: int, low: float, high: float) -> int:
        try:
            value = int(word, 0) if word else default
        except ValueError:
            raise ValueError(f"{word!r} is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not in {low:g}..{high:g}")
        return value
