# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in a file, as text and as JSON: also when it does not say itself what it is for. Pure."""

from __future__ import annotations

from typing import Any

from qsi_tools.firmware.archive import HexText
from qsi_tools.firmware.image import Image

MOST_RANGES = 8  # in the text: more are a riddle and no answer. JSON has all of them


def lines(texts: list[HexText]) -> list[str]:
    """For people."""
    told = []
    for text in texts:
        if text.image is not None:
            told += [f"{text.name}: sound", f"  {describe(text.image)}"]
        else:
            told += [f"{text.name}: sound as Intel HEX", f"  {_extent(text)}"]
        told.append(f"  SHA-256 {text.sha256}")
    return told


def rows(texts: list[HexText]) -> list[dict[str, Any]]:
    """For programs. `ranges` are the first and the last address of each; what a file does not say is None."""
    return [
        {
            "name": text.name,
            "target": text.image.target.value if text.image else None,
            "model": text.image.base_type if text.image else None,
            "version": text.image.version if text.image else None,
            "bytes": _size(text),
            "ranges": [[addresses[0], addresses[-1]] for addresses in text.file.ranges()],
            "sha256": text.sha256,
        }
        for text in texts
    ]


def describe(image: Image) -> str:
    """One line about an image."""
    return f"{image.target.value} {image.version} for the {image.base_type}, {len(image.data)} bytes"


def _size(text: HexText) -> int:
    return sum(map(len, text.file.ranges()))


def _extent(text: HexText) -> str:
    ranges = text.file.ranges()
    shown = [f"{addresses[0]:08X} to {addresses[-1]:08X}" for addresses in ranges[:MOST_RANGES]]
    more = f" and {len(ranges) - MOST_RANGES} more ranges" if len(ranges) > MOST_RANGES else ""
    return f"{_size(text)} bytes, at {', '.join(shown)}{more}"
