# SPDX-License-Identifier: LGPL-2.1-or-later
"""Simulated cameras for programs that use PyUSB: a `usb.backend.IBackend` in the same process.

`PyUsbBackend` turns PyUSB's calls into those of a `UsbHandle` and its failures into the errors that PyUSB's
libusb 1.0 backend raises; `SimulatorBackend` finds the handles in a list of simulated devices.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Generic, Protocol, TypeVar

import usb.backend
import usb.core

from usbproto.simulator import descriptors
from usbproto.simulator.usbdevice import Handle, UsbDevice
from usbproto.simulator.usbtransfer import IN, URB_BYTES, Setup, UsbFailure

# A time limit for the small requests that the backend itself makes; libusb has the same for its own.
REQUEST_TIMEOUT = 1.0  # s

# errno -> code and text of libusb. What else a kernel may say is told as an input/output error.
_LIBUSB = {
    errno.EIO: (-1, "Input/Output Error"),
    errno.EINVAL: (-2, "Invalid parameter"),
    errno.EACCES: (-3, "Access denied (insufficient permissions)"),
    errno.ENODEV: (-4, "No such device (it may have been disconnected)"),
    errno.ENOENT: (-5, "Entity not found"),
    errno.EBUSY: (-6, "Resource busy"),
    errno.ETIMEDOUT: (-7, "Operation timed out"),
    errno.EOVERFLOW: (-8, "Overflow"),
    errno.EPIPE: (-9, "Pipe error"),
    errno.ENOMEM: (-11, "Insufficient memory"),
}


def usb_error(failure: UsbFailure) -> Exception:
    """What PyUSB's libusb 1.0 backend raises for it."""
    number = errno.ENODEV if failure.errno == errno.ESHUTDOWN else failure.errno
    number = number if number in _LIBUSB else errno.EIO
    code, text = _LIBUSB[number]
    kind = usb.core.USBTimeoutError if number == errno.ETIMEDOUT else usb.core.USBError
    error: Exception = kind(text, code, number)
    return error


class UsbHandle(Protocol):
    """An open device. Methods raise UsbFailure; time-outs in s, None waits for ever."""

    def control(self, setup: Setup, data: memoryview, timeout: float | None) -> int: ...

    def bulk(self, endpoint: int, data: memoryview, timeout: float | None) -> int: ...

    def reset(self) -> None: ...

    def claim(self, interface: int) -> None: ...

    def release(self, interface: int) -> None: ...

    def kernel_driver_active(self, interface: int) -> bool: ...

    def attach_kernel_driver(self, interface: int, attach: bool) -> None: ...

    def close(self) -> None: ...


_Id = TypeVar("_Id")


