# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which camera this is: from its details, and from the EEPROM map (wire protocol, section 3.8)."""

from __future__ import annotations

from dataclasses import dataclass

from usbproto import models
from usbproto import packets as p
from usbproto.link import Link
from usbproto.models import Address, FeatureBytes, Series

NEVER_SET = 0xFF  # an erased cell


@dataclass(frozen=True, slots=True)
class Identity:
    """`firmware` and `hardware` like `06.01.08`, empty where the EEPROM does not say.

    `marketing_model` is None where it was never programmed.
    """

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


class Eeprom:
    """A camera's EEPROM, a byte a question.

    After the first byte that is not answered or refused, the others count as never set, and are not asked
    for: the vendor takes such a byte for FF, and each would cost a second.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._readable = True

    def byte(self, address: int) -> int:
        """One byte; 0xFF where it was never set or cannot be read."""
        if not self._readable:
            return NEVER_SET
        found = self._link.optional("the EEPROM's content", lambda: self._ask(address), None)
        self._readable = found is not None
        return NEVER_SET if found is None else found

    def _ask(self, address: int) -> int | None:
        seconds = p.GET_EEPROM.reply_time.value
        return self._link.exchange(p.GET_EEPROM, p.EepromAddress(address), seconds=seconds).value

    def bytes(self, address: int, count: int) -> bytes:
        """`count` bytes from `address` on."""
        return bytes(self.byte(address + offset) for offset in range(count))

    def text(self, address: Address) -> str:
        """Eight characters; bytes that were never set are dropped."""
        raw = self.bytes(address, models.EEPROM_TEXT_BYTES)
        return p.printable(raw.replace(bytes((NEVER_SET,)), b""))

    def features(self) -> FeatureBytes:
        """The bytes that make the marketing name."""
        return FeatureBytes(
            family=self.byte(Address.FAMILY),
            sensor=self.byte(Address.SENSOR_TYPE),
            colour_mask=self.byte(Address.COLOUR_MASK),
            filter_wheel=self.byte(Address.FILTER_WHEEL),
            shutter=self.byte(Address.SHUTTER),
            sensor_class=self.byte(Address.SENSOR_CLASS),
            microlens=self.byte(Address.MICROLENS),
        )


def read_identity(
    eeprom: Eeprom, series: Series, details: p.DeviceDetails, usb_serial: str, firmware: str | None = None
) -> Identity:
    """Asks the camera what it is. `usb_serial` stands in where the camera has no serial of its own.

    `firmware` is the revision if it has been read already: each character is an exchange.
    """
    return Identity(
        series=series,
        model_number=details.model_number,
        model_name=details.model_name or series.product,
        marketing_model=models.marketing_model(eeprom.features()),
        serial=details.serial or usb_serial,
        firmware=eeprom.text(Address.FIRMWARE_REVISION) if firmware is None else firmware,
        hardware=eeprom.text(Address.HARDWARE_REVISION),
        manufactured=eeprom.text(Address.MANUFACTURING_DATE),
    )
