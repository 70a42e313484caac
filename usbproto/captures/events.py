# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one packet of a capture reports: a request to the USB (URB) begins, goes on, or ends."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

IN = 0x80  # bit of an endpoint's address: from the device to the host


class Kind(IntEnum):
    """Kinds of transfers; usbmon and USBPcap use the same numbers."""

    ISOCHRONOUS = 0
    INTERRUPT = 1
    CONTROL = 2
    BULK = 3


class Phase(Enum):
    BEGIN = "begin"
    DATA = "data"  # of a control transfer; only USBPcap reports it apart
    END = "end"


class Event(NamedTuple):
    """`ident` tells the transfers apart that are in flight. `endpoint` has the bit of its direction.

    `length` is the number of bytes that were moved, or that are wanted at the beginning; None where the
    capture does not know it. `data` may be shorter: captures cut packets. `error` is an errno, 0 for success.
    """

    phase: Phase
    kind: Kind
    bus: int
    device: int
    endpoint: int
    ident: int
    at: float
    setup: bytes
    data: bytes
    length: int | None
    error: int
