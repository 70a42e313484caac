# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a camera's firmware knows, found out as the vendor does: by asking.

A camera without a command does not answer it, so each missing one costs a second (section 3.3). What was
learnt is therefore remembered by serial number and firmware revision.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from usbproto import packets as p
from usbproto.errors import DEVICE_ERRORS, BadArgument, ProtocolError, Refused, TimedOut
from usbproto.identity import read_text
from usbproto.link import Link
from usbproto.models import Address, Series

log = logging.getLogger(__name__)

PROBE_TIME = p.ReplyTime.SHORT.value


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Commands that not every firmware has."""

    features: p.Features
    temperature_ex: bool
    exposure_ex: bool


class CapabilityCache(Protocol):
    """Remembers capabilities under a key. Neither method raises."""

    def get(self, key: str) -> Capabilities | None: ...

    def put(self, key: str, capabilities: Capabilities) -> None: ...


def probe(
    link: Link, series: Series, serial: str, cache: CapabilityCache | None
) -> tuple[Capabilities, str | None]:
    """The camera's capabilities: from the cache when it knows this serial and firmware, else by asking.

    And the firmware's revision, if it was read for that.
    """
    if cache is None or not serial:
        return _ask(link), None
    firmware = read_text(link, Address.FIRMWARE_REVISION)
    key = f"{serial} {firmware}"
    known = cache.get(key)
    if known is None:
        known = _ask(link)
        cache.put(key, known)
    return known, firmware


def _ask(link: Link) -> Capabilities:
    return Capabilities(
        features=_ask_features(link),
        temperature_ex=_answers(link, p.GET_TEMPERATURE_EX, p.Empty()),
        exposure_ex=_answers(link, p.START_EXPOSURE_EX, p.StartExposureEx(probe=True)),
    )


def _ask_features(link: Link) -> p.Features:
    try:
        features = link.exchange(p.GET_FEATURES, p.Empty(), seconds=PROBE_TIME)
    except TimedOut:
        return p.Features()
    if link.left_over():
        # Firmware of the 600 Series before 6.1.8 sends one byte too many, and none of the features (3.9).
        return p.Features()
    return features


def _answers(link: Link, command: p.Command[p.Q, p.R], request: p.Q) -> bool:
    try:
        link.exchange(command, request, seconds=PROBE_TIME)
    except TimedOut:
        return False
    except Refused as error:
        # A camera without the command is silent. One that has a device error goes on working (section 5), and
        # whoever needs the answer later tells the user.
        if error.code not in DEVICE_ERRORS:
            raise
    return True


class FileCache:
    """A cache in a JSON file. A file that cannot be used costs the probes' time-outs, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> Capabilities | None:
        entry = self._load().get(key)
        try:
            if entry is None:
                return None
            return Capabilities(
                p.Features.unpack(bytes.fromhex(str(entry["features"]))),
                bool(entry["temperature_ex"]),
                bool(entry["exposure_ex"]),
            )
        except (KeyError, TypeError, ValueError, ProtocolError, BadArgument):
            log.warning("%s: the entry of %s is not understood; asking the camera", self._path, key)
            return None

    def put(self, key: str, capabilities: Capabilities) -> None:
        entries = self._load()
        entries[key] = {
            "features": capabilities.features.pack().hex(),
            "temperature_ex": capabilities.temperature_ex,
            "exposure_ex": capabilities.exposure_ex,
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
