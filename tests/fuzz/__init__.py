# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever comes in is parsed or refused with a typed error, in bounded memory and time, whole or byte by byte.

A target is a module `fuzz_NAME.py` here, found by its name:

    one_input(data)   one input; anything that it raises is a finding
    SEEDS             inputs to begin with

`python -m tests.fuzz NAME --minutes N` runs one for some time; `test_fuzz.py` gives each a little of everything
and all inputs that were found once (`tests/data/fuzz/NAME`).
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

# Bytes of an input. Above the parser's limit of a message (64 KiB), far below what would only cost time.
MAX_INPUT = 100_000

KEPT = Path(__file__).parents[1] / "data" / "fuzz"


class Target(Protocol):
    SEEDS: tuple[bytes, ...]

    def one_input(self, data: bytes) -> None: ...


def names() -> list[str]:
    """All targets."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.removeprefix("fuzz_") for name in modules if name.startswith("fuzz_"))


def target(name: str) -> Target:
    module = importlib.import_module(f"{__name__}.fuzz_{name}")
    return cast(Target, module)


def kept(name: str) -> list[Path]:
    """The inputs that are kept of a target: what broke it once, and what leads far into it."""
    return sorted(path for path in (KEPT / name).glob("*") if path.is_file())
