# SPDX-License-Identifier: LGPL-2.1-or-later
"""One camera as an INDI device: puts the subjects together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from indi_qsi.device import housekeeping
from indi_qsi.device.activity import Activity
from indi_qsi.device.config_file import ConfigFile
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
from indi_qsi.device.orders import OrderBook
from indi_qsi.device.panel import PanelSubject
from indi_qsi.device.phase import PhaseSubject
from indi_qsi.device.recorder import HeaderSubject
from indi_qsi.device.snooping import Snooping
from indi_qsi.device.source import CameraSource
from indi_qsi.device.status import StatusSubject
from indi_qsi.device.subject import Subject
from indi_qsi.device.upload import UploadSubject
from indi_qsi.device.worker import THREAD_NAME, CameraThread
from indi_qsi.properties import Device, Hub, Request, State, Vector
from indi_qsi.storage import Storage
from usbproto.errors import QsiError, Refused

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.session import Session
    from usbproto.thermometer import Temperatures

log = logging.getLogger(__name__)

FACTORY_NAME = "QSI CCD"
EXECUTABLE = "indi_qsi_ccd"


class QsiDevice:
    """Makes itself known to the hub at once; talks to a camera when a client asks for it."""

    def __init__(
        self,
        hub: Hub,
        name: str,
        source: CameraSource,
        opened: Callable[[QsiDevice, str], None],
        storage: Storage,
    ) -> None:
        """`opened` is called with the serial number of the camera that the device has opened."""
        self._hub = hub
        self.source = source
        self._opened = opened
        self.name = name
        self._camera: Camera | None = None
        self._activity = activity = Activity()
        orders = OrderBook(activity.allows)
        self._thread = thread = CameraThread(THREAD_NAME + name, orders, self._trouble)
        self._device = device = Device(name, hub)
        self._connection = Connection(thread, self)
        self._config = ConfigFile(device, storage)
        memory = Memory(source.directory, storage)
        self._polling = housekeeping.polling_period()
        self._snooping = Snooping(hub, self._config)
        self._status = StatusSubject()
        self._phase = PhaseSubject(activity)
        self._cooler = CoolerSubject(thread, orders, activity, self._polling, self._status, self._config)
        self._cooler.measured.append(self._measured)
        panel = PanelSubject(orders, memory)
        self._guide_port = GuidePort(thread, activity, panel)
        geometry = GeometrySubject()
        filters = FilterSubject(thread, orders, activity, memory, self._trouble)
        header = HeaderSubject(device, self._snooping, self._cooler, filters)
        upload = UploadSubject(device, storage)
        self._delivery = DeliverySubject(header, upload)
        self._timing = LinkTimingSubject(orders, memory, device.message)
        exposure = ExposureSubject(
            thread,
            orders,
            activity,
            device,
            geometry=geometry,
            phase=self._phase,
            panel=panel,
            cooler=self._cooler,
            upload=upload,
            header=header,
            delivery=self._delivery,
            renew=self.renew,
        )
        # What an exposure depends on is defined before CCD_EXPOSURE: some clients set several vectors in the
        # order of their definitions.
        self._subjects: tuple[Subject, ...] = (
            geometry,
            header,
            upload,
            panel,
            filters,
            MaskSubject(orders, memory),
            self._timing,
            exposure,
            self._phase,
            self._cooler,
            self._status,
            GuiderSubject(self._guide_port),
            self._delivery,
        )
        # An exposure ends before anything else is put in order: while it waits for a trigger, nothing may be
        # sent.
        others = (subject for subject in self._subjects if subject is not exposure)
        self._leaving: tuple[Subject, ...] = (exposure, *others)
        self._info = housekeeping.driver_info(FACTORY_NAME, EXECUTABLE)
        self._diagnostics = Diagnostics(EXECUTABLE, THREAD_NAME + name, device, storage)
        self._simulation = housekeeping.simulation(self._simulate)
        self._guider_device: GuiderDevice | None = None
        self._guider_lock = threading.Lock()
        self._guider_switch = guider_switch(self._switch_guider)
        # CONNECTION first, DRIVER_INFO second: a guiding program connects when it sees the second.
        device.add(
            self._connection.vector,
            self._info,
            self._diagnostics.debug,
            self._simulation,
            self._config.vector,
            self._polling,
            self._snooping.vector,
            self._guider_switch,
        )
        # What is there without a camera; some of it comes and goes with DEBUG.
        self._permanent = {*device.vectors, *(vector.name for vector in self._diagnostics.saved())}
        self._config.saved = self._saved
        hub.add_device(device)
        self._config.load_first([vector for subject in self._subjects for vector in subject.kept()])

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
        return f"QSI {camera.identity.model} {self.serial}: {temperature}{self._activity.phase.value.lower()}"

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
        for subject in self._leaving:
            try:
                subject.leave(camera)
            except QsiError as error:
                failure = error  # what the others leave behind matters no less
        if failure is not None:
            raise failure

    def went(self) -> None:
        # What is at rest goes without a word: KStars may fall over an update of what is gone a moment later.
        self._withdraw(lambda vector: vector.state is not State.BUSY)
        for subject in self._leaving:
            subject.disconnect()
        for name, vector in list(self._device.vectors.items()):
            if vector.pending and name not in self._permanent:
                vector.end_all(State.OK)  # it was carried out, and is being saved
        self._withdraw(lambda vector: True)
        self._config.vector.select(None, state=State.IDLE)  # some clients load a config only then
        self._camera = None
        if self._guider_device is not None:
            self._guider_device.went()

    def _withdraw(self, which: Callable[[Vector[Any]], bool]) -> None:
        """Takes away what is there only with a camera."""
        vectors = self._device.vectors
        coming = [vector for name, vector in list(vectors.items()) if name not in self._permanent]
        self._device.remove(*(vector for vector in coming if which(vector)))

    def lost(self) -> None:
        for subject in self._leaving:
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
        """A second device for the guide port comes or goes. Several readers may ask at the same time."""
        with self._guider_lock:
            self._switch_guider_to(request)

    def _switch_guider_to(self, request: Request[bool]) -> None:
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
        """Another camera stands in, or the real one again; a connect that is asked for later gets it."""
        simulate = request.values["ENABLE"]
        if simulate == self.source.simulate and not self._simulation.pending:
            self._simulation.set(state=State.OK)
            return
        if not self._connection.settled:
            self._simulation.refuse("Disconnect first: the camera cannot change while it is in use")
            return
        answer = self._simulation.accept()

        def change() -> None:
            try:
                self.source.simulate = simulate
            except QsiError as error:
                answer.end(State.ALERT, message=error.explain())
            else:
                answer.end(State.OK, request.values)

        self._thread.post_always(change)

    # --- the camera's memory of its settings; camera thread ---

    def renew(self) -> None:
        """Sends the camera its settings again if it may have forgotten them."""
        camera = self._camera
        if camera is None or not camera.doubtful:
            return
        log.warning("the camera was silent for a while: its settings are sent again")
        for subject in self._subjects:
            subject.renew(camera)
        camera.trust()

    def _measured(self, measured: Temperatures) -> None:
        if not self._activity.exposing:
            self.renew()

    # --- errors ---

    def _trouble(self, error: Exception) -> None:
        if isinstance(error, Refused):
            self._status.refused(error)
        self._connection.trouble(error)

    def _saved(self) -> list[Vector[Any]]:
        """What belongs into the config file."""
        return [
            self._polling,
            self._snooping.vector,
            self._guider_switch,
            *(vector for subject in self._subjects for vector in subject.saved()),
        ]
