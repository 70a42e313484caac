# SPDX-License-Identifier: LGPL-2.1-or-later
"""The standard requests of a USB device: descriptors, configuration, halts."""

from __future__ import annotations

import errno

from usbproto.simulator import descriptors
from usbproto.simulator.usbtransfer import Setup, UsbFailure

# (bmRequestType, bRequest)
_GET_STATUS = {(0x80, 0x00), (0x81, 0x00)}
_GET_ENDPOINT_STATUS = (0x82, 0x00)
_CLEAR_HALT, _SET_HALT = (0x02, 0x01), (0x02, 0x03)
_GET_DESCRIPTOR = (0x80, 0x06)
_GET_CONFIGURATION, _SET_CONFIGURATION = (0x80, 0x08), (0x00, 0x09)
_GET_INTERFACE, _SET_INTERFACE = (0x81, 0x0A), (0x01, 0x0B)
_ACCEPTED = {(0x00, 0x01), (0x00, 0x03), (0x00, 0x05)}  # remote wake-up off and on, set address


class EndpointZero:
    """`halted` holds the endpoints that refuse transfers until the host clears their halt.

    `strings` by their numbers; `strings_readable` is False for a device that refuses to tell them.
    """

    def __init__(self, device: bytes, configuration: bytes, strings: dict[int, str], speed: int) -> None:
        self.device = device
        self.configuration = configuration
        self.strings = strings
        self.strings_readable = True
        self.halted: set[int] = set()
        self._control_packet = int(descriptors.parse_device(device).bMaxPacketSize0)
        self._speed = speed
        self._configured = 1
        parsed = descriptors.parse_configuration(configuration)
        self.interface_count = len(parsed.interfaces)
        self.interface_of = {
            int(endpoint.bEndpointAddress): number
            for number, settings in enumerate(parsed.interfaces)
            for endpoint in settings[0].endpoints
        }

    def reset(self) -> None:
        """As after plugging in, when the host's kernel has chosen the configuration."""
        self.halted.clear()
        self._configured = 1

    def answer(self, setup: Setup) -> bytes:
        """The data of an IN request, nothing for an OUT one; UsbFailure(EPIPE) when it is refused."""
        request = (setup.request_type, setup.request)
        if request == _GET_DESCRIPTOR:
            return self._descriptor(setup.value >> 8, setup.value & 0xFF)
        if request in _GET_STATUS:
            return bytes(2)
        if request in (_GET_ENDPOINT_STATUS, _CLEAR_HALT, _SET_HALT) and (
            setup.index == 0 or setup.index in self.interface_of
        ):
            return self._halt_request(request, setup.index)
        if request == _GET_CONFIGURATION:
            return bytes((self._configured,))
        if request == _SET_CONFIGURATION and setup.value in (0, 1):
            self._configured = setup.value
            self.halted.clear()
            return b""
        if request in (_GET_INTERFACE, _SET_INTERFACE) and setup.index < self.interface_count:
            if request == _GET_INTERFACE:
                return bytes(1)
            if setup.value == 0:
                return b""
        if request in _ACCEPTED:
            return b""
        raise UsbFailure(errno.EPIPE)

    def _halt_request(self, request: tuple[int, int], endpoint: int) -> bytes:
        if request == _GET_ENDPOINT_STATUS:
            return bytes((endpoint in self.halted, 0))
        if request == _SET_HALT:
            self.halted.add(endpoint)
        else:
            self.halted.discard(endpoint)
        return b""

    def _descriptor(self, kind: int, number: int) -> bytes:
        if kind == descriptors.DEVICE:
            return self.device
        if kind == descriptors.CONFIGURATION and number == 0:
            return self.configuration
        if kind == descriptors.STRING and self.strings_readable:
            if number == descriptors.LANGUAGES:
                return descriptors.languages_descriptor()
            if number in self.strings:
                return descriptors.string_descriptor(self.strings[number])
        if kind == descriptors.DEVICE_QUALIFIER and self._speed == descriptors.HIGH_SPEED:
            return descriptors.qualifier_descriptor(self._control_packet)
        raise UsbFailure(errno.EPIPE)
