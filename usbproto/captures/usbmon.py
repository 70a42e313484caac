# SPDX-License-Identifier: LGPL-2.1-or-later
"""One packet of Linux' usbmon: a header of 48 bytes, or of 64 bytes from the memory-mapped interface.

Source: Documentation/usb/usbmon.rst of the Linux kernel, and the link types 189 and 220 of tcpdump.org.
"""

from __future__ import annotations

import struct

from usbproto.captures.events import Event, Kind, Phase

LINK, LINK_MAPPED = 189, 220

# id, type, kind, endpoint, device, bus, no setup, no data, seconds, microseconds, status, length, captured,
# setup
_HEADER = "QBBBBHBBqiiII8s"
_FORMS = {order: struct.Struct(order + _HEADER) for order in "<>"}
_MAPPED_BYTES = 64
_PHASES = {ord("S"): Phase.BEGIN, ord("C"): Phase.END, ord("E"): Phase.END}
_PRESENT = 0


def event(link: int, order: str, at: float, data: bytes) -> Event | None:
    """None for what is not a transfer. Raises ValueError for a packet that is shorter than its header."""
    form = _FORMS[order]
    start = _MAPPED_BYTES if link == LINK_MAPPED else form.size
    if len(data) < start:
        raise ValueError(f"a packet of {len(data)} bytes")
    ident, type_, kind, endpoint, device, bus, no_setup, no_data, *_, status, length, captured, setup = (
        form.unpack_from(data)
    )
    phase = _PHASES.get(type_)
    if phase is None or kind > Kind.BULK:
        return None
    ended = phase is Phase.END
    return Event(
        phase,
        Kind(kind),
        bus,
        device,
        endpoint,
        ident,
        at,
        setup if no_setup == _PRESENT and not ended else b"",
        data[start : start + captured] if no_data == _PRESENT else b"",
        length,
        max(0, -status) if ended else 0,
    )
