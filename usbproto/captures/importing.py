# SPDX-License-Identifier: LGPL-2.1-or-later
"""A capture file from end to end: finds the camera, learns what is in it, and writes a recording.

The file is read once for each of these three, so that memory stays small and the first line already knows the
serial number that a later answer tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usbproto.captures import devices, urbs
from usbproto.captures.container import Capture, CaptureError
from usbproto.captures.findings import Findings
from usbproto.captures.session import CaptureSession, Exchange
from usbproto.models import channel_serial
from usbproto.recording import Masks, Writer


@dataclass(frozen=True, slots=True)
class Imported:
    """What was learned of a capture. `serial` as it may be shown; `seconds` from first to last transfer.

    `cut` counts transfers from the camera of which the capture does not have all bytes.
    """

    capture: Capture
    choice: devices.Choice
    findings: Findings
    tally: urbs.Tally
    serial: str
    seconds: float
    other_endpoints: int
    cut: int
    _masks: Masks | None

    @property
    def complete(self) -> bool:
        """Whether all of the file could be used."""
        return self.capture.damage is None and not self.tally.unreadable and not self.cut

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        camera, tally = self.choice.devices[-1], self.tally
        return {
            "capture": {
                "file": self.capture.path.name,
                "format": self.capture.format,
                "seconds": round(self.seconds, 3),
                "packets": tally.records,
                "damage": self.capture.damage,
                "unreadable": tally.unreadable,
                "cut": self.cut,
                "without_begin": tally.without_begin,
                "without_end": tally.without_end,
                "of_other_links": tally.other_links,
            },
            "camera": {
                "devices": [device.name for device in self.choice.devices],
                "found_by": self.choice.found_by,
                "product": f"{camera.series.product_id:04x}",
                "series": camera.series.name,
                "serial": self.serial,
                "packet": camera.packet_size,
                "packet_by": camera.packet_source,
                "transfers_of_other_endpoints": self.other_endpoints,
            },
            **self.findings.as_dict(),
        }

    def write(self, path: Path) -> bool:
        """Writes a recording, and returns whether all fitted. Raises OSError, also when the file exists."""
        writer = Writer(path, masks=self._masks, origin=self.capture.format)
        try:
            session = CaptureSession(self.choice, _Deaf(), writer.note, serial=self.serial, masks=self._masks)
            for transfer in urbs.transfers(self.capture, urbs.Tally()):
                session.take(transfer)
                if writer.full:
                    break
            session.finish()
        finally:
            writer.close()
        return not writer.full


def read(path: Path, *, device: str | None = None, mask: bool = True) -> Imported:
    """Finds the camera and learns what is in a capture; `device` is an address like "1.5".

    Raises `CaptureError` for what is not a capture of one camera, and OSError.
    """
    capture = Capture(path)
    masks = Masks() if mask else None
    choice = devices.choose(devices.survey(urbs.transfers(capture, urbs.Tally())), device)
    if masks is not None and choice.serial:
        masks.add(choice.serial)
    findings, tally = Findings(masks), urbs.Tally()
    session = CaptureSession(choice, findings, _forget, serial="", masks=None)
    for transfer in urbs.transfers(capture, tally):
        session.take(transfer)
    session.finish()
    for used in choice.devices:
        used.model = findings.model
    if not findings.commands and not findings.unknown and not findings.controls:
        raise CaptureError(f"{path}: no program used the camera at {choice.devices[0].name}")
    serial = choice.serial or channel_serial(findings.serial) or ""
    shown = masks.text(serial) if masks is not None else serial
    return Imported(
        capture,
        choice,
        findings,
        tally,
        shown,
        session.seconds,
        session.other_endpoints,
        session.cut,
        masks,
    )


class _Deaf:
    """A listener of a session whose recording is all that is wanted."""

    def exchange(self, exchange: Exchange) -> None: ...

    def control(self, transfer: urbs.Transfer) -> None: ...

    def failed(self, transfer: urbs.Transfer) -> None: ...


def _forget(event: str, at: float, **facts: Any) -> None:
    """Takes the lines of a session that is read for its findings."""
