# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes of a simulated camera's EEPROM (wire protocol, section 3.8)."""

from __future__ import annotations

from usbproto.models import EEPROM_TEXT_BYTES, PRESENT, Address
from usbproto.simulator.bodies import CameraModel

SIZE = 0x0400
BLANK = 0xFF  # an erased cell; as a feature byte: "not initialised"

_ABSENT = 2
_FAMILY = {"500": 2, "600": 4}
_COOLING = {"500": 2, "600": 4}  # standard
_BAYER = 3
_CLASS_1 = 3
_NAME_BYTES = 32


def contents(model: CameraModel, serial: str, firmware: str) -> bytearray:
    """A camera as it left the factory."""
    memory = bytearray([BLANK]) * SIZE

    def text(address: int, value: str, size: int = EEPROM_TEXT_BYTES) -> None:
        memory[address : address + size] = value.encode("ascii")[:size].ljust(size, b"\0")

    text(Address.MODEL, model.name)
    text(Address.MANUFACTURING_DATE, "20110715")
    text(Address.HARDWARE_SERIAL, serial)
    text(Address.HARDWARE_REVISION, "10.00.00" if model.extended else "01.02.03")
    text(Address.FIRMWARE_REVISION, firmware)
    text(Address.NAME, model.series.product, _NAME_BYTES)
    memory[Address.SENSOR_CLASS] = _CLASS_1
    memory[Address.MICROLENS] = PRESENT
    memory[Address.COLOUR_MASK] = _BAYER if model.colour else _ABSENT
    memory[Address.SENSOR_TYPE] = model.sensor.feature_code
    memory[Address.FILTER_WHEEL] = PRESENT if model.has_wheel else _ABSENT
    memory[Address.SHUTTER] = PRESENT if model.has_shutter else _ABSENT
    memory[Address.COOLING] = _COOLING[model.series.name]
    memory[Address.FAMILY] = _FAMILY[model.series.name]
    return memory
