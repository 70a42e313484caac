# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recorded client sessions: what real programs sent to INDI's simulators, message by message."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "client-sessions"
CLOSED = "[closed]"

# Recorded with times that would make a test long; what matters is the order.
EXPOSURE = 0.05  # s, for every exposure
PULSES = 10  # times shorter
SHORTEST_PULSE = 10  # ms


@dataclass(frozen=True)
class Sent:
    """One message of a client, or the end of one of its connections (`element` is None)."""

    connection: str
    text: str
    element: ET.Element | None
    device: str | None  # ours; None where the message names none

    @property
    def tag(self) -> str:
        return "" if self.element is None else self.element.tag

    @property
    def vector(self) -> str | None:
        return None if self.element is None else self.element.get("name")

    @property
    def values(self) -> dict[str, str]:
        assert self.element is not None
        return {child.attrib["name"]: (child.text or "").strip() for child in self.element}


def load(name: str, devices: Mapping[str, str]) -> list[Sent]:
    """A session, its devices renamed and its times shortened; all else byte by byte.

    What was sent to devices that are not among `devices` is left out.
    """
    recorded = [_sent(line, devices) for line in (FOLDER / f"{name}.tsv").read_text().splitlines()]
    return [sent for sent in recorded if sent.device is None or sent.device in devices.values()]


def _sent(line: str, devices: Mapping[str, str]) -> Sent:
    _, connection, text = line.split("\t", 2)
    if text == CLOSED:
        return Sent(connection, text, None, None)
    for simulator, ours in devices.items():
        text = text.replace(simulator, ours)
    if "CCD_EXPOSURE_VALUE" in text:
        text = re.sub(r"(CCD_EXPOSURE_VALUE.>\s*)[\d.]+", rf"\g<1>{EXPOSURE}", text)
    text = re.sub(r"(TIMED_GUIDE_[NSWE].>\s*)(\d+)", _shorter, text)
    element = ET.fromstring(text)
    return Sent(connection, text, element, element.get("device"))


def _shorter(match: re.Match[str]) -> str:
    pulse = int(match[2])
    return match[1] + str(max(SHORTEST_PULSE, pulse // PULSES) if pulse else 0)
