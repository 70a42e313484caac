# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole simulated camera: time, hardware, firmware, FTDI chip. `device` is what the USB backends serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self, TextIO

import numpy as np
from numpy.typing import NDArray

from usbproto.simulator import (  # noqa: F401  (they register themselves)
    faults_firmware,
    faults_usb,
    strange_answers,
    strange_behaviour,
    strange_contents,
    strange_usb,
)
from usbproto.simulator.bodies import CameraModel
from usbproto.simulator.chip import FtdiChip
from usbproto.simulator.cooler import Environment
from usbproto.simulator.events import EventLog, Listener
from usbproto.simulator.faults import Faults
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.firmware import Firmware
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.indicator import Indicator
from usbproto.simulator.mount import Telescope
from usbproto.simulator.sky import Scene
from usbproto.simulator.strange import Strange
from usbproto.simulator.timeline import RealTimeline, Timeline


class SimulatedCamera:
    """Ready to be found on the USB.

    `model` is a name like `683wsg`; `serial` defaults to the model's first. `seed` picks stars, defects and
    noise. `timeline` None makes its own, running `speed` times as fast as the wall. `readout` (s) overrides
    the readout time, `rate` limits the USB (bytes/s). `firmware` is the version to report. `starting`: it was
    switched on this moment and listens in 6 s. `events` is a file for JSON lines, `listener` a callback.
    `strange` says how it differs from the notes (see `simulator.strange`); ValueError for what is not known.
    """

    def __init__(
        self,
        model: str | CameraModel = "683wsg",
        serial: str | None = None,
        seed: int = 0,
        timeline: Timeline | None = None,
        readout: float | None = None,
        rate: float | None = None,
        events: TextIO | None = None,
        listener: Listener | None = None,
        *,
        speed: float = 1.0,
        firmware: str | None = None,
        starting: bool = False,
        telescope: Telescope | None = None,
        environment: Environment | None = None,
        strange: Sequence[str] = (),
    ) -> None:
        self.model = CameraModel.parse(model) if isinstance(model, str) else model
        self._own_timeline = RealTimeline(speed) if timeline is None else None
        chosen = self._own_timeline or timeline
        assert chosen is not None
        self.timeline: Timeline = chosen
        self.events = EventLog(events, serial or self.model.default_serial)
        if listener is not None:
            self.events.listeners.append(listener)
        self.fifo = Fifo()
        with self.timeline.lock:
            self.hardware = Hardware(
                self.model,
                self.timeline,
                self.events,
                serial=serial,
                firmware=firmware,
                seed=seed,
                telescope=telescope,
                environment=environment,
            )
            self.firmware = Firmware(
                self.fifo,
                self.hardware,
                readout=readout,
                background=isinstance(self.timeline, RealTimeline),
                starting=starting,
            )
            self.device = FtdiChip(self.model.series, self.serial, self.fifo, self.timeline, rate=rate)
            self.indicator = Indicator(self.firmware, lambda: self.device.plugged)
            self._plugged = True
        try:
            self.strange = Strange(self, strange)
        except ValueError:
            self.close()
            raise
        self.device.watch(self._usb_changed)
        self.faults = Faults(self)

    @property
    def serial(self) -> str:
        return self.hardware.serial

    @property
    def last_frame(self) -> NDArray[np.uint16] | None:
        """The last picture as it goes over the wire, before the host's auto-zero."""
        return self.firmware.last_frame

    def _usb_changed(self) -> None:
        """Called with the lock held, after resets of the bus as well."""
        if self._plugged != self.device.plugged:
            self._plugged = self.device.plugged
            self.events.emit("usb", plugged=self._plugged)

    def power_off(self) -> None:
        """Its supply is cut: it leaves the USB and forgets everything but its temperatures."""
        with self.timeline.lock:
            self.firmware.power_off()
            if self.device.plugged:
                self.device.unplug()

    def power_on(self) -> None:
        """It is back on the USB at once, and listens in 6 s."""
        with self.timeline.lock:
            self.firmware.power_on()
            if not self.device.plugged:
                self.device.replug()

    def set_environment(self, *, ambient: float | None = None, voltage: float | None = None) -> None:
        """Change the air (degC) or the supply (V)."""
        with self.timeline.lock:
            around = self.hardware.environment
            self.hardware.cooler.look(self.timeline.now())
            around.ambient = around.ambient if ambient is None else ambient
            around.voltage = around.voltage if voltage is None else voltage
            self.events.emit("environment", ambient=around.ambient, voltage=around.voltage)

    def set_scene(self, scene: Scene, level: float | None = None) -> None:
        """What the telescope sees from the next exposure's end on; `level` of a flat in e-/s a pixel."""
        with self.timeline.lock:
            optics = self.hardware.optics
            optics.scene = scene
            optics.flat_level = optics.flat_level if level is None else level
            self.events.emit("environment", scene=scene.value, flat_level=optics.flat_level)

    def set_defocus(self, arcsec: float) -> None:
        with self.timeline.lock:
            mount = self.hardware.mount
            mount.telescope = replace(mount.telescope, defocus=arcsec)
            self.events.emit("environment", defocus=arcsec)

    def trigger(self) -> None:
        """The external trigger fires."""
        with self.timeline.lock:
            self.firmware.imager.trigger()

    def close(self) -> None:
        """End its threads. The device is unplugged."""
        if self.device.plugged:
            self.device.unplug()
        if self._own_timeline is not None:
            self._own_timeline.close()
        self.firmware.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
