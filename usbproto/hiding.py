# SPDX-License-Identifier: LGPL-2.1-or-later
"""Serial numbers are replaced in what is kept of exchanges: in text, in hexadecimal text, and in bytes.

`usbproto.recording.Masks` makes the numbers that stand for them. A piece of a serial number is replaced too
where data may have been cut: at the beginning and at the end of bytes.
"""

from __future__ import annotations

from usbproto.models import EEPROM_TEXT_BYTES, Address
from usbproto.packets import GET_EEPROM, HEADER_BYTES
from usbproto.recording import SHOWN_DIGITS, Masks

# Characters of the longest serial number that is also found in a text that was cut; GetDeviceDetails has 16.
LONGEST_SERIAL = 32
# Characters. A text that is to be cut keeps this much more until serial numbers are replaced: the length of
# the longest one in hexadecimal.
MARGIN = 2 * LONGEST_SERIAL
# Digits of a piece that is replaced. The first SHOWN_DIGITS of a serial number may be shown. No answer begins
# with two digits of its end, because the second byte of an answer is its length.
SHORTEST_HEAD = SHOWN_DIGITS + 1
SHORTEST_TAIL = 2
HIDDEN = b"*"

_SERIAL_ADDRESSES = range(Address.HARDWARE_SERIAL, Address.HARDWARE_SERIAL + EEPROM_TEXT_BYTES)
_EEPROM_QUESTIONS = frozenset(
    bytes((GET_EEPROM.code, 2)) + address.to_bytes(2, "big") for address in _SERIAL_ADDRESSES
)


class _Secret:
    """A serial number, what stands for it, and their pieces, the longest first."""

    def __init__(self, serial: str, shown: str) -> None:
        self.plain, self.shown = serial.encode(), shown.encode()
        hexadecimal, shown_hexadecimal = self.plain.hex(), self.shown.hex()
        self.in_text = (
            (serial, shown),
            (hexadecimal, shown_hexadecimal),
            (hexadecimal.upper(), shown_hexadecimal.upper()),
        )
        lengths = range(len(self.plain) - 1, 0, -1)
        self._heads = tuple(self.plain[:n] for n in lengths if n >= SHORTEST_HEAD)
        self._tails = tuple(self.plain[-n:] for n in lengths if n >= SHORTEST_TAIL)

    def replaced(self, data: bytes) -> bytes:
        data = data.replace(self.plain, self.shown)
        if data.endswith(self._heads):
            count = len(next(head for head in self._heads if data.endswith(head)))
            data = data[:-count] + self.shown[:count]
        if data.startswith(self._tails):
            count = len(next(tail for tail in self._tails if data.startswith(tail)))
            data = self.shown[-count:] + data[count:]
        return data


class Hiding:
    """The serial numbers of one camera. `add` may be called by another thread than the rest."""

    def __init__(self) -> None:
        self._masks = Masks()
        self._secrets: dict[str, _Secret] = {}

    def add(self, serial: str) -> None:
        """From now on the serial number is replaced. One of at most `SHOWN_DIGITS` characters stays."""
        self._masks.add(serial)
        shown = self._masks.text(serial)
        if shown != serial:
            # Another dictionary instead of a changed one, so that readers need no lock.
            self._secrets = {**self._secrets, serial: _Secret(serial, shown)}

    def text(self, text: str) -> str:
        """The text with every serial number replaced, also where it stands in hexadecimal.

        Control characters become '?': JSON writes them with digits, which could complete a serial number.
        """
        if not text.isprintable():
            text = "".join(char if char.isprintable() else "?" for char in text)
        for secret in self._secrets.values():
            for plain, shown in secret.in_text:
                text = text.replace(plain, shown)
        return text

    def bytes(self, data: bytes) -> bytes:
        """The bytes with every serial number replaced, and pieces of one at both ends. Same length."""
        for secret in self._secrets.values():
            data = secret.replaced(data)
        return data


def asks_for_serial(sent: bytes) -> bool:
    """Whether this packet asks for one byte of the serial number in the EEPROM."""
    return sent in _EEPROM_QUESTIONS


def without_data(answer: bytes) -> bytes:
    """What may be shown of the answer to such a question: the header and the device error (section 3.1)."""
    status = HEADER_BYTES + GET_EEPROM.response.size()
    if answer[:1] != bytes((GET_EEPROM.code,)):
        return HIDDEN * len(answer)
    hidden = bytearray(HIDDEN * len(answer))
    hidden[:HEADER_BYTES] = answer[:HEADER_BYTES]
    hidden[status : status + 1] = answer[status : status + 1]
    return bytes(hidden)
