# SPDX-License-Identifier: LGPL-2.1-or-later
"""Beginnings and ends of transfers become transfers, in the order in which they ended."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from usbproto.captures import usbmon, usbpcap
from usbproto.captures.container import Capture, CaptureError, Record
from usbproto.captures.events import IN, Event, Kind, Phase

# Transfers in flight at one time. All devices of a computer have some hundred; more have lost their ends.
MAX_IN_FLIGHT = 4096
# Bytes that are kept of a transfer that has not ended. Packets to a camera have at most 126.
KEPT = 4096
# errno of a transfer that the program itself ended, mostly because its time was over.
CANCELLED = frozenset({errno.ENOENT, errno.ECONNRESET})
# errno that only reports a short packet, which is how answers end.
SHORT = errno.EREMOTEIO


class Transfer(NamedTuple):
    """A transfer that has ended. `began` and `at` in seconds; `began` is None when the capture began later.

    `endpoint` has the bit of its direction. `length` is the number of bytes that were moved, of which the
    capture has the first ones in `data`. `setup` has the 8 bytes of a control transfer. `error` is an errno,
    0 for success.
    """

    kind: Kind
    bus: int
    device: int
    endpoint: int
    began: float | None
    at: float
    setup: bytes
    data: bytes
    length: int
    error: int

    @property
    def cancelled(self) -> bool:
        return self.error in CANCELLED


@dataclass(slots=True)
class _Begun:
    at: float
    setup: bytes
    data: bytes
    length: int


@dataclass(slots=True)
class Tally:
    """What a capture has besides its transfers."""

    records: int = 0
    other_links: int = 0  # records of something else than a USB
    unreadable: int = 0  # packets that are shorter than their header
    without_begin: int = 0
    without_end: int = 0


class Pairs:
    """Pairs beginnings and ends. At most `MAX_IN_FLIGHT` beginnings wait; the oldest is forgotten first."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._begun: dict[tuple[int, int, int, int], _Begun] = {}

    def take(self, event: Event) -> Transfer | None:
        """The transfer that ends with this event. Only control and bulk transfers are paired."""
        if event.kind not in (Kind.CONTROL, Kind.BULK):
            return None
        key = (event.bus, event.device, event.endpoint & ~IN, event.ident)
        if event.phase is Phase.BEGIN:
            if self._begun.pop(key, None) is not None:
                self._tally.without_end += 1
            elif len(self._begun) >= MAX_IN_FLIGHT:
                del self._begun[next(iter(self._begun))]
                self._tally.without_end += 1
            length = event.length if event.length is not None else len(event.data)
            self._begun[key] = _Begun(event.at, event.setup, event.data[:KEPT], length)
            return None
        if event.phase is Phase.DATA:
            if (waiting := self._begun.get(key)) is not None:
                waiting.data = (waiting.data + event.data)[:KEPT]
            return None
        return self._ended(event, self._begun.pop(key, None))

    def finish(self) -> None:
        self._tally.without_end += len(self._begun)
        self._begun.clear()

    def _ended(self, event: Event, begun: _Begun | None) -> Transfer | None:
        control = event.kind is Kind.CONTROL
        direction = begun.setup[0] if control and begun and begun.setup else event.endpoint
        incoming = bool(direction & IN)
        if begun is None and (control or not incoming):
            self._tally.without_begin += 1
            return None
        data = event.data
        length = event.length if event.length is not None else len(data)
        if begun is not None and control and not data:
            data = begun.data
            length = max(length, len(data)) if incoming else length
        elif begun is not None and not incoming:
            data = begun.data
            length = begun.length if event.length is None and not event.error else (event.length or 0)
        return Transfer(
            event.kind,
            event.bus,
            event.device,
            event.endpoint,
            begun.at if begun is not None else None,
            event.at,
            begun.setup if begun is not None else b"",
            data,
            length,
            0 if event.error == SHORT else event.error,
        )


def transfers(capture: Capture, tally: Tally) -> Iterator[Transfer]:
    """All control and bulk transfers of a capture; counts in `tally` what there is besides.

    Raises `CaptureError` when the capture has no packets of a USB, and OSError.
    """
    pairs = Pairs(tally)
    links: Counter[int] = Counter()
    for record in capture.records():
        tally.records += 1
        if record.link not in LINKS:
            tally.other_links += 1
            links[record.link] += 1
            continue
        try:
            event = _event(record)
        except ValueError:
            tally.unreadable += 1
            continue
        transfer = pairs.take(event) if event is not None else None
        if transfer is not None:
            yield transfer
    pairs.finish()
    if tally.records == tally.other_links:
        found = ", ".join(str(link) for link in sorted(links)) or "none"
        raise CaptureError(
            f"{capture.path} has no packets of usbmon (link types 189 and 220) or USBPcap (249); "
            f"its link types: {found}"
        )


LINKS = (usbmon.LINK, usbmon.LINK_MAPPED, usbpcap.LINK)


def _event(record: Record) -> Event | None:
    if record.link == usbpcap.LINK:
        return usbpcap.event(record.at, record.data)
    return usbmon.event(record.link, record.order, record.at, record.data)
