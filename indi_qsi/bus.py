# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which USB the driver looks at: the real one, one over the network, or a simulated camera in the process.

Chosen by `INDI_QSI_USB`:

    libusb              the computer's own USB (the default)
    usbip:HOST:PORT     a USB/IP server: qsi-sim, or another computer's camera
    usbip:unix:PATH     the same by a unix socket
    sim                 a simulated camera in this process
    sim:MODEL           the same, of this model, for example sim:583wsg
"""

from __future__ import annotations

import threading
from typing import Any

from usbproto.errors import BadArgument

VARIABLE = "INDI_QSI_USB"
LIBUSB = "libusb"
DEFAULT_MODEL = "683wsg"


class Bus:
    """A choice of USB; its backend is made when it is first needed, and kept."""

    def __init__(self, choice: str = LIBUSB) -> None:
        """Raises `BadArgument` for a choice that is none of the above."""
        kind, _, rest = choice.partition(":")
        if kind not in (LIBUSB, "usbip", "sim") or (kind == "usbip") != bool(rest and kind != "sim"):
            raise BadArgument(
                f"{VARIABLE}={choice} is not understood",
                "Valid are libusb, usbip:HOST:PORT, usbip:unix:PATH, sim, sim:MODEL",
            )
        self.choice = choice
        self._kind, self._rest = kind, rest
        self._backend: Any = None
        self._camera: Any = None
        # Held by whoever lists or opens cameras: over USB/IP, asking a camera its name makes it busy.
        self.lock = threading.Lock()

    @property
    def simulated(self) -> bool:
        return self._kind == "sim"

    def backend(self) -> Any:
        """A pyusb backend; None stands for libusb. Raises `BadArgument` for an unknown model."""
        if self._backend is None and self._kind != LIBUSB:
            if self._kind == "usbip":
                from usbproto.simulator.usbip_client import UsbIpBackend

                self._backend = UsbIpBackend(self._rest)
            else:
                from usbproto.simulator.backend import SimulatorBackend
                from usbproto.simulator.camera import SimulatedCamera

                self._camera = SimulatedCamera(self._rest or DEFAULT_MODEL)
                self._backend = SimulatorBackend([self._camera.device])
        return self._backend

    def close(self) -> None:
        """Ends what the backend keeps running."""
        if self._backend is not None:
            self._backend.close()
        if self._camera is not None:
            self._camera.close()
