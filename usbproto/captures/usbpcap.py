# SPDX-License-Identifier: LGPL-2.1-or-later
"""One packet of USBPcap, the capture program for Windows. Always little-endian.

Source: the link type 249 of tcpdump.org, and USBPcap's own description of its header.
"""

from __future__ import annotations

import errno
import struct

from usbproto.captures.events import IN, Event, Kind, Phase

LINK = 249

# header bytes, id, status, function, info, bus, device, endpoint, kind, bytes of data
_HEADER = struct.Struct("<HQIHBHHBBI")
_ENDED = 0x01  # a bit of info: from the device's driver back to the program
_SETUP_BYTES = 8
_SETUP, _DATA = 0, 1  # stages of a control transfer; behind them status and complete
_FAILED = 0x80000000  # a bit of the status
# Windows' USBD_STATUS -> errno as Linux would report it.
_ERRORS = {
    0xC0000004: errno.EPIPE,  # the endpoint stalled
    0xC0000008: errno.EOVERFLOW,  # data overrun
    0xC000000C: errno.EOVERFLOW,  # buffer overrun
    0xC0007000: errno.ENODEV,  # the device is gone
    0xC0010000: errno.ENOENT,  # cancelled
}


def event(at: float, data: bytes) -> Event | None:
    """None for what is not a transfer. Raises ValueError for a packet that is shorter than its header."""
    if len(data) < _HEADER.size:
        raise ValueError(f"a packet of {len(data)} bytes")
    start, ident, status, _, info, bus, device, endpoint, kind, length = _HEADER.unpack_from(data)
    if kind > Kind.BULK:  # USBPcap has numbers of its own for other requests of drivers
        return None
    if not _HEADER.size <= start <= len(data):
        raise ValueError(f"a packet of {len(data)} bytes with a header of {start}")
    ended = bool(info & _ENDED)
    phase = Phase.END if ended else Phase.BEGIN
    payload, setup = data[start : start + length], b""
    if kind == Kind.CONTROL:
        stage = data[_HEADER.size] if start > _HEADER.size else _SETUP
        if stage == _SETUP and not ended:
            setup, payload = payload[:_SETUP_BYTES], payload[_SETUP_BYTES:]
            length = max(0, length - _SETUP_BYTES)
            if len(setup) < _SETUP_BYTES:
                return None
        elif stage == _DATA:
            phase = Phase.DATA
    # The end of a transfer to the device does not report how much of it was sent.
    known = not ended or kind == Kind.CONTROL or endpoint & IN
    error = _ERRORS.get(status, errno.EPROTO) if ended and status & _FAILED else 0
    return Event(
        phase, Kind(kind), bus, device, endpoint, ident, at, setup, payload, length if known else None, error
    )
