# SPDX-License-Identifier: LGPL-2.1-or-later
"""An FTDI channel over pyusb. The only module on the host's side that imports `usb`.

What the chip wants is in the wire protocol, section 1.1; the order of the requests at open is the vendor's.
"""

from __future__ import annotations

import contextlib
import errno
import math
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import usb.core
import usb.util

from usbproto.deadline import Deadline
from usbproto.errors import (
    CameraInUse,
    Disconnected,
    LinkError,
    NoCamera,
    NoPermission,
    ProtocolError,
    TimedOut,
)
from usbproto.models import VENDOR_ID, Series, series_of

INTERFACE = 0
ENDPOINT_IN = 0x81
ENDPOINT_OUT = 0x02
LANGUAGE = 0x0409

# Vendor requests (host to device).
REQUEST_OUT = 0x40
SIO_RESET = 0x00
SIO_SET_FLOW_CONTROL = 0x02
SIO_SET_LATENCY = 0x09
SIO_SET_BIT_MODE = 0x0B
RESET_WHOLE = 0
PURGE_TO_HOST = 2
PURGE_FROM_HOST = 1
PORT_A = 1
FLOW_RTS_CTS = 0x0100
BIT_MODE_RESET = 0x00FF
BIT_MODE_SYNC_FIFO = 0x40FF
BIT_MODE_PAUSE = 0.010  # s, between the two

STATUS_BYTES = 2  # modem status at the head of every IN packet
# A chip holds a short answer back for this long. The vendor's 16 ms makes every command cost 18 ms.
LATENCY_MS = 1
# A look ends with the chip's next status packet; this only bounds a chip that sends none.
LOOK_TIME = 0.025  # s
# A camera that has not answered within EAGER_TIME is at something long, such as a flush. From then on the
# chip's empty packets are fetched with a pause between, which adds little to the wait: at one a millisecond
# they cost a tenth of a processor.
EAGER_TIME = 0.020  # s
PAUSE = 0.003  # s
CONTROL_TIME = 2.0  # s; a chip answers control requests at once
WRITE_TIME = 5.0  # s; the vendor's


@dataclass(frozen=True)
class Port:
    """A camera as the USB shows it, not yet opened.

    `serial` is None when it could not be read; `problem` then says why.
    """

    series: Series
    serial: str | None
    location: str
    problem: Exception | None = None
    device: Any = field(default=None, repr=False, compare=False)


def ports(backend: Any = None, known: Mapping[str, str] | None = None) -> list[Port]:
    """The QSI cameras on the USB. `backend` is a pyusb backend; None means libusb.

    Asks each for its serial number, which one that is in use elsewhere may refuse; those at the locations in
    `known` (location -> serial) are not asked again.
    Raises `NoCamera` when there is no USB to look at (libusb is missing).
    """
    known = known or {}
    try:
        devices = list(usb.core.find(find_all=True, backend=backend, idVendor=VENDOR_ID))
    except usb.core.NoBackendError as error:
        raise NoCamera("libusb was not found", "Install the package libusb-1.0-0") from error
    except usb.core.USBError as error:
        raise NoCamera(f"The USB could not be listed ({error.strerror or error})") from error
    found = []
    for device in devices:
        series = series_of(device.idProduct)
        if series is None:
            continue
        location = f"{device.bus or 0:03}:{device.address or 0:03}"
        if location in known:
            found.append(Port(series, known[location], location, device=device))
            continue
        try:
            serial = usb.util.get_string(device, device.iSerialNumber, LANGUAGE)
            found.append(Port(series, serial, location, device=device))
        except (usb.core.USBError, ValueError) as error:
            found.append(Port(series, None, location, _open_error(error, location), device))
        finally:
            usb.util.dispose_resources(device)
    return found


