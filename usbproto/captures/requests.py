# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of what a capture can show: requests of the FTDI chip, and commands that the driver never sends.

Sources: wire protocol, sections 1.1, 3.1 and 7; FTDI's application notes for the other requests of the chip.
"""

from __future__ import annotations

from usbproto.models import EEPROM_TEXT_BYTES, Address
from usbproto.recording import SHOWN_DIGITS, Masks

# (type, request) of vendor requests to the chip.
CHIP_REQUESTS: dict[tuple[int, int], str] = {
    (0x40, 0x00): "reset",
    (0x40, 0x01): "set modem control",
    (0x40, 0x02): "set flow control",
    (0x40, 0x03): "set baud rate",
    (0x40, 0x04): "set data format",
    (0xC0, 0x05): "get modem status",
    (0x40, 0x06): "set event character",
    (0x40, 0x07): "set error character",
    (0x40, 0x09): "set latency timer",
    (0xC0, 0x0A): "get latency timer",
    (0x40, 0x0B): "set bit mode",
    (0xC0, 0x0C): "get pins",
    (0xC0, 0x90): "read chip EEPROM",
    (0x40, 0x91): "write chip EEPROM",
    (0x40, 0x92): "erase chip EEPROM",
}
RESET = b"\x40\x00"
RESET_WHOLE = 0
SET_LATENCY = (0x40, 0x09)
# Requests that change a chip for good: evidence, and no part of a recording.
LASTING_REQUESTS = frozenset({(0x40, 0x91), (0x40, 0x92)})

# Commands that change a camera for good. They have a name here, and nowhere anything that could send them.
LASTING_COMMANDS: dict[int, str] = {
    0x21: "StartBootloader",
    0x22: "ForceBootloader",
    0x61: "SetEEPROM",
    0x64: "CameraReset",
}

_SET_EEPROM = 0x61
_VALUES = 4  # where bytes stand behind the address, if the command is built as GetEEPROM


def masked_request(masks: Masks | None, request: bytes) -> bytes:
    """Bytes to the camera without the serial numbers in them; None leaves them.

    The payload of SetEEPROM is not known: what follows the address of the hardware serial number is taken for
    characters of it.
    """
    if masks is None:
        return request
    first = int.from_bytes(request[2:_VALUES], "big") - Address.HARDWARE_SERIAL
    if request[:1] == bytes((_SET_EEPROM,)) and 0 <= first < EEPROM_TEXT_BYTES:
        shown = bytearray(request)
        for at in range(_VALUES, min(len(request), _VALUES + EEPROM_TEXT_BYTES - first)):
            number = first + at - _VALUES
            if number >= SHOWN_DIGITS:
                shown[at : at + 1] = masks.stand_in(number, request[at : at + 1])
        request = bytes(shown)
    return masks.bytes(request)
