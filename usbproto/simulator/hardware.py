# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything in and around a simulated camera except its firmware: parts, telescope, sky, air and supply."""

from __future__ import annotations

from usbproto.models import Sensor
from usbproto.simulator import eeprom
from usbproto.simulator.bodies import CameraModel
from usbproto.simulator.cooler import Cooler, Environment
from usbproto.simulator.events import EventLog
from usbproto.simulator.flash import Flash
from usbproto.simulator.mechanics import Relays, Shutter, Wheel
from usbproto.simulator.mount import Mount, Telescope
from usbproto.simulator.sensor import HotPixels
from usbproto.simulator.sky import FILTERS, Optics
from usbproto.simulator.timeline import Timeline


class Hardware:
    """`firmware` is the version that the camera came with. One `seed` gives the same stars and defects."""

    def __init__(
        self,
        model: CameraModel,
        timeline: Timeline,
        log: EventLog,
        *,
        serial: str | None = None,
        firmware: str | None = None,
        seed: int = 0,
        telescope: Telescope | None = None,
        environment: Environment | None = None,
    ) -> None:
        self.model = model
        self.timeline = timeline
        self.log = log
        self.serial = serial or model.default_serial
        self.firmware = firmware or model.default_firmware
        self.seed = seed
        self.environment = environment or Environment()
        self.eeprom = eeprom.contents(model, self.serial, self.firmware)
        self.flash = Flash(model, self.firmware)
        self.shutter = Shutter(timeline, log)
        self.wheel = Wheel(model.filter_count, timeline, log)
        self.relays = Relays(timeline, log)
        self.cooler = Cooler(model.series.name, self.environment, timeline.now(), seed)
        self.mount = Mount(telescope or Telescope())
        self.optics = Optics(model.sensor.active, model.sensor.pixel, model.colour, self.mount, seed)
        self.hot_pixels = HotPixels.make(model.sensor, seed, self.serial)
        self.relays.on_change = lambda direction: self.mount.relay(direction, timeline.now())

    @property
    def sensor(self) -> Sensor:
        return self.model.sensor

    @property
    def throughput(self) -> float:
        """The share of the light that the present filter lets through."""
        return FILTERS[self.wheel.position] if self.model.has_wheel else 1.0

    @property
    def sees_light(self) -> bool:
        """Bodies without a mechanical shutter see light always; so a dark frame needs a cover."""
        return self.shutter.open or not self.model.has_shutter

    def power_off(self) -> None:
        """What moves comes to rest; temperatures go their own way."""
        self.cooler.look(self.timeline.now())
        self.cooler.reset()
        self.shutter.power_off()
        self.wheel.power_off()
        self.relays.power_off()
