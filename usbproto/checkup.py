# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a camera says of itself when it is only asked: nothing is set, moved, aborted or cleared.

`Camera` sends settings and ends what another program left over, as a driver must. Whoever only wants to know
how the camera is uses this. Init comes first, as with every program that opens a camera (wire protocol,
section 3.1); all that follows are questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from usbproto import packets as p
from usbproto.errors import LinkError, ProtocolError, Refused, TimedOut
from usbproto.identity import Eeprom, Identity, read_identity
from usbproto.link import ByteChannel, Link
from usbproto.models import Series

# Asked while the camera is at something: it answers these even while it exposes (the Guide, LED states), and
# while it waits for a trigger nothing else may be asked (section 6.0).
FREE_STATES = frozenset({p.CameraState.IDLE, p.CameraState.FILTER_MOVING, p.CameraState.ERROR})


@dataclass(slots=True)
class Checkup:
    """What was learnt. None stands for what was not asked, or not answered.

    `errors` are the device errors (section 5) that answers carried, `link_errors` the exchanges that failed.
    Temperatures in degC, power in per cent.
    """

    state: int | None = None
    cooler: int | None = None
    ccd: float | None = None
    heat_sink: float | None = None
    power: float | None = None
    identity: Identity | None = None
    link_tested: bool = False
    errors: list[int] = field(default_factory=list)
    link_errors: list[str] = field(default_factory=list)


def examine(channel: ByteChannel, series: Series, usb_serial: str = "") -> Checkup:
    """Asks an open camera everything that is safe to ask; takes over the channel and closes it.

    Raises nothing of the exchange with the camera: what fails is in the result.
    """
    link = Link(channel)
    found = Checkup()
    try:
        _ask(link, series, usb_serial, found)
    except LinkError as error:
        found.link_errors.append(error.explain())
    finally:
        link.close()
    return found


def _ask(link: Link, series: Series, usb_serial: str, found: Checkup) -> None:
    _refusable(found, link, p.INIT)
    state = _refusable(found, link, p.GET_DEVICE_STATE)
    if state is not None:
        found.state = state.state
    temperature = _refusable(found, link, p.GET_TEMPERATURE)
    if temperature is not None:
        found.cooler, found.ccd, found.power = temperature.cooler, temperature.ccd, temperature.power
        found.heat_sink = temperature.heat_sink or None  # 0 on cameras without the sensor (6.0)
    if found.state not in FREE_STATES:
        return
    details = _refusable(found, link, p.GET_DEVICE_DETAILS)
    if details is not None:
        try:
            found.identity = read_identity(Eeprom(link), series, details, usb_serial)
        except Refused as error:
            found.errors.append(error.code)
        if details.has_filter_wheel:
            _refusable(found, link, p.GET_FILTER_POSITION)
        if details.has_shutter:
            _refusable(found, link, p.GET_SHUTTER_STATE)
    _test_link(link, found)


def _test_link(link: Link, found: Checkup) -> None:
    try:
        burst = link.exchange(p.BURST_BLOCK, p.Byte(p.MAX_BURST), phase="the link test").data
    except Refused as error:
        found.errors.append(error.code)
        return
    if burst != bytes(range(p.MAX_BURST)):
        raise ProtocolError("the link test came back with wrong bytes")
    found.link_tested = True


def _refusable(found: Checkup, link: Link, question: p.Command[p.Empty, p.R]) -> p.R | None:
    """The answer; None when the camera refused, or stayed silent where older firmware does."""
    may_be_silent = question is p.GET_SHUTTER_STATE
    try:
        return link.exchange(question, p.Empty(), seconds=p.ReplyTime.SHORT.value if may_be_silent else None)
    except Refused as error:
        if error.code not in found.errors:
            found.errors.append(error.code)
    except TimedOut:
        if not may_be_silent:
            raise
    return None