class PyUsbBackend(usb.backend.IBackend, Generic[_Id]):  # type: ignore[misc]  # PyUSB has no types
    """PyUSB's backend interface over handles. A subclass lists the devices (`_Id`) and opens them."""

    def __init__(self) -> None:
        self._handles: set[UsbHandle] = set()
        self._lock = threading.Lock()

    def _open(self, dev: _Id) -> UsbHandle:
        raise NotImplementedError

    def _configuration(self, dev: _Id) -> bytes:
        """The configuration descriptor with all that belongs to it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what programs left open."""
        with self._lock:
            handles, self._handles = list(self._handles), set()
        for handle in handles:
            handle.close()

    def _finalize_object(self) -> None:
        with contextlib.suppress(AttributeError):  # when __init__ failed
            self.close()

    # --- descriptors ---

    def get_parent(self, dev: _Id) -> None:
        """Simulated devices hang on no hub."""

    def get_configuration_descriptor(self, dev: _Id, config: int) -> SimpleNamespace:
        return self._parsed(dev, config).fields

    def get_interface_descriptor(self, dev: _Id, intf: int, alt: int, config: int) -> SimpleNamespace:
        return self._parsed(dev, config).interfaces[intf][alt].fields

    def get_endpoint_descriptor(self, dev: _Id, ep: int, intf: int, alt: int, config: int) -> SimpleNamespace:
        return self._parsed(dev, config).interfaces[intf][alt].endpoints[ep]

    def _parsed(self, dev: _Id, config: int) -> descriptors.Configuration:
        if config != 0:
            raise IndexError(f"configuration {config}: there is only one")
        with _errors():
            return descriptors.parse_configuration(self._configuration(dev))

    # --- open, claim, configure ---

    def open_device(self, dev: _Id) -> UsbHandle:
        with _errors():
            handle = self._open(dev)
        with self._lock:
            self._handles.add(handle)
        return handle

    def close_device(self, dev_handle: UsbHandle) -> None:
        with self._lock:
            self._handles.discard(dev_handle)
        dev_handle.close()

    def get_configuration(self, dev_handle: UsbHandle) -> int:
        answer = bytearray(1)
        with _errors():
            dev_handle.control(Setup(0x80, 0x08, length=1), memoryview(answer), REQUEST_TIMEOUT)
        return answer[0]

    def set_configuration(self, dev_handle: UsbHandle, config_value: int) -> None:
        with _errors():
            dev_handle.control(Setup(0x00, 0x09, config_value), memoryview(b""), REQUEST_TIMEOUT)

    def set_interface_altsetting(self, dev_handle: UsbHandle, intf: int, altsetting: int) -> None:
        with _errors():
            dev_handle.control(Setup(0x01, 0x0B, altsetting, intf), memoryview(b""), REQUEST_TIMEOUT)

    def claim_interface(self, dev_handle: UsbHandle, intf: int) -> None:
        with _errors():
            dev_handle.claim(intf)

    def release_interface(self, dev_handle: UsbHandle, intf: int) -> None:
        with _errors():
            dev_handle.release(intf)

    def is_kernel_driver_active(self, dev_handle: UsbHandle, intf: int) -> bool:
        with _errors():
            return dev_handle.kernel_driver_active(intf)

    def detach_kernel_driver(self, dev_handle: UsbHandle, intf: int) -> None:
        with _errors():
            dev_handle.attach_kernel_driver(intf, False)

    def attach_kernel_driver(self, dev_handle: UsbHandle, intf: int) -> None:
        with _errors():
            dev_handle.attach_kernel_driver(intf, True)

    def clear_halt(self, dev_handle: UsbHandle, ep: int) -> None:
        try:
            dev_handle.control(Setup(0x02, 0x01, 0, ep), memoryview(b""), REQUEST_TIMEOUT)
        except UsbFailure as failure:
            number = errno.ENOENT if failure.errno == errno.EPIPE else failure.errno
            raise usb_error(UsbFailure(number)) from None

    def reset_device(self, dev_handle: UsbHandle) -> None:
        with _errors():
            dev_handle.reset()

    # --- transfers ---

    def bulk_write(self, dev_handle: UsbHandle, ep: int, intf: int, data: array[int], timeout: int) -> int:
        return self._bulk(dev_handle, ep & ~IN, data, timeout)

    def bulk_read(self, dev_handle: UsbHandle, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        return self._bulk(dev_handle, ep | IN, buff, timeout)

    def scatter_gather(self, bus: int, address: int) -> bool:
        """Whether a device's read above URB_BYTES is one transfer (URB), as with most host controllers."""
        return True

    def _bulk(self, handle: UsbHandle, endpoint: int, data: array[int], timeout: int) -> int:
        try:  # not `_errors`, which costs as much as the rest: there are many of these
            return handle.bulk(endpoint, memoryview(data).cast("B"), _seconds(timeout))
        except UsbFailure as failure:
            raise usb_error(failure) from None

    def ctrl_transfer(
        self,
        dev_handle: UsbHandle,
        bmRequestType: int,  # noqa: N803  # PyUSB's names
        bRequest: int,  # noqa: N803
        wValue: int,  # noqa: N803
        wIndex: int,  # noqa: N803
        data: array[int],
        timeout: int,
    ) -> int:
        view = memoryview(data).cast("B")
        with _errors():
            setup = Setup(bmRequestType, bRequest, wValue, wIndex, len(view))
            return dev_handle.control(setup, view, _seconds(timeout))


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except UsbFailure as failure:
        raise usb_error(failure) from None


def _seconds(timeout: int) -> float | None:
    """PyUSB's milliseconds, where 0 is no limit."""
    return timeout / 1000 if timeout else None


@dataclass(frozen=True)
class _Listed:
    """A device as it was when the bus was listed."""

    device: UsbDevice
    port: int
    address: int


class SimulatorBackend(PyUsbBackend[_Listed]):
    """The devices of `bus`, which may grow and shrink; those that are unplugged are not listed."""

    BUS = 1

    def __init__(self, bus: Iterable[UsbDevice]) -> None:
        super().__init__()
        self._bus = bus

    def enumerate_devices(self) -> list[_Listed]:
        return [_Listed(d, port, d.address) for port, d in enumerate(self._bus, 1) if d.plugged]

    def get_device_descriptor(self, dev: _Listed) -> SimpleNamespace:
        fields = descriptors.parse_device(dev.device.device_descriptor)
        fields.bus, fields.address, fields.speed = self.BUS, dev.address, dev.device.speed
        fields.port_number, fields.port_numbers = dev.port, (dev.port,)
        return fields

    def _configuration(self, dev: _Listed) -> bytes:
        return dev.device.configuration_descriptor

    def scatter_gather(self, bus: int, address: int) -> bool:
        return all(device.scatter_gather for device in self._bus if device.address == address)

    def bulk_read(self, dev_handle: UsbHandle, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        assert isinstance(dev_handle, Handle)
        view = memoryview(buff).cast("B")
        if len(view) <= URB_BYTES or dev_handle.device.scatter_gather:
            return super().bulk_read(dev_handle, ep, intf, buff, timeout)
        with _errors():
            return dev_handle.bulk_in_row(ep | IN, view, _seconds(timeout), URB_BYTES)

    def _open(self, dev: _Listed) -> UsbHandle:
        handle = dev.device.open()
        if dev.device.address != dev.address:  # replugged since it was listed
            handle.close()
            raise UsbFailure(errno.ENODEV)
        return handle