class Channel:
    """A claimed FTDI channel: bytes out, bytes in with the status bytes taken off.

    One thread at a time. Errors of the USB come out as `LinkError`s.
    """

    def __init__(self, port: Port) -> None:
        """Opens and sets up the chip. Raises `AccessError` or `LinkError`."""
        self.port = port
        self._device = port.device
        chip = port.series.chip
        self._packet = chip.packet
        self._block = array("B", bytes(chip.block))
        # What the packets of a full block carry, an element each.
        self._payload = np.dtype(f"V{self._packet - STATUS_BYTES}")
        self._payloads = np.ndarray(
            chip.block // self._packet, self._payload, self._block, STATUS_BYTES, (self._packet,)
        )
        self._pending = memoryview(b"")
        self._read_at = 0.0  # monotonic, when the chip last sent something
        try:
            self._claim()
        except (usb.core.USBError, ValueError, NotImplementedError) as error:
            usb.util.dispose_resources(self._device)
            raise _open_error(error, port.location) from error
        try:
            self._set_up()
        except LinkError:
            self.close()
            raise

    def _claim(self) -> None:
        # A rule of the user's may have bound ftdi_sio. Not every platform has kernel drivers to detach.
        with contextlib.suppress(NotImplementedError):
            if self._device.is_kernel_driver_active(INTERFACE):
                self._device.detach_kernel_driver(INTERFACE)
        try:
            configured = self._device.get_active_configuration().bConfigurationValue == 1
        except usb.core.USBError as error:
            if error.errno in (errno.EACCES, errno.EBUSY, errno.ENODEV):
                raise
            configured = False
        if not configured:
            self._device.set_configuration(1)
        usb.util.claim_interface(self._device, INTERFACE)

    def _set_up(self) -> None:
        self._control(SIO_RESET, RESET_WHOLE)
        if self.port.series.chip.sync_fifo:
            self._control(SIO_SET_BIT_MODE, BIT_MODE_RESET)
            time.sleep(BIT_MODE_PAUSE)
            self._control(SIO_SET_BIT_MODE, BIT_MODE_SYNC_FIFO)
        self._control(SIO_SET_FLOW_CONTROL, 0, FLOW_RTS_CTS | PORT_A)
        self.purge()
        self._control(SIO_SET_LATENCY, LATENCY_MS)

    def close(self) -> None:
        """Releases the camera. Safe to call twice, and after it was unplugged."""
        self._pending = memoryview(b"")
        with contextlib.suppress(usb.core.USBError):  # it is gone: nothing left to release
            usb.util.dispose_resources(self._device)

    def restart(self) -> None:
        """Sets the chip up as at open. A reset of the bus makes it forget that without a sign to us."""
        self._set_up()

    def purge(self) -> None:
        """Empties both queues of the chip, and ours."""
        self._pending = memoryview(b"")
        self._control(SIO_RESET, PURGE_FROM_HOST)
        self._control(SIO_RESET, PURGE_TO_HOST)

    def _control(self, request: int, value: int, index: int = PORT_A) -> None:
        try:
            self._device.ctrl_transfer(
                REQUEST_OUT, request, value, index, None, timeout=round(CONTROL_TIME * 1000)
            )
        except usb.core.USBTimeoutError as error:
            raise TimedOut("setting up the USB chip", CONTROL_TIME) from error
        except usb.core.USBError as error:
            self._fail(error)

    def write(self, data: bytes) -> None:
        """Sends all of `data`. Raises `LinkError` when the chip does not take it within 5 s."""
        deadline = Deadline(WRITE_TIME)
        view = memoryview(data)
        while view:
            try:
                sent = self._device.write(ENDPOINT_OUT, view.tobytes(), _milliseconds(deadline))
            except usb.core.USBTimeoutError as error:
                raise ProtocolError(f"the camera took no data for {WRITE_TIME:.0f} s") from error
            except usb.core.USBError as error:
                self._fail(error)
            view = view[sent:]

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        """Fills the head of `target` with what arrives first; returns how many bytes.

        Waits for at least one byte, until the deadline: 0 means that nothing came.
        """
        if self._pending:
            count = min(len(self._pending), len(target))
            target[:count] = self._pending[:count]
            self._pending = self._pending[count:]
            return count
        eager = Deadline(EAGER_TIME)
        while True:
            if count := self._strip(self._read_block(deadline), target):
                return count
            # Asked after each read: an idle chip sends empty packets for ever.
            if deadline.passed:
                return 0
            if eager.passed:
                time.sleep(min(PAUSE, deadline.remaining))

    def look(self) -> bytes:
        """What waits in the queue right now, without waiting for more than two latency periods."""
        # The first packet may be an old one, made when there was nothing: what came since is in the second.
        # Not so if one was read just now: the chip's timer, which makes them, has not run out since.
        just_now = time.monotonic() - self._read_at < LATENCY_MS / 1000
        for _ in range(1 if just_now else 2):
            if not self._pending:
                self._strip(self._read_block(Deadline(LOOK_TIME)), memoryview(bytearray()))
        waiting = self._pending.tobytes()
        self._pending = memoryview(b"")
        return waiting

    def _read_block(self, deadline: Deadline) -> int:
        try:
            received = int(self._device.read(ENDPOINT_IN, self._block, _milliseconds(deadline)))
            self._read_at = time.monotonic()
            return received
        except usb.core.USBTimeoutError:
            return 0
        except usb.core.USBError as error:
            self._fail(error)

    def _strip(self, received: int, target: memoryview) -> int:
        """Payload of the block into `target`, and what does not fit into `_pending`."""
        whole = received // self._packet
        end = whole * self._packet + STATUS_BYTES  # of the full packets, and of the next one's status
        size = self._payload.itemsize
        fit = min(whole, len(target) // size)
        if fit:
            np.copyto(np.frombuffer(target, self._payload, fit), self._payloads[:fit])
            if fit == whole and received <= end:
                return fit * size
        rest = self._payloads[fit:whole].tobytes() + self._block[end:received].tobytes()
        room = target[fit * size : fit * size + len(rest)]
        room[:] = rest[: len(room)]
        if len(room) < len(rest):
            self._pending = memoryview(rest[len(room) :])
        return fit * size + len(room)

    def _fail(self, error: usb.core.USBError) -> NoReturn:
        if error.errno == errno.EPIPE:
            with contextlib.suppress(usb.core.USBError):  # the error below says enough
                self._device.clear_halt(ENDPOINT_IN)
                self._device.clear_halt(ENDPOINT_OUT)
            raise ProtocolError("the USB endpoint of the camera stalled") from error
        if error.errno == errno.EOVERFLOW:
            raise ProtocolError("the camera sent more than was asked for") from error
        if error.errno == errno.ENODEV:
            raise Disconnected("The camera left the USB") from error
        raise Disconnected(f"The USB failed: {error.strerror or error}") from error


def _milliseconds(deadline: Deadline) -> int:
    """For pyusb, where 0 would mean for ever."""
    return max(1, math.ceil(deadline.remaining * 1000))


def _open_error(error: Exception, location: str) -> Exception:
    code = getattr(error, "errno", None)
    where = f"The camera at USB {location}"
    if code in (errno.EACCES, errno.EPERM):
        return NoPermission(f"{where} may not be opened by this user")
    if code == errno.EBUSY:
        return CameraInUse(f"{where} is in use by another program")
    if code in (errno.ENODEV, errno.ENOENT):
        return Disconnected(f"{where} left the USB")
    return LinkError(f"{where} could not be opened: {error}", "Plug the camera in again")
