# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cameras of a USB/IP server for programs that use PyUSB: a backend that needs neither root nor a kernel."""

from __future__ import annotations

import errno
import logging
from types import SimpleNamespace

from usbproto.simulator import descriptors, usbip_address
from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.backend import REQUEST_TIMEOUT, PyUsbBackend, UsbHandle
from usbproto.simulator.descriptors import FULL_SPEED
from usbproto.simulator.usbip_address import receive_bytes
from usbproto.simulator.usbip_import import ImportedDevice
from usbproto.simulator.usbtransfer import Setup, UsbFailure

_log = logging.getLogger(__name__)

# For connecting and for the answer to an operation: what a server on this machine or in this house needs,
# many times over, and what a program that looks for cameras can wait.
OPERATION_TIMEOUT = 5.0  # s
MAX_CONFIGURATION = 0xFFFF  # bytes, by the length field

_FAILURES = {
    usbip.OpStatus.NOT_AVAILABLE: errno.EACCES,
    usbip.OpStatus.BUSY: errno.EBUSY,
    usbip.OpStatus.NO_DEVICE: errno.ENODEV,
}


class UsbIpBackend(PyUsbBackend[usbip.DeviceInfo]):
    """The devices of the server at `address` ("HOST:PORT" or "unix:PATH"; ValueError for anything else).

    Listing imports nothing. A device is imported while it is open, so a second opener, here or elsewhere,
    gets EBUSY; also who only wants to read its serial number.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = usbip_address.parse_address(address)
        self._warned = False
        self._configurations: dict[tuple[str, int], bytes] = {}

    def enumerate_devices(self) -> list[usbip.DeviceInfo]:
        """Empty, with a warning in the log the first time, when there is no server."""
        try:
            found = self._list()
        except (OSError, EOFError, usbip.ProtocolError) as error:
            if not self._warned:
                _log.warning(
                    "No cameras: the USB/IP server at %s does not answer (%s). Start the simulator, "
                    "or correct the address.", self.address, error,
                )  # fmt: skip
            self._warned = True
            return []
        self._warned = False
        return found

    def get_device_descriptor(self, dev: usbip.DeviceInfo) -> SimpleNamespace:
        """From the list, which lacks some fields: those are as in every FTDI chip."""
        full_speed = dev.speed == FULL_SPEED
        data = descriptors.device_descriptor(dev.vendor, dev.product, dev.bcd_device, 8 if full_speed else 64)
        fields = descriptors.parse_device(data)
        fields.bDeviceClass, fields.bDeviceSubClass, fields.bDeviceProtocol = dev.device_class
        fields.bus, fields.address, fields.speed = dev.bus, dev.address, dev.speed
        ports = dev.busid.partition("-")[2].split(".")
        fields.port_numbers = tuple(int(p) for p in ports) if all(p.isdecimal() for p in ports) else None
        fields.port_number = fields.port_numbers[-1] if fields.port_numbers else None
        return fields

    def _open(self, dev: usbip.DeviceInfo) -> ImportedDevice:
        try:
            connection = usbip_address.connect(self.address, OPERATION_TIMEOUT)
        except OSError:
            raise UsbFailure(errno.ENODEV) from None
        try:
            connection.sendall(usbip.import_request(dev.busid))
            header = receive_bytes(connection, usbip.OP_HEADER_SIZE)
            op, status = usbip.parse_op_header(header)
            if op != usbip.Op.REPLY_IMPORT:
                raise usbip.ProtocolError(f"{op.name} instead of REPLY_IMPORT")
            if status:
                refusal = usbip.OpStatus(status) if status in set(usbip.OpStatus) else usbip.OpStatus.ERROR
                raise UsbFailure(_FAILURES.get(refusal, errno.EIO))
            info = usbip.parse_device(receive_bytes(connection, usbip.DEVICE_SIZE))
            if info.address != dev.address:  # replugged since it was listed
                raise UsbFailure(errno.ENODEV)
            return ImportedDevice(connection, dev)
        except (OSError, EOFError, usbip.ProtocolError) as error:
            connection.close()
            _log.warning("Cannot import %s from %s: %s", dev.busid, self.address, error)
            raise UsbFailure(errno.ENODEV) from None
        except UsbFailure:
            connection.close()
            raise

    def _configuration(self, dev: usbip.DeviceInfo) -> bytes:
        """Asked of the device once; if it is not open, it is imported for the moment."""
        key = (dev.busid, dev.address)
        if key not in self._configurations:
            with self._lock:
                handles = list(self._handles)
            opened: UsbHandle | None = next(
                (h for h in handles if isinstance(h, ImportedDevice) and h.info == dev), None
            )
            handle = opened or self._open(dev)
            try:
                data = bytearray(MAX_CONFIGURATION)
                setup = Setup(0x80, 0x06, descriptors.CONFIGURATION << 8, 0, len(data))
                count = handle.control(setup, memoryview(data), REQUEST_TIMEOUT)
            finally:
                if handle is not opened:
                    handle.close()
            self._configurations[key] = bytes(data[:count])
        return self._configurations[key]

    def _list(self) -> list[usbip.DeviceInfo]:
        with usbip_address.connect(self.address, OPERATION_TIMEOUT) as connection:
            connection.sendall(usbip.op_header(usbip.Op.REQUEST_LIST))
            op, status = usbip.parse_op_header(receive_bytes(connection, usbip.OP_HEADER_SIZE))
            count = int.from_bytes(receive_bytes(connection, 4), "big")
            if op != usbip.Op.REPLY_LIST or status or count > usbip.MAX_LISTED:
                raise usbip.ProtocolError(f"{op.name}, status {status}, {count} devices")
            found = []
            for _ in range(count):
                info = usbip.parse_device(receive_bytes(connection, usbip.DEVICE_SIZE))
                receive_bytes(connection, 4 * info.interface_count)
                found.append(info)
            return found
