# SPDX-License-Identifier: LGPL-2.1-or-later
"""USB descriptors of the two FTDI chips, as bytes, and bytes of descriptors as fields. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import SimpleNamespace

from usbproto import models

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, DEVICE_QUALIFIER = 1, 2, 3, 4, 5, 6
US_ENGLISH = 0x0409
VENDOR_SPECIFIC = 0xFF
BULK = 2

# Numbers of the string descriptors, the same in every FTDI chip.
LANGUAGES, MANUFACTURER, PRODUCT, SERIAL = 0, 1, 2, 3

FULL_SPEED, HIGH_SPEED = 2, 3  # the same numbers in libusb, the Linux kernel and USB/IP
FULL_SPEED_PACKET = 64  # bytes, the largest bulk packet at full speed


@dataclass(frozen=True, slots=True)
class ChipLayout:
    """What the descriptors of a chip say: `power` in units of 2 mA, `interfaces` as (IN, OUT) endpoints.

    And what its data sheet says: `buffer` is the number of bytes that it keeps for the host.
    """

    bcd_device: int
    speed: int
    control_packet: int
    attributes: int
    power: int
    interfaces: tuple[tuple[int, int], ...]
    buffer: int


# Attributes and power are those of a chip whose EEPROM says nothing else.
LAYOUTS = {
    models.FT245.name: ChipLayout(0x0400, FULL_SPEED, 8, 0xA0, 45, ((0x81, 0x02),), 384),
    models.FT2232H.name: ChipLayout(0x0700, HIGH_SPEED, 64, 0x80, 250, ((0x81, 0x02), (0x83, 0x04)), 4096),
}

_DEVICE = struct.Struct("<BBHBBBBHHHBBBB")
_DEVICE_FIELDS = (
    "bLength bDescriptorType bcdUSB bDeviceClass bDeviceSubClass bDeviceProtocol bMaxPacketSize0 idVendor "
    "idProduct bcdDevice iManufacturer iProduct iSerialNumber bNumConfigurations"
)
_CONFIGURATION = struct.Struct("<BBHBBBBB")
_CONFIGURATION_FIELDS = (
    "bLength bDescriptorType wTotalLength bNumInterfaces bConfigurationValue iConfiguration bmAttributes "
    "bMaxPower"
)
_INTERFACE = struct.Struct("<9B")
_INTERFACE_FIELDS = (
    "bLength bDescriptorType bInterfaceNumber bAlternateSetting bNumEndpoints bInterfaceClass "
    "bInterfaceSubClass bInterfaceProtocol iInterface"
)
_ENDPOINT = struct.Struct("<BBBBHB")
_ENDPOINT_FIELDS = "bLength bDescriptorType bEndpointAddress bmAttributes wMaxPacketSize bInterval"


# --- fields -> bytes ---


def device_descriptor(vendor: int, product: int, bcd_device: int, control_packet: int) -> bytes:
    """The 18 bytes of an FTDI chip: USB 2.0, class in the interfaces, strings 1 to 3, one configuration."""
    return _DEVICE.pack(
        _DEVICE.size, DEVICE, 0x0200, 0, 0, 0, control_packet,
        vendor, product, bcd_device, MANUFACTURER, PRODUCT, SERIAL, 1,
    )  # fmt: skip


def qualifier_descriptor(control_packet: int) -> bytes:
    """What a high-speed chip would be at the other speed."""
    return struct.pack("<BBHBBBBBB", 10, DEVICE_QUALIFIER, 0x0200, 0, 0, 0, control_packet, 1, 0)


def configuration_descriptor(chip: models.Chip, packet: int | None = None) -> bytes:
    """The configuration with all that belongs to it; `packet` (bytes) overrides the chip's bulk packet."""
    layout = LAYOUTS[chip.name]
    body = b""
    for number, endpoints in enumerate(layout.interfaces):
        kind = (VENDOR_SPECIFIC,) * 3
        body += _INTERFACE.pack(_INTERFACE.size, INTERFACE, number, 0, len(endpoints), *kind, PRODUCT)
        for address in endpoints:
            body += _ENDPOINT.pack(_ENDPOINT.size, ENDPOINT, address, BULK, packet or chip.packet, 0)
    total, count = _CONFIGURATION.size + len(body), len(layout.interfaces)
    head = (_CONFIGURATION.size, CONFIGURATION, total, count, 1, 0, layout.attributes, layout.power)
    return _CONFIGURATION.pack(*head) + body


def string_descriptor(text: str) -> bytes:
    """A string; at most 126 characters fit."""
    body = text.encode("utf-16-le")
    return bytes((2 + len(body), STRING)) + body


def languages_descriptor() -> bytes:
    return struct.pack("<BBH", 4, STRING, US_ENGLISH)


# --- bytes -> fields ---


@dataclass(frozen=True, slots=True)
class Interface:
    fields: SimpleNamespace
    endpoints: tuple[SimpleNamespace, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """`interfaces[n]` holds the alternate settings of interface n."""

    fields: SimpleNamespace
    interfaces: tuple[tuple[Interface, ...], ...]


def parse_device(data: bytes) -> SimpleNamespace:
    """The fields by their names in the USB standard; ValueError when there are too few bytes."""
    return _fields(_DEVICE, _DEVICE_FIELDS, data)


def parse_configuration(data: bytes) -> Configuration:
    """Unknown descriptors are passed over; ValueError when the bytes do not add up."""
    fields = _fields(_CONFIGURATION, _CONFIGURATION_FIELDS, data, extra_descriptors=[])
    found: dict[int, list[tuple[SimpleNamespace, list[SimpleNamespace]]]] = {}
    endpoints: list[SimpleNamespace] = []
    position = int(fields.bLength)
    while position + 2 <= len(data):
        length, kind = data[position], data[position + 1]
        if length < 2:
            raise ValueError(f"descriptor of length {length} at byte {position}")
        part = data[position : position + length]
        if kind == INTERFACE:
            interface = _fields(_INTERFACE, _INTERFACE_FIELDS, part, extra_descriptors=[])
            endpoints = []
            found.setdefault(interface.bInterfaceNumber, []).append((interface, endpoints))
        elif kind == ENDPOINT:
            rest = {"bRefresh": 0, "bSynchAddress": 0, "extra_descriptors": []}
            endpoints.append(_fields(_ENDPOINT, _ENDPOINT_FIELDS, part, **rest))
        position += length
    return Configuration(
        fields,
        tuple(tuple(Interface(i, tuple(e)) for i, e in settings) for _, settings in sorted(found.items())),
    )


def _fields(form: struct.Struct, names: str, data: bytes, **more: object) -> SimpleNamespace:
    if len(data) < form.size:
        raise ValueError(f"descriptor of {len(data)} bytes, {form.size} needed")
    return SimpleNamespace(**dict(zip(names.split(), form.unpack_from(data), strict=True)), **more)
