# SPDX-License-Identifier: LGPL-2.1-or-later
"""The languages of loaders that this program speaks. A new one is a new file here, and a line below."""

from __future__ import annotations

from collections.abc import Sequence

from qsi_tools.firmware.dialect import Dialect, Mark, ReadEeprom
from qsi_tools.firmware.dialects.openloader import OpenLoader

KNOWN: tuple[Dialect, ...] = (OpenLoader(),)


def recognise(eeprom: ReadEeprom, known: Sequence[Dialect] = KNOWN) -> Mark | None:
    """What the camera says of its loader; None when it speaks none of the dialects. Harmless."""
    for dialect in known:
        if (mark := dialect.recognise(eeprom)) is not None:
            return mark
    return None


def speaker(mark: Mark, known: Sequence[Dialect] = KNOWN) -> Dialect:
    """The dialect that recognised the camera."""
    return next(dialect for dialect in known if dialect.name == mark.dialect)
