# SPDX-License-Identifier: LGPL-2.1-or-later
"""An FTDI channel over pyusb. The only module on the host's side that imports `usb`.

What the chip wants is in the wire protocol, section 1.1; the order of the requests at open is the vendor's.

A transfer that fails is one transfer that failed, as long as the device is there: the channel makes itself
ready for the next one before it raises `TransferFailed`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import usb.core
import usb.util

from usbproto import usbfs
from usbproto.deadline import Deadline, Stop
from usbproto.errors import (
    CameraInUse,
    Disconnected,
    LinkError,
    NoCamera,
    NoPermission,
    ProtocolError,
    TimedOut,
    TransferFailed,
)
from usbproto.models import VENDOR_ID, Series, series_of
from usbproto.timing import FAST, Timing

log = logging.getLogger(__name__)

INTERFACE = 0
ENDPOINT_IN = 0x81
ENDPOINT_OUT = 0x02
LANGUAGE = 0x0409

# Vendor requests, host to device and device to host.
REQUEST_OUT = 0x40
REQUEST_IN = 0xC0
SIO_RESET = 0x00
SIO_SET_FLOW_CONTROL = 0x02
SIO_SET_LATENCY = 0x09
SIO_GET_LATENCY = 0x0A
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
# Bytes of a read that every host controller carries in one transfer; the vendor's.
SMALL_BLOCK = 16 * 1024
# Bytes that are asked for at a time otherwise, by the size of the packets: much, because every read costs the
# same, however large; but of an image that takes many seconds no more than comes in one, so that its progress
# shows.
LARGE_BLOCKS = {64: 128 * 1024, 512: 1024 * 1024}
PACKET_SIZES = tuple(LARGE_BLOCKS)
# A look ends with the chip's next status packet; this only bounds a chip that sends none.
LOOK_TIME = 0.025  # s
# A camera that has not answered within EAGER_TIME is at something long, such as a flush. From then on the
# chip's empty packets are fetched with a pause between, which adds little to the wait: at one a millisecond
# they cost a tenth of a processor.
EAGER_TIME = 0.020  # s
PAUSE = 0.003  # s
CONTROL_TIME = 2.0  # s; a chip answers control requests at once
WRITE_TIME = 5.0  # s; the vendor's
# s that one read may take in the kernel while waits can be ended: a thread in there cannot be asked to stop.
# Reads of an image are not cut.
READ_SLICE = 0.25
# s after a failed transfer. A hub needs some time to notice that a cable was pulled.
FAILURE_PAUSE = 0.1
CONTROL_ATTEMPTS = 3  # of a request that fails although the device is there
LEFT = frozenset({errno.ENODEV, errno.ESHUTDOWN})
NO_MEMORY = (
    "Other USB devices may use it up. Raise the kernel's limit: "
    "echo 64 | sudo tee /sys/module/usbcore/parameters/usbfs_memory_mb"
)


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

    One thread at a time. Errors of the USB come out as `LinkError`s. `stop` ends waiting; `odd` hears, by a
    key and a text, of what is unusual and harmless.
    """

    def __init__(self, port: Port, timing: Timing = FAST) -> None:
        """Opens and sets up the chip. Raises `AccessError` or `LinkError`."""
        self.port = port
        self.stop = Stop()
        self.interruptible = False  # whether `stop` ends a wait soon
        self.odd: Callable[[str, str], None] = lambda key, text: log.warning("%s", text)
        self._device = port.device
        self._timing = timing
        self.closed = False
        self._pending = memoryview(b"")
        self._read_at = 0.0  # monotonic, when the chip last sent something
        try:
            self._claim()
        except (usb.core.USBError, ValueError, NotImplementedError) as error:
            usb.util.dispose_resources(self._device)
            raise _open_error(error, port.location) from error
        try:
            self._packet = self._packet_size()
            self._make_block(self._large_block() if timing.large_reads else SMALL_BLOCK)
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

    def _packet_size(self) -> int:
        """What the endpoint says, as libftdi does: the chip's type is no proof behind a full-speed hub."""
        usual = self.port.series.chip.packet
        try:
            configuration = self._device.get_active_configuration()
            endpoint = usb.util.find_descriptor(configuration[INTERFACE, 0], bEndpointAddress=ENDPOINT_IN)
            size = int(endpoint.wMaxPacketSize)
        except (usb.core.USBError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            log.debug("the packet size cannot be read (%s): %d bytes are usual", error, usual)
            return usual
        if size not in PACKET_SIZES:
            log.warning("the endpoint's packet size is given as %d bytes; %d are used", size, usual)
            return usual
        if size != usual:
            log.warning(
                "the USB packets have %d bytes instead of %d: is the camera behind a slow hub or isolator? "
                "It works, and images take longer",
                size,
                usual,
            )
        return size

    def _large_block(self) -> int:
        bus, address = self._device.bus or 0, self._device.address or 0
        ask = getattr(self._backend, "scatter_gather", None)
        large = ask(bus, address) if ask is not None else usbfs.takes_large_reads(bus, address)
        log.debug("reads of more than 16 KiB are %s", "one transfer" if large else "avoided")
        return LARGE_BLOCKS[self._packet] if large else SMALL_BLOCK

    @property
    def _backend(self) -> Any:
        return getattr(self._device, "backend", None)

    def _make_block(self, size: int) -> None:
        self._block = array("B", bytes(size))
        # What the packets of a full block carry, an element each.
        self._payload = np.dtype(f"V{self._packet - STATUS_BYTES}")
        self._payloads = np.ndarray(
            size // self._packet, self._payload, self._block, STATUS_BYTES, (self._packet,)
        )

    @property
    def block_size(self) -> int:
        """Bytes of one read."""
        return len(self._block)

    def use_timing(self, timing: Timing) -> None:
        """Changes latency timer and size of reads, between two exchanges. Raises `LinkError`."""
        if timing is self._timing:
            return
        self._timing = timing
        size = self._large_block() if timing.large_reads else SMALL_BLOCK
        if size != len(self._block):
            self._make_block(size)
        self._set_latency()

    def _set_up(self) -> None:
        self._control(SIO_RESET, RESET_WHOLE)
        if self.port.series.chip.sync_fifo:
            self._control(SIO_SET_BIT_MODE, BIT_MODE_RESET)
            time.sleep(BIT_MODE_PAUSE)
            self._control(SIO_SET_BIT_MODE, BIT_MODE_SYNC_FIFO)
        self._control(SIO_SET_FLOW_CONTROL, 0, FLOW_RTS_CTS | PORT_A)
        self.purge()
        self._set_latency()

    def _set_latency(self) -> None:
        self._control(SIO_SET_LATENCY, self._timing.latency_ms)

    def close(self) -> None:
        """Releases the camera. Safe to call twice, and after it was unplugged."""
        self.closed = True
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
        """A setting of the chip, sent again when the transfer failed: that changes nothing more."""
        for attempt in range(1, CONTROL_ATTEMPTS + 1):
            try:
                self._device.ctrl_transfer(
                    REQUEST_OUT, request, value, index, None, timeout=round(CONTROL_TIME * 1000)
                )
                return
            except usb.core.USBTimeoutError as error:
                raise TimedOut("setting up the USB chip", CONTROL_TIME) from error
            except usb.core.USBError as error:
                if self._has_left(error):
                    raise Disconnected("The camera left the USB") from error
                if attempt == CONTROL_ATTEMPTS:
                    raise _transfer_failed(error) from error
                log.warning("a request to the USB chip failed (%s); sending it again", error)
                self.stop.pause(FAILURE_PAUSE)

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
            self.stop.check()
            if eager.passed:
                time.sleep(min(PAUSE, deadline.remaining))

    def look(self) -> bytes:
        """What waits in the queue right now, without waiting for more than two latency periods."""
        # The first packet may be an old one, made when there was nothing: what came since is in the second.
        # Not so if one was read just now: the chip's timer, which makes them, has not run out since.
        just_now = time.monotonic() - self._read_at < self._timing.latency_ms / 1000
        for _ in range(1 if just_now else 2):
            if not self._pending:
                self._strip(self._read_block(Deadline(LOOK_TIME)), memoryview(bytearray()))
        waiting = self._pending.tobytes()
        self._pending = memoryview(b"")
        return waiting

    def _read_block(self, deadline: Deadline) -> int:
        try:
            longest = READ_SLICE if self.interruptible else math.inf
            received = int(self._device.read(ENDPOINT_IN, self._block, _milliseconds(deadline, longest)))
            self._read_at = time.monotonic()
            return received
        except usb.core.USBTimeoutError:
            return 0
        except usb.core.USBError as error:
            if error.errno == errno.ENOMEM and len(self._block) > SMALL_BLOCK:
                self.odd("usbfs memory", f"The kernel has no memory for large USB reads. {NO_MEMORY}")
                self._make_block(SMALL_BLOCK)
                return 0
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

    # --- failures ---

    def _fail(self, error: usb.core.USBError) -> NoReturn:
        """Raises `Disconnected`, or else `TransferFailed` when the channel is fit for the next transfer."""
        if self._has_left(error) or not self._recovers():
            raise Disconnected("The camera left the USB") from error
        raise _transfer_failed(error) from error

    def _has_left(self, error: usb.core.USBError) -> bool:
        if error.errno in LEFT:
            return True
        if hasattr(self._backend, "scatter_gather"):  # ours: there is no device node
            return False
        return usbfs.is_gone(self._device.bus or 0, self._device.address or 0)

    def _recovers(self) -> bool:
        """Clears the endpoints, and sets the chip up again if it has forgotten how. False: it is gone."""
        self._pending = memoryview(b"")
        try:
            for endpoint in (ENDPOINT_IN, ENDPOINT_OUT):
                self._device.clear_halt(endpoint)
        except usb.core.USBError as error:
            if self._has_left(error):
                return False
            log.debug("the endpoints could not be cleared: %s", error)
        time.sleep(FAILURE_PAUSE)
        try:
            answer = self._device.ctrl_transfer(
                REQUEST_IN, SIO_GET_LATENCY, 0, PORT_A, 1, timeout=round(CONTROL_TIME * 1000)
            )
        except usb.core.USBError as error:
            log.debug("the chip does not say how it is set up: %s", error)
            return not self._has_left(error)
        try:
            # One that has the vendor's latency, which is the chip's own, is set up again after a time-out.
            if bytes(answer) != bytes((self._timing.latency_ms,)):
                self._set_up()
        except Disconnected:
            return False
        except LinkError as error:
            log.warning("the USB chip could not be set up again: %s", error)
        return True


def _transfer_failed(error: usb.core.USBError) -> TransferFailed:
    what = f"A USB transfer failed ({error.strerror or error})"
    return TransferFailed(what, error.errno, NO_MEMORY if error.errno == errno.ENOMEM else "")


def _milliseconds(deadline: Deadline, longest: float = math.inf) -> int:
    """What is left, and at most `longest` s; for pyusb, where 0 would mean for ever."""
    return max(1, math.ceil(min(deadline.remaining, longest) * 1000))


def _open_error(error: Exception, location: str) -> Exception:
    code = getattr(error, "errno", None)
    where = f"The camera at USB {location}"
    if code in (errno.EACCES, errno.EPERM):
        return NoPermission(f"{where} may not be opened by this user")
    if code == errno.EBUSY:
        return CameraInUse(f"{where} is in use by another program")
    if code in (errno.ENODEV, errno.ENOENT):
        return Disconnected(f"{where} left the USB")
    if code == errno.ENOMEM:
        return LinkError(f"{where} could not be opened: the kernel has no memory for USB", NO_MEMORY)
    return LinkError(f"{where} could not be opened: {error}", "Plug the camera in again")
