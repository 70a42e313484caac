# SPDX-License-Identifier: LGPL-2.1-or-later
"""One camera as an INDI device: puts the subjects together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device import housekeeping
from indi_qsi.device.connection import Connection
from indi_qsi.device.cooler import CoolerSubject
from indi_qsi.device.delivery import DeliverySubject
from indi_qsi.device.exposure import ExposureSubject, Run
from indi_qsi.device.geometry import GeometrySubject
from indi_qsi.device.subject import Subject
from indi_qsi.device.worker import CameraThread
from indi_qsi.properties import Device, Hub, Vector
from indi_qsi.properties.config import Config
from indi_qsi.wire.messages import NewVector

if TYPE_CHECKING:
    from usbproto.camera import Camera, Image

FACTORY_NAME = "QSI CCD"
EXECUTABLE = "indi_qsi_ccd"


class QsiDevice:
    """Makes itself known to the hub at once; talks to a camera when a client asks for it."""

    def __init__(self, hub: Hub, name: str, opener: Callable[[], Camera]) -> None:
        self._hub = hub
        self._thread = CameraThread(f"camera {name}", self._trouble)
        self._device = Device(name, hub)
        self._config = Config(name)
        self._polling = housekeeping.polling_period()
        self._connection = Connection(self._thread, opener, self)
        self._geometry = GeometrySubject()
        self._cooler = CoolerSubject(self._thread, self._polling)
        self._exposure = ExposureSubject(self._thread, self._geometry, self._deliver, self._cooler.repeat)
        self._delivery = DeliverySubject(
            name, self._exposure.finished, self._exposure.fail, lambda: self._cooler.last
        )
        self._subjects: tuple[Subject, ...] = (
            self._exposure,
            self._geometry,
            self._cooler,
            self._delivery,
        )
        # CONNECTION first, DRIVER_INFO second: a guiding program connects when it sees the second.
        self._device.add(
            self._connection.vector,
            housekeeping.driver_info(FACTORY_NAME, EXECUTABLE),
            housekeeping.config_process(self._load, self._save, self._load_default, self._config.purge),
            self._polling,
        )
        hub.add_device(self._device)

    def close(self) -> None:
        """Ends exposure and threads, and lets the camera go; the cooler stays as it is."""
        self._thread.stop(self._connection.release)
        self._delivery.stop()
        self._hub.remove_device(self._device)

    # --- the camera comes and goes; in the camera thread ---

    def came(self, camera: Camera) -> None:
        for subject in self._subjects:
            subject.connect(camera)

    def ready(self) -> None:
        self._device.add(*self._connected_vectors())
        for subject in self._subjects:
            subject.started()

    def leaving(self, camera: Camera) -> None:
        for subject in self._subjects:
            subject.leave(camera)

    def went(self) -> None:
        vectors = self._connected_vectors()
        for subject in self._subjects:
            subject.disconnect()
        self._device.remove(*vectors)

    def _connected_vectors(self) -> Sequence[Vector[Any]]:
        return [vector for subject in self._subjects for vector in subject.vectors()]

    def _deliver(self, run: Run, image: Image) -> None:
        self._delivery.deliver(run, image)

    def _trouble(self, error: Exception) -> None:
        self._connection.trouble(error)

    # --- the config file ---

    def _saved(self) -> list[Vector[Any]]:
        vectors = [self._polling, *(v for subject in self._subjects for v in subject.saved())]
        return [vector for vector in vectors if vector.defined]

    def _save(self) -> None:
        # What is not defined now (the camera is not connected) keeps what the file says of it.
        self._config.update(vector.as_request(self._device.name) for vector in self._saved())

    def _load(self) -> None:
        self._apply(self._config.load())

    def _load_default(self) -> None:
        self._apply(self._config.load_default())

    def _apply(self, requests: Sequence[NewVector]) -> None:
        known = {vector.name for vector in self._saved()}
        for request in requests:
            if request.device == self._device.name and request.name in known:
                self._hub.dispatch(None, request)
