# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arguments of command lines, checked: what is wrong is said in the words of whoever checks it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from qsi_tools.indi.client import DEFAULT_SERVER, parse_address

T = TypeVar("T")


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse, which shows the text of only its own kind of error."""

    def check(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def number(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: a number within limits."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return checked(parse)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number within limits."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return checked(parse)


def add_server(parser: argparse.ArgumentParser) -> None:
    """The option that all programs have that talk to an INDI server."""
    parser.add_argument(
        "--server",
        type=_server,
        default=DEFAULT_SERVER,
        metavar="HOST:PORT",
        help=f"INDI server, or the path of its unix socket (default {DEFAULT_SERVER})",
    )


def _server(text: str) -> str:
    checked(parse_address)(text)
    return text
