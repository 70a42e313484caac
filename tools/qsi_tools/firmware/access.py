# SPDX-License-Identifier: LGPL-2.1-or-later
"""One camera, found by its serial number, held alone, and asked who it is by harmless questions.

`Camera` of the driver is not used: at open it applies settings and ends exposures, which is not for a program
that only looks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsi_tools.firmware import dialects
from qsi_tools.firmware.dialect import Dialect
from qsi_tools.firmware.errors import Differs, PlanRefused
from qsi_tools.firmware.facts import Facts
from usbproto import discovery, ftdi, models
from usbproto import packets as p
from usbproto.deadline import Deadline
from usbproto.discovery import Found
from usbproto.errors import NoCamera, QsiError, Refused
from usbproto.identity import Eeprom
from usbproto.link import ByteChannel, Link
from usbproto.models import Address

# s for a camera to come back after a restart: its 6 s of power-up, and as much again for a slow hub.
RETURN_LIMIT = 20.0
# s for the first answer of one that may still be starting; Init itself takes up to 0.6 s (section 3.1).
ANSWER_LIMIT = 1.0
LOOK_AGAIN = 0.1  # s between looks for it
SUPPLY_ERRORS = (3, 4)  # device errors of GetTemperature: below 11 V, above 14 V


class Access:
    """The cameras of a USB (`backend` None: libusb).

    `patience`: s to wait for a camera that restarts, asking it anew each `answer_time`.
    """

    def __init__(
        self,
        backend: Any = None,
        known: Sequence[Dialect] = dialects.KNOWN,
        patience: float = RETURN_LIMIT,
        answer_time: float = ANSWER_LIMIT,
    ) -> None:
        self._backend = backend
        self.known = known
        self._patience = patience
        self._answer_time = answer_time

    def cameras(self) -> list[Found]:
        return discovery.cameras(self._backend)

    def open_channel(self, found: Found) -> ByteChannel:
        """Holds the camera alone. Raises `AccessError` or `LinkError`."""
        if found.problem is not None:
            raise found.problem
        return ftdi.Channel(found.port)

    def deadline(self) -> Deadline:
        """By which a camera that restarts must be back."""
        return Deadline(self._patience)

    def pause(self) -> None:
        """Between looks for a camera that restarts."""
        time.sleep(LOOK_AGAIN)

    def find(self, serial: str | None) -> Found:
        """The camera of this serial number, or the only one. Raises `NoCamera`, `PlanRefused`."""
        there = self.cameras()
        for found in there:
            if serial is not None and found.serial == serial:
                return found
        for found in there:
            if found.problem is not None and (serial is not None or len(there) == 1):
                raise found.problem  # it may well be the one that is meant
        others = ", ".join(found.serial or "one without a serial number" for found in there)
        if serial is not None:
            raise NoCamera(
                f"No QSI camera with the serial number {serial} was found (attached: {others or 'none'})"
            )
        if not there:
            raise NoCamera("No QSI camera was found on the USB")
        if len(there) > 1:
            raise PlanRefused(f"Several cameras are attached: {others}", "Say which one with --serial")
        return there[0]

    @contextlib.contextmanager
    def session(self, found: Found) -> Iterator[Session]:
        """The camera, asked who it is. It is released at the end."""
        link = Link(self.open_channel(found))
        try:
            yield Session(link, read_facts(link, found, self.known), self)
        finally:
            link.close()

    @contextlib.contextmanager
    def restarted(self, serial: str) -> Iterator[Session]:
        """The camera, when its firmware runs again. Raises `Differs` when it stays in the loader."""
        deadline = self.deadline()
        while True:
            try:
                found = self.find(serial)
                link = Link(self.open_channel(found))
            except QsiError:
                if deadline.passed:
                    raise
                self.pause()
                continue
            try:
                link.exchange(p.INIT, p.Empty(), seconds=self._answer_time, phase="restarting")
                facts = read_facts(link, found, self.known)
                if facts.mark is not None and facts.mark.in_loader:
                    raise Differs("The camera came up in its loader again: it does not take what was loaded")
            except QsiError:
                link.close()
                if deadline.passed:
                    raise
                self.pause()
                continue
            break
        try:
            yield Session(link, facts, self)
        finally:
            link.close()


@dataclass(frozen=True)
class Session:
    """An open camera, and what it said of itself."""

    link: Link
    facts: Facts
    access: Access

    @property
    def dialect(self) -> Dialect:
        assert self.facts.mark is not None
        return dialects.speaker(self.facts.mark, self.access.known)


def read_facts(link: Link, found: Found, known: Sequence[Dialect] = dialects.KNOWN) -> Facts:
    """Init, GetDeviceState, GetEEPROM; then, unless the loader runs, GetDeviceDetails and GetTemperature.

    All of them are described in the wire protocol, and change nothing that stays.
    """
    link.exchange(p.INIT, p.Empty(), phase="initialising")
    state = link.exchange(p.GET_DEVICE_STATE, p.Empty()).state
    if state == p.CameraState.WAITING_FOR_TRIGGER:
        # Nothing else may be asked then (section 6.0).
        raise PlanRefused("The camera waits for an external trigger", "Power it off and on, or end the wait")
    eeprom = Eeprom(link)
    model = eeprom.text(Address.MODEL)
    mark = dialects.recognise(lambda address, count: read_eeprom(link, address, count), known)
    cooling, supply = False, ""
    if mark is None or not mark.in_loader:
        model = link.exchange(p.GET_DEVICE_DETAILS, p.Empty()).model_number or model
        cooling, supply = _cooler(link)
    return Facts(
        serial=found.serial or "",
        series=found.series.name,
        model=model,
        base_type=models.base_type(model),
        firmware=eeprom.text(Address.FIRMWARE_REVISION),
        hardware=eeprom.text(Address.HARDWARE_REVISION),
        manufactured=eeprom.text(Address.MANUFACTURING_DATE),
        mark=mark,
        idle=state == p.CameraState.IDLE,
        cooling=cooling,
        supply=supply,
    )


def read_eeprom(link: Link, address: int, count: int) -> bytes:
    """Bytes that an update depends on: one that cannot be read is an error, and no empty cell."""
    addresses = range(address, address + count)
    return bytes(link.exchange(p.GET_EEPROM, p.EepromAddress(at)).value for at in addresses)


def _cooler(link: Link) -> tuple[bool, str]:
    """Whether it cools, and what is wrong with the supply."""
    try:
        cooler = link.exchange(p.GET_TEMPERATURE, p.Empty()).cooler
    except Refused as error:
        return False, str(error) if error.code in SUPPLY_ERRORS else ""
    return cooler not in (p.CoolerState.OFF, p.CoolerState.NO_CONTROL, p.CoolerState.AT_AMBIENT), ""


def holders(location: str, proc: Path = Path("/proc"), bus: Path = Path("/dev/bus/usb")) -> list[str]:
    """The programs that have the device at this location (`001:004`) open, as far as this user may see."""
    node = str(bus / location.replace(":", "/"))
    found = []
    for entry in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            if any(_target(link) == node for link in (entry / "fd").iterdir()):
                found.append(f"{(entry / 'comm').read_text().strip()} ({entry.name})")
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""  # closed meanwhile; the program may have others
