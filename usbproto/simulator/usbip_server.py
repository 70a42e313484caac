# SPDX-License-Identifier: LGPL-2.1-or-later
"""A USB/IP server: simulated cameras for other programs, and for a Linux kernel (`usbip attach`).

USB/IP has neither passwords nor encryption, so the server listens on loopback addresses and unix sockets
unless it is told otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
from collections.abc import Iterable, Sequence

from usbproto.simulator import descriptors, usbip_address
from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.usbdevice import Handle, UsbDevice
from usbproto.simulator.usbip_export import Export
from usbproto.simulator.usbtransfer import UsbFailure

_log = logging.getLogger(__name__)

DEFAULT_LISTEN = (f"127.0.0.1:{usbip_address.DEFAULT_PORT}",)
# Whoever connects says at once what it wants; a silent connection must not stay for ever.
OPERATION_TIMEOUT = 10.0  # s
# Far more programs than anybody runs; keeps a mad one from using up threads.
MAX_CONNECTIONS = 64

BUS = 1
_REFUSALS = {
    errno.EACCES: usbip.OpStatus.NOT_AVAILABLE,
    errno.EBUSY: usbip.OpStatus.BUSY,
    errno.ENODEV: usbip.OpStatus.NO_DEVICE,
}


class UsbIpServer:
    """Serves from construction to `close`. The devices are 1-1, 1-2, ... in the order given.

    `addresses` says where it listens, in the form that clients take. Raises ValueError for a bad or a remote
    address, OSError when one cannot be listened on.
    """

    def __init__(
        self,
        devices: Sequence[UsbDevice],
        listen: Iterable[str] = DEFAULT_LISTEN,
        *,
        allow_remote: bool = False,
    ) -> None:
        self._devices = devices
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._closed = False
        self._listeners: list[socket.socket] = []
        try:
            for text in listen:
                address = usbip_address.parse_address(text)
                self._listeners.append(usbip_address.listen(address, allow_remote=allow_remote))
        except BaseException:
            self._close_listeners()
            raise
        self.addresses = [str(usbip_address.bound_address(listener)) for listener in self._listeners]
        self._wake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="USB/IP server", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> UsbIpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up and stop listening; returns when all threads have ended. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._waker.close()
        self._acceptor.join()
        self._wake.close()
        self._close_listeners()
        with self._lock:
            connections = dict(self._connections)
            for connection in connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in connections:
            thread.join()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            address = usbip_address.bound_address(listener)
            listener.close()
            usbip_address.remove(address)

    # --- connections ---

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._wake):
                selector.register(listener, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    return
                for listener in self._listeners:
                    if listener in ready:
                        with contextlib.suppress(OSError):  # it has gone again
                            self._start(listener.accept()[0])

    def _start(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                _log.warning("refused a connection: there are %d already", MAX_CONNECTIONS)
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="USB/IP connection", daemon=True
            )
            self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            usbip_address.tune(connection)
            connection.settimeout(OPERATION_TIMEOUT)
            self._operation(connection)
        except usbip.ProtocolError as error:
            _log.warning("hung up on a client: %s", error)
        except (OSError, EOFError) as gone:
            _log.debug("a client has gone: %s", gone)
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
                connection.close()

    def _operation(self, connection: socket.socket) -> None:
        op, _ = usbip.parse_op_header(usbip_address.receive_bytes(connection, usbip.OP_HEADER_SIZE))
        if op == usbip.Op.REQUEST_LIST:
            found = [self._info(n) for n, device in enumerate(self._devices) if device.plugged]
            connection.sendall(usbip.list_reply(found))
        elif op == usbip.Op.REQUEST_IMPORT:
            busid = usbip.parse_busid(usbip_address.receive_bytes(connection, usbip.BUSID_SIZE))
            self._import(connection, busid)
        else:
            raise usbip.ProtocolError(f"{op.name} from a client")

    def _import(self, connection: socket.socket, busid: str) -> None:
        try:
            info, handle = self._open(busid)
        except UsbFailure as failure:
            status = _REFUSALS.get(failure.errno, usbip.OpStatus.ERROR)
            _log.info("refused to give %s away: %s", busid, status.name)
            connection.sendall(usbip.import_reply(None, status))
            return
        try:
            connection.sendall(usbip.import_reply(info))
            connection.settimeout(None)
            _log.info("%s is imported", busid)
            Export(connection, handle).run()
        finally:
            handle.close()
            _log.info("%s is free", busid)

    def _open(self, busid: str) -> tuple[usbip.DeviceInfo, Handle]:
        """Take the whole device, as a host's USB/IP driver does. UsbFailure when it cannot be had."""
        for number, device in enumerate(self._devices):
            if self._busid(number) == busid:
                handle = device.open()
                with contextlib.suppress(UsbFailure):  # there is no kernel driver
                    handle.attach_kernel_driver(0, False)
                try:
                    for interface in range(device.interface_count):
                        handle.claim(interface)
                except UsbFailure:
                    handle.close()
                    raise
                return self._info(number), handle
        raise UsbFailure(errno.ENODEV)

    @staticmethod
    def _busid(number: int) -> str:
        return f"{BUS}-{number + 1}"

    def _info(self, number: int) -> usbip.DeviceInfo:
        device, busid = self._devices[number], self._busid(number)
        fields = descriptors.parse_device(device.device_descriptor)
        configuration = descriptors.parse_configuration(device.configuration_descriptor)
        settings = [interface[0].fields for interface in configuration.interfaces]
        return usbip.DeviceInfo(
            path=f"/sys/devices/simulated/usb{BUS}/{busid}",
            busid=busid,
            bus=BUS,
            address=device.address,
            speed=device.speed,
            vendor=fields.idVendor,
            product=fields.idProduct,
            bcd_device=fields.bcdDevice,
            device_class=(fields.bDeviceClass, fields.bDeviceSubClass, fields.bDeviceProtocol),
            configuration=configuration.fields.bConfigurationValue,
            configurations=fields.bNumConfigurations,
            interface_count=len(settings),
            interfaces=tuple(
                (s.bInterfaceClass, s.bInterfaceSubClass, s.bInterfaceProtocol) for s in settings
            ),
        )
