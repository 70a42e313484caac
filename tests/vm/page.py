# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of docs/raspberry-pi.md, read out of the page itself.

Before each of its blocks of commands, a comment that no reader sees says where the block is run:

    <!-- guest: NAME -->          in the virtual machine, by tests/vm/test_headless.py
    <!-- by hand: REASON -->      nowhere
    <!-- TEST FILE: REASON -->    by another test
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "raspberry-pi.md"

_BLOCK = re.compile(r"(?:^<!-- ([^:\n]+): (.+?) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """All blocks of commands in their order: place and name of the comment (both empty without one), text."""
    return [(place or "", name or "", text) for place, name, text in _BLOCK.findall(PAGE.read_text())]


def commands(name: str, place: str = "guest") -> str:
    """The one block of this name."""
    (text,) = (text for where, what, text in blocks() if (where, what) == (place, name))
    return text
