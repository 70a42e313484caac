# SPDX-License-Identifier: LGPL-2.1-or-later
"""One camera as an INDI device: puts the subjects together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from indi_qsi.device import housekeeping
from indi_qsi.device.connection import CONNECT, Connection
from indi_qsi.device.cooler import CoolerSubject
from indi_qsi.device.delivery import DeliverySubject
from indi_qsi.device.diagnostics import Diagnostics
from indi_qsi.device.exposure import ExposureSubject
from indi_qsi.device.filters import FilterSubject
from indi_qsi.device.geometry import GeometrySubject
from indi_qsi.device.guider import NORTH_SOUTH, GuidePort, GuiderSubject
from indi_qsi.device.guider_device import GuiderDevice, guider_switch
from indi_qsi.device.link_timing import LinkTimingSubject
from indi_qsi.device.mask import MaskSubject
from indi_qsi.device.memory import Memory
from indi_qsi.device.panel import PanelSubject
from indi_qsi.device.phase import PhaseSubject
from indi_qsi.device.recorder import HeaderSubject
from indi_qsi.device.run import Run
from indi_qsi.device.snooping import Snooping
from indi_qsi.device.source import CameraSource
from indi_qsi.device.status import StatusSubject
from indi_qsi.device.subject import Subject
from indi_qsi.device.upload import UploadSubject
from indi_qsi.device.worker import THREAD_NAME, CameraThread
from indi_qsi.properties import Device, Hub, Level, NumberVector, Rejected, Request, State, Vector
from indi_qsi.properties.config import Config, ConfigError
from indi_qsi.storage import Storage
from indi_qsi.wire.messages import NewVector
from indi_qsi.wire.numbers import format_number, parse_number
from usbproto.errors import QsiError, Refused

if TYPE_CHECKING:
    from indi_qsi.device.plate import Plate
    from usbproto.camera import Camera, Image
    from usbproto.frames import Geometry
    from usbproto.session import Session
    from usbproto.thermometer import Temperatures

log = logging.getLogger(__name__)

FACTORY_NAME = "QSI CCD"
EXECUTABLE = "indi_qsi_ccd"


class QsiDevice:
    """Makes itself known to the hub at once; talks to a camera when a client asks for it."""

    def __init__(
        self, hub: Hub, name: str, source: CameraSource, opened: Callable[[QsiDevice, str], None]
    ) -> None:
        """`opened` is told the serial number of the camera that the device got."""
        self._hub = hub
        self.source = source
        self._opened = opened
        self.name = name
        thread_name = THREAD_NAME + name
        self._thread = CameraThread(thread_name, self._trouble)
        self._device = Device(name, hub)
        self._config = Config(name)
        self._polling = housekeeping.polling_period()
        self._connection = Connection(self._thread, self)
        self._storage = Storage()
        memory = Memory(self._config.path.parent, self._storage)
        self._geometry = GeometrySubject()
        self._status = StatusSubject()
        self._phase = PhaseSubject()
        self._exposure = ExposureSubject(self._thread, self._geometry, self._phase, self)
        self._panel = PanelSubject(
            self._thread, memory, lambda: self._exposure.running, self._exposure.show_limits
        )
        self._filters = FilterSubject(self._thread, memory, lambda: self._exposure.running, self._trouble)
        self._timing = LinkTimingSubject(
            self._thread, memory, lambda: self._exposure.running, self._device.message
        )
        self._cooler = CoolerSubject(
            self._thread,
            self._polling,
            self._measured,
            self._status.refused,
            self._keep,
            self._status.unknown,
            lambda: self._exposure.waiting_for_trigger,
            lambda: self._exposure.reading_out,
        )
        self._guide_port = GuidePort(
            self._thread,
            lambda: self._exposure.waiting_for_trigger,
            lambda: self._panel.shutter_on_guide_port,
        )
        self._upload = UploadSubject(self._device.add, self._device.remove)
        self._snooping = Snooping(hub, self._keep)
        self._header = HeaderSubject(
            self._device, self._snooping, lambda: self._cooler.target, lambda: self._filters.current
        )
        self._delivery = DeliverySubject(
            self._header.cards, self._exposure.finished, self._exposure.fail, self._upload
        )
        self._subjects: tuple[Subject, ...] = (
            self._exposure,
            self._phase,
            self._geometry,
            self._cooler,
            self._status,
            self._header,
            self._delivery,
            GuiderSubject(self._guide_port),
            self._upload,
            self._panel,
            self._filters,
            MaskSubject(memory),
            self._timing,
        )
        self._camera: Camera | None = None
        self._info = housekeeping.driver_info(FACTORY_NAME, EXECUTABLE)
        self._diagnostics = Diagnostics(
            EXECUTABLE, thread_name, self._device.add, self._device.remove, self._device.tell
        )
        self._simulation = housekeeping.simulation(self._simulate)
        self._guider_device: GuiderDevice | None = None
        self._guider_switch = guider_switch(self._switch_guider)
        self._config_process = housekeeping.config_process(
            self._load, self._save, self._load_default, self._config.purge
        )
        # CONNECTION first, DRIVER_INFO second: a guiding program connects when it sees the second.
        self._device.add(
            self._connection.vector,
            self._info,
            self._diagnostics.debug,
            self._simulation,
            self._config_process,
            self._polling,
            self._snooping.vector,
            self._guider_switch,
        )
        # What is there without a camera; some of it comes and goes with DEBUG.
        self._permanent = {*self._device.vectors, *(vector.name for vector in self._diagnostics.saved())}
        hub.add_device(self._device)
        self._load_first()

    def close(self) -> None:
        """Ends exposure and threads, and lets the camera go; the cooler stays as it is."""
        self._connection.stop_opening()
        self._thread.stop(self._connection.release)
        self._guide_port.close("The driver ends")
        self._delivery.stop()
        self._diagnostics.close()
        self._snooping.close()
        self.source.close()
        if self._guider_device is not None:
            self._guider_device.close()
        self._hub.remove_device(self._device)
        self._storage.close()

    # --- for whoever looks after the process; any thread ---

    @property
    def thread(self) -> CameraThread:
        return self._thread

    @property
    def serial(self) -> str | None:
        """Of the camera that it has, or is bound to."""
        camera = self._camera
        return camera.usb_serial if camera is not None else self.source.serial

    @property
    def connected(self) -> bool:
        return self._connection.vector.selected == CONNECT

    @property
    def removed(self) -> bool:
        """Whether it was closed: clients do not see it any more."""
        return not self._device.live

    @property
    def waiting(self) -> bool:
        """Whether its camera left by itself and is waited for."""
        return self._connection.waiting

    @property
    def connection_state(self) -> State:
        return self._connection.vector.state

    def ask_to_connect(self) -> None:
        """As if a client had asked. Does not wait."""
        self._connection.request(True)

    def summary(self) -> str:
        """What it is doing, in a few words for an administrator; empty as long as it has no camera."""
        camera, last = self._camera, self._cooler.last
        if self.waiting:
            return f"waiting for the camera {self.serial} to come back"
        if camera is None:
            return ""
        temperature = f"{last.ccd:.1f} °C, " if last is not None else ""
        return f"QSI {camera.identity.model} {self.serial}: {temperature}{self._phase.phase.value.lower()}"

    # --- the camera comes and goes; in the camera thread ---

    def session(self) -> Session:
        from usbproto.session import Session

        session = Session(flight=self.source.flight)

        def progress(text: str) -> None:
            self._thread.beat()
            self._device.message(text)

        session.progress = progress
        session.alive = self._thread.beat
        session.slowed = self._timing.slowed
        session.keep = self.source.keep
        return session

    def open(self, session: Session, only: str | None = None) -> Camera:
        return self.source.open(session, self._timing.of, only)

    def came(self, camera: Camera) -> None:
        self._opened(self, camera.usb_serial)
        for subject in self._subjects:
            subject.connect(camera)

    def ready(self, camera: Camera) -> None:
        self._tell_interface()
        self._device.add(*(vector for subject in self._subjects for vector in subject.vectors()))
        self._begin(camera)

    def _begin(self, camera: Camera) -> None:
        self._camera = camera
        for subject in self._subjects:
            subject.started()
        if self._guider_device is not None:
            self._guider_device.came(camera)

    def leaving(self, camera: Camera) -> None:
        failure = None
        for subject in self._subjects:
            try:
                subject.leave(camera)
            except QsiError as error:
                failure = error  # what the others leave behind matters no less
        if failure is not None:
            raise failure

    def went(self) -> None:
        # What is at rest goes without a word: KStars may fall over an update of what is gone a moment later.
        self._withdraw(lambda vector: vector.state is not State.BUSY)
        for subject in self._subjects:
            subject.disconnect()
        self._withdraw(lambda vector: True)
        self._config_process.select(None, state=State.IDLE)  # some clients load a config only then
        self._camera = None
        if self._guider_device is not None:
            self._guider_device.went()

    def _withdraw(self, which: Callable[[Vector[Any]], bool]) -> None:
        """Takes away what is there only with a camera."""
        vectors = self._device.vectors
        coming = [vector for name, vector in vectors.items() if name not in self._permanent]
        self._device.remove(*(vector for vector in coming if which(vector)))

    def lost(self) -> None:
        for subject in self._subjects:
            subject.lost()
        self._camera = None
        if self._guider_device is not None:
            self._guider_device.lost()

    def back(self, camera: Camera) -> None:
        for subject in self._subjects:
            subject.back(camera)
        self._begin(camera)

    def _tell_interface(self) -> None:
        """What the device is, now that its camera is known; said again only if it is something else."""
        names = {vector.name for subject in self._subjects for vector in subject.vectors()}
        value = housekeeping.interface(guider=NORTH_SOUTH.vector in names, wheel="FILTER_SLOT" in names)
        if self._info["DRIVER_INTERFACE"] != value:
            self._info.set({"DRIVER_INTERFACE": value})

    def _switch_guider(self, request: Request[bool]) -> None:
        """A second device for the guide port comes or goes."""
        if request.values["ENABLE"] and self._guider_device is None:
            self._guider_device = GuiderDevice(
                self._hub,
                self._device.name,
                EXECUTABLE,
                self._guide_port,
                lambda: self._connection.request(True),
            )
            if self._camera is not None:
                self._guider_device.came(self._camera)
        elif not request.values["ENABLE"] and self._guider_device is not None:
            self._guider_device.close()
            self._guider_device = None
        self._guider_switch.set(request.values, state=State.OK)

    def _simulate(self, request: Request[bool]) -> None:
        if self.waiting or self.connection_state is State.BUSY:
            self._simulation.refuse("Disconnect first: the device is connecting, or waits for its camera")
            return
        try:
            self.source.simulate = request.values["ENABLE"]
        except QsiError as error:
            self._simulation.refuse(error.explain())
            return
        self._simulation.set(request.values, state=State.OK)

    # --- what exposures need of the rest; see `exposure.Surroundings` ---

    def must_prepare(self) -> bool:
        return self._upload.saves

    def prepare(self) -> None:
        self._upload.check_before_exposure()

    def renew(self) -> None:
        camera = self._camera
        if camera is None or not camera.doubtful:
            return
        log.warning("the camera was silent for a while: its settings are sent again")
        for subject in self._subjects:
            subject.renew(camera)
        camera.trust()

    def wheel_moving(self) -> bool:
        return self._filters.moving

    def trigger(self) -> str:
        return self._panel.trigger

    def high_speed(self) -> bool:
        return self._panel.high_speed

    def opened(self, run: Run) -> None:
        self._header.capture(run)

    def transferring(self) -> None:
        self._thread.beat()
        self._cooler.repeat()

    def backlog(self) -> bool:
        return self._delivery.backlog

    def plate(self, geometry: Geometry) -> Plate:
        return self._delivery.plate(geometry)

    def deliver(self, run: Run, image: Image, plate: Plate) -> None:
        self._delivery.deliver(run, image, plate)

    def _measured(self, measured: Temperatures) -> None:
        self._status.measured(measured)
        self._header.measured(measured)
        if not self._exposure.running:
            self.renew()

    # --- errors ---

    def _trouble(self, error: Exception) -> None:
        if isinstance(error, Refused):
            self._status.refused(error)
        self._connection.trouble(error)

    # --- the config file ---

    def _saved(self) -> list[Vector[Any]]:
        vectors: list[Vector[Any]] = [
            self._polling,
            self._snooping.vector,
            self._guider_switch,
            *(v for subject in self._subjects for v in subject.saved()),
        ]
        return [vector for vector in vectors if vector.defined]

    def _save(self) -> None:
        # What is not defined now (the camera is not connected) keeps what the file says of it.
        self._config.update(vector.as_request(self._device.name) for vector in self._saved())

    def _keep(self, vector: Vector[Any]) -> None:
        """Saves one vector that a client has changed."""
        try:
            self._config.update([vector.as_request(self._device.name)])
        except ConfigError as error:
            self._device.message(str(error), Level.WARNING)

    def _load_first(self) -> None:
        """Brings back what holds unasked: what is defined already, and what comes with the camera."""
        try:
            requests = self._config.load()
        except ConfigError as error:
            self._device.message(str(error), Level.WARNING)
            return
        self._apply(requests)
        # Restored as soon as they are defined, they might undo what a client asked for a moment before.
        kept = [vector for subject in self._subjects for vector in subject.kept()]
        for vector, request in self._meant_for(kept, requests):
            try:
                vector.restore(request.values)
            except Rejected as rejected:
                self._device.message(f"{self._config.path}: {rejected}", Level.WARNING)

    def _load(self) -> None:
        self._apply(self._config.load())

    def _load_default(self) -> None:
        self._apply(self._config.load_default())

    def _apply(self, requests: Sequence[NewVector]) -> None:
        for _, request in self._meant_for(self._saved(), requests):
            self._hub.dispatch(None, request)

    def _meant_for(
        self, vectors: Iterable[Vector[Any]], requests: Iterable[NewVector]
    ) -> Iterator[tuple[Vector[Any], NewVector]]:
        """What a config file says of these vectors, in its order."""
        known = {vector.name: vector for vector in vectors}
        for request in requests:
            if request.device == self._device.name and request.name in known:
                vector = known[request.name]
                yield vector, _within_limits(request, vector)


def _within_limits(request: NewVector, vector: Vector[Any]) -> NewVector:
    """A config file may be of another camera: its numbers are cut to what this one can do."""
    if not isinstance(vector, NumberVector):
        return request
    values = []
    for element, text in request.values:
        try:
            low, high = vector.limits(element)
            text = format_number(min(max(parse_number(text), low), high))
        except (KeyError, ValueError):
            pass  # the vector says what is wrong with it
        values.append((element, text))
    return replace(request, values=tuple(values))
