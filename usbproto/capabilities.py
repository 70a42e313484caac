# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a camera's firmware knows, found out as the vendor does: by asking.

Any failure of a probe means that the command is not there, and a camera without a command mostly does not
answer it, so each missing one costs a second (section 3.3). What was learnt is therefore remembered by serial
number and firmware revision: what is there, at once; what is not there, when several connects in a row
agreed, because the failure may have been an accident.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from usbproto import packets as p
from usbproto.errors import (
    BadArgument,
    Disconnected,
    Interrupted,
    ProtocolError,
    QsiError,
    Refused,
    TimedOut,
)
from usbproto.identity import Eeprom
from usbproto.link import Link
from usbproto.models import Address

log = logging.getLogger(__name__)

PROBE_TIME = p.ReplyTime.SHORT.value
# Connects that must agree before a command that is missing is not asked for any more.
AGREED = 3
FEATURES, TEMPERATURE_EX, EXPOSURE_EX = "features", "temperature_ex", "exposure_ex"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Commands that not every firmware has."""

    features: p.Features
    temperature_ex: bool
    exposure_ex: bool


NOTHING = Capabilities(p.Features(), temperature_ex=False, exposure_ex=False)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is remembered of a camera: what it could do last, and how many connects in a row lacked what."""

    capabilities: Capabilities = NOTHING
    missed: dict[str, int] = field(default_factory=dict)

    def settled(self, name: str) -> bool:
        """Whether this need not be asked again."""
        return bool(_found(self.capabilities, name)) or self.missed.get(name, 0) >= AGREED

    def after(self, now: Capabilities) -> Learnt:
        """What is to be remembered when a connect has found this."""
        missed = {
            name: min(self.missed.get(name, 0) + 1, AGREED)
            for name in (FEATURES, TEMPERATURE_EX, EXPOSURE_EX)
            if not _found(now, name)
        }
        return Learnt(now, missed)


def _found(capabilities: Capabilities, name: str) -> object:
    value = getattr(capabilities, name)
    return value.flags if isinstance(value, p.Features) else value


class CapabilityCache(Protocol):
    """Remembers what was learnt, by serial number and firmware. Neither method raises."""

    def get(self, serial: str, firmware: str) -> Learnt | None: ...

    def put(self, serial: str, firmware: str, learnt: Learnt) -> None: ...


def probe(
    link: Link, eeprom: Eeprom, serial: str, cache: CapabilityCache | None
) -> tuple[Capabilities, str | None]:
    """The camera's capabilities: from the cache what is settled there, the rest by asking.

    And the firmware's revision, if it was read for that. Of a camera that does not say it nothing is
    remembered: it could have changed.
    """
    if cache is None or not serial:
        return _ask(link, Learnt()), None
    firmware = eeprom.text(Address.FIRMWARE_REVISION)
    if not firmware:
        return _ask(link, Learnt()), firmware
    before = cache.get(serial, firmware) or Learnt()
    found = _ask(link, before)
    learnt = before.after(found)
    if learnt != before:
        cache.put(serial, firmware, learnt)
    return found, firmware


def _ask(link: Link, before: Learnt) -> Capabilities:
    found = before.capabilities
    if not before.settled(FEATURES):
        found = replace(found, features=_ask_features(link))
    if not before.settled(TEMPERATURE_EX):
        found = replace(found, temperature_ex=_knows_temperature_ex(link))
    if not before.settled(EXPOSURE_EX):
        found = replace(
            found, exposure_ex=_succeeds(link, "StartExposureEx", lambda: _probe_exposure_ex(link))
        )
    return found


def _ask_features(link: Link) -> p.Features:
    """Firmware of the 600 Series before 6.1.8 sends one byte too many, and counts as without features (3.9).

    Whether that byte is the device error or a surplus is not known, so it is looked for before an error is
    believed.
    """
    features, refusal = p.Features(), None
    try:
        features = link.exchange(p.GET_FEATURES, p.Empty(), seconds=PROBE_TIME)
    except Refused as error:
        refusal = error
    except (Disconnected, Interrupted):
        raise
    except QsiError as error:
        _missing(link, p.GET_FEATURES.name, error)
        return features
    if link.left_over():
        log.info("GetFeatures has a byte too many, as old firmware sends it: no features")
        return p.Features()
    if refusal is not None:
        _missing(link, p.GET_FEATURES.name, refusal)
    return features


def _knows_temperature_ex(link: Link) -> bool:
    """Any well-formed answer says that it does, whatever its device error (3.3)."""

    def ask() -> None:
        try:
            link.exchange(p.GET_TEMPERATURE_EX, p.Empty(), seconds=PROBE_TIME)
        except Refused as error:
            log.debug("%s", error)

    return _succeeds(link, p.GET_TEMPERATURE_EX.name, ask)


def _probe_exposure_ex(link: Link) -> None:
    request = p.StartExposureEx(probe=True)
    link.exchange(p.START_EXPOSURE_EX, request, seconds=PROBE_TIME, harmless=True)


def probe_trims(link: Link) -> bool:
    """Whether the firmware knows filter trims; only for a camera with a wheel."""

    def ask() -> None:
        link.exchange(p.SET_FILTER_TRIM, p.Trim(0), seconds=PROBE_TIME)

    return _succeeds(link, p.SET_FILTER_TRIM.name, ask)


def _succeeds(link: Link, name: str, ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (Disconnected, Interrupted):
        raise
    except QsiError as error:
        _missing(link, name, error)
        return False
    return True


def _missing(link: Link, name: str, error: QsiError) -> None:
    """Silence is how most cameras say no; anything else is worth a line."""
    if isinstance(error, TimedOut):
        log.info("the camera does not know %s", name)
    else:
        link.session.odd(f"probe {name}", f"{error}: continuing without {name}")


class FileCache:
    """A cache in a JSON file. A file that cannot be used costs the probes' time-outs, nothing else.

    An entry that an older version wrote has no counts: what it lacks has been missed once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, serial: str, firmware: str) -> Learnt | None:
        key = f"{serial} {firmware}"
        entry = self._load().get(key)
        try:
            if entry is None:
                return None
            capabilities = Capabilities(
                p.Features.unpack(bytes.fromhex(str(entry[FEATURES]))),
                bool(entry[TEMPERATURE_EX]),
                bool(entry[EXPOSURE_EX]),
            )
            counts = entry.get("missed")
            if not isinstance(counts, dict):
                return Learnt().after(capabilities)
            return Learnt(capabilities, {str(name): int(count) for name, count in counts.items()})
        except (KeyError, TypeError, ValueError, OverflowError, ProtocolError, BadArgument):
            log.warning("%s: the entry of %s is not understood; asking the camera", self._path, key)
            return None

    def put(self, serial: str, firmware: str, learnt: Learnt) -> None:
        # Of another firmware of this camera nothing is known any more.
        entries = {key: entry for key, entry in self._load().items() if key.split()[:1] != [serial]}
        entries[f"{serial} {firmware}"] = {
            FEATURES: learnt.capabilities.features.pack().hex(),
            TEMPERATURE_EX: learnt.capabilities.temperature_ex,
            EXPOSURE_EX: learnt.capabilities.exposure_ex,
            "missed": learnt.missed,
        }
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(entries, indent=1) + "\n")
            beside.replace(self._path)
        except OSError as error:
            log.warning("cannot remember what the camera can do: %s", error)

    def _load(self) -> dict[str, dict[str, object]]:
        try:
            entries = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read (%s); asking the camera", self._path, error)
            return {}
        return entries if isinstance(entries, dict) else {}
