# SPDX-License-Identifier: LGPL-2.1-or-later
"""Output that nobody reads any more: `| head` has seen enough, or the ssh session is lost."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def tell(text: str, file: TextIO | None = None, end: str = "\n") -> None:
    """Prints at once, on standard output if nothing else is said. A reader that is gone stops nothing."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stdout if file is None else file, end=end, flush=True)


def let_go() -> None:
    """What nobody can read any more is dropped: Python would end with a status of its own (120) over it."""
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
