# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which camera this is: from its details, and from the EEPROM map (wire protocol, section 3.8)."""

from __future__ import annotations

from dataclasses import dataclass

from usbproto import models
from usbproto import packets as p
from usbproto.link import Link
from usbproto.models import Address, Series


@dataclass(frozen=True, slots=True)
class Identity:
    """`firmware` and `hardware` like `06.01.08`; `marketing_model` None where it was never programmed."""

    series: Series
    model_number: str
    model_name: str
    marketing_model: str | None
    serial: str
    firmware: str
    hardware: str
    manufactured: str

    @property
    def base_type(self) -> str:
        """The leading digits of the model number, like `583`."""
        return models.base_type(self.model_number)

    @property
    def model(self) -> str:
        """The name to show: `683wsg`, or the marketing model, or the series."""
        return self.model_number or self.marketing_model or f"{self.series.name} Series"


def read_text(link: Link, address: Address) -> str:
    """Eight characters of the EEPROM; bytes that were never set (0xFF) are dropped."""
    raw = bytes(read_byte(link, address + offset) for offset in range(models.EEPROM_TEXT_BYTES))
    return p.printable(raw.replace(b"\xff", b""))


def read_byte(link: Link, address: int) -> int:
    return link.exchange(p.GET_EEPROM, p.EepromAddress(address)).value


def read_identity(
    link: Link, series: Series, details: p.DeviceDetails, usb_serial: str, firmware: str | None = None
) -> Identity:
    """Asks the camera who it is. `usb_serial` stands in where the camera has no serial of its own.

    `firmware` is the revision if it has been read already: each character is an exchange.
    """
    marketing = models.marketing_model(
        read_byte(link, Address.FAMILY),
        read_byte(link, Address.SENSOR_TYPE),
        read_byte(link, Address.COLOUR_MASK),
        read_byte(link, Address.FILTER_WHEEL),
        read_byte(link, Address.SHUTTER),
    )
    return Identity(
        series=series,
        model_number=details.model_number,
        model_name=details.model_name or series.product,
        marketing_model=marketing,
        serial=details.serial or usb_serial,
        firmware=read_text(link, Address.FIRMWARE_REVISION) if firmware is None else firmware,
        hardware=read_text(link, Address.HARDWARE_REVISION),
        manufactured=read_text(link, Address.MANUFACTURING_DATE),
    )
