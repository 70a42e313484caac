# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which USB the driver looks at: the real one, one over the network, or a simulated camera in the process.

Chosen by `INDI_QSI_USB`:

    libusb              the computer's own USB (the default)
    usbip:HOST:PORT     a USB/IP server: qsi-sim, or another computer's camera
    usbip:unix:PATH     the same by a unix socket
    sim                 a simulated camera in this process
    sim:MODEL           the same, of this model, for example sim:583wsg
    replay:FILE         the cameras of a recording (docs/recording.md)

A recorder that is set before the backend is made hears all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbproto.errors import BadArgument

if TYPE_CHECKING:
    from usbproto.discovery import Claimed
    from usbproto.recording import Recorder

VARIABLE = "INDI_QSI_USB"
LIBUSB = "libusb"
DEFAULT_MODEL = "683wsg"


class Bus:
    """A choice of USB; its backend is made when it is first needed, and kept."""

    def __init__(self, choice: str = LIBUSB) -> None:
        """Raises `BadArgument` for a choice that is none of the above."""
        kind, _, rest = choice.partition(":")
        wants_rest = kind in ("usbip", "replay")
        if kind not in (LIBUSB, "usbip", "sim", "replay") or (kind != "sim" and wants_rest != bool(rest)):
            raise BadArgument(
                f"{VARIABLE}={choice} is not understood",
                "Valid are libusb, usbip:HOST:PORT, usbip:unix:PATH, sim, sim:MODEL, replay:FILE",
            )
        self.choice = choice
        self._kind, self._rest = kind, rest
        self._backend: Any = None
        self._camera: Any = None
        self.recorder: Recorder | None = None
        # Held by whoever lists or opens cameras: over USB/IP, asking a camera its name makes it busy.
        self.lock = threading.Lock()
        self._claimed: list[Claimed] = []  # by this process

    @property
    def simulated(self) -> bool:
        return self._kind == "sim"

    def claim(
        self, serial: str | None = None, *, prefer: str | None = None, avoid: Collection[str] = ()
    ) -> Claimed:
        """Claims a camera for this process (`discovery.claim`); opening it then needs no lock."""
        from usbproto import discovery

        with self.lock:
            claimed = discovery.claim(serial, backend=self.backend(), prefer=prefer, avoid=avoid)
            self._claimed = [*self._still_claimed(), claimed]
            return claimed

    def ours(self) -> dict[str, str]:
        """Location -> serial number of the cameras that this process has open. With the lock held."""
        return {claimed.channel.port.location: claimed.serial for claimed in self._still_claimed()}

    def _still_claimed(self) -> list[Claimed]:
        return [claimed for claimed in self._claimed if not claimed.closed]

    def backend(self) -> Any:
        """A pyusb backend; None stands for libusb.

        Raises `BadArgument` for an unknown model, and for a recording that cannot be used.
        """
        if self._backend is None and (self._kind != LIBUSB or self.recorder is not None):
            made = self._make()
            if self.recorder is not None:
                from usbproto.recording_usb import recording_backend

                made = recording_backend(made, self.recorder)
            self._backend = made
        return self._backend

    def _make(self) -> Any:
        if self._kind == "usbip":
            from usbproto.simulator.usbip_client import UsbIpBackend

            return UsbIpBackend(self._rest)
        if self._kind == "replay":
            from usbproto.recording import RecordingError
            from usbproto.simulator.replay_backend import ReplayBackend

            try:
                return ReplayBackend(Path(self._rest))
            except (OSError, RecordingError) as error:
                raise BadArgument(f"{VARIABLE}={self.choice}: {error}") from error
        if self._kind == "sim":
            from usbproto.simulator.backend import SimulatorBackend
            from usbproto.simulator.camera import SimulatedCamera

            self._camera = SimulatedCamera(self._rest or DEFAULT_MODEL)
            return SimulatorBackend([self._camera.device])
        return None

    def close(self) -> None:
        """Ends what the backend keeps running."""
        if self._backend is not None:
            self._backend.close()
        if self._camera is not None:
            self._camera.close()
        if self.recorder is not None:
            self.recorder.close()
