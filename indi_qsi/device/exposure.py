# SPDX-License-Identifier: LGPL-2.1-or-later
"""CCD_EXPOSURE and CCD_ABORT_EXPOSURE: the life of one exposure after another.

    request -> Busy (duration) -> Busy (remaining, each second) -> Busy 0 -> BLOB -> Ok 0
    failure -> Alert 0        abort -> Idle 0        a request while Busy: abort, then the new one

Every exposure is a `Run`. Whoever ends a run (the picture, a failure, an abort, a newer request, the camera's
leaving) takes it away under the lock; what comes later for that run finds it gone and stays silent. So there
is exactly one final state for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indi_qsi.device.geometry import BIAS, SHUTTER_OPEN, GeometrySubject
from indi_qsi.device.subject import MAIN_CONTROL, Subject, explain
from indi_qsi.device.worker import CameraThread, Job, Priority
from indi_qsi.properties import (
    Level,
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    Vector,
)
from usbproto.errors import BadArgument, Disconnected, TimedOut

if TYPE_CHECKING:
    from usbproto.camera import Camera, Exposure, Image

TIMEOUT = 60.0  # s, advisory
VALUE = "CCD_EXPOSURE_VALUE"
COUNTDOWN = 1.0  # s between updates of the remaining time
# The end of an exposure is noticed within this time; each question costs the camera a few ms.
READY_INTERVAL = 0.015  # s
# The slowest readout (9 million pixels at 800 kHz) takes 12 s; a camera that needs five times that is stuck.
READOUT_LIMIT = 60.0  # s


@dataclass(eq=False)
class Run:
    """One exposure. `opened` (monotonic) and `opened_wall` (Unix time), s, are None before the shutter is."""

    exposure: Exposure
    frame_type: str
    opened: float | None = None
    opened_wall: float | None = None

    @property
    def duration(self) -> float:
        return self.exposure.duration

    @property
    def remaining(self) -> float:
        """Seconds until the shutter closes; the whole duration while it has not opened."""
        if self.opened is None:
            return self.duration
        return max(0.0, self.opened + self.duration - time.monotonic())


class ExposureSubject(Subject):
    """Starts, watches and ends exposures; hands the images to `deliver`.

    `deliver(run, image)` is called in the camera thread and must not keep it; it ends the run with `finished`
    or `fail`. `repeat` is called during a transfer, when no other job can run.
    """

    def __init__(
        self,
        thread: CameraThread,
        geometry: GeometrySubject,
        deliver: Callable[[Run, Image], None],
        repeat: Callable[[], None],
    ) -> None:
        self._thread = thread
        self._geometry = geometry
        self._deliver = deliver
        self._repeat = repeat
        self._camera: Camera | None = None
        self._run: Run | None = None
        self._lock = threading.RLock()
        self._jobs: list[Job] = []
        self.exposure = NumberVector(
            "CCD_EXPOSURE",
            "Expose",
            MAIN_CONTROL,
            (NumberElement(VALUE, "Duration (s)", 1, "%5.4f", 0.01, 3600, 1),),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._requested,
            check_limits=False,  # a bias is 0 s whatever the shortest exposure is
        )
        self.abort = SwitchVector(
            "CCD_ABORT_EXPOSURE",
            "Abort",
            MAIN_CONTROL,
            (SwitchElement("ABORT", "Abort"),),
            permission=Permission.RW,
            rule=Rule.AT_MOST_ONE,
            timeout=TIMEOUT,
            on_request=self._abort_requested,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.exposure, self.abort)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self.exposure.set_limits(VALUE, minimum=camera.min_exposure, maximum=camera.max_exposure)
        self.exposure.set({VALUE: 0}, state=State.IDLE)
        self.abort.set({"ABORT": False}, state=State.IDLE)

    def leave(self, camera: Camera) -> None:
        if self._run is not None:
            camera.abort_exposure()

    def disconnect(self) -> None:
        self.end("The camera was disconnected during the exposure")
        self._camera = None

    def end(self, reason: str) -> None:
        """Ends the run, if there is one, as failed."""
        with self._lock:
            if self._run is not None:
                self._conclude(State.ALERT, reason)

    @property
    def running(self) -> bool:
        return self._run is not None

    # --- requests ---

    def _requested(self, request: Request[float]) -> None:
        from usbproto.camera import Exposure

        frame_type = self._geometry.frame_type.selected or BIAS
        duration = 0.0 if frame_type == BIAS else request.values[VALUE]
        camera = self._camera
        assert camera is not None  # the vector is only defined while connected
        try:
            if frame_type != BIAS and duration == 0:
                raise BadArgument(
                    f"an exposure of 0 s is a bias: choose that frame type; "
                    f"valid range {camera.min_exposure:g}..{camera.max_exposure:g} s"
                )
            camera.check_exposure(duration)
            exposure = Exposure(duration, self._geometry.fitted(), frame_type in SHUTTER_OPEN)
        except BadArgument as error:
            # A running exposure goes on: nothing was started, nothing is ended.
            if self._run is None:
                self.exposure.refuse(str(error))
            else:
                self.exposure.set(message=f"Ignored: {error}", level=Level.ERROR)
            return
        with self._lock:
            if self._run is not None:
                self._forget()
                self._post_abort()
            run = self._run = Run(exposure, frame_type)
            self.exposure.set({VALUE: duration}, state=State.BUSY)
            self._post(run, self._start)

    def _abort_requested(self, request: Request[bool]) -> None:
        with self._lock:
            running = self._run is not None
            if running:
                self._post_abort()
            self.abort.set({"ABORT": False}, state=State.OK)
            if running:
                self._conclude(State.IDLE)
            else:
                self.exposure.set({VALUE: 0}, state=State.IDLE)

    # --- one run, in the camera thread ---

    def _post(self, run: Run, step: Callable[[Run, Camera], None], delay: float = 0.0) -> None:
        def work() -> None:
            camera = self._camera
            if self._run is run and camera is not None:
                step(run, camera)

        with self._lock:
            self._jobs = [job for job in self._jobs if not job.cancelled][-2:]
            self._jobs.append(
                self._thread.post(
                    Priority.EXPOSURE, work, delay=delay, failed=lambda error: self._failed(run, error)
                )
            )

    def _start(self, run: Run, camera: Camera) -> None:
        camera.start_exposure(run.exposure)
        run.opened, run.opened_wall = time.monotonic(), time.time()
        self._count_down(run, camera)
        self._post(run, self._wait_ready, run.remaining)

    def _count_down(self, run: Run, camera: Camera) -> None:
        remaining = run.remaining
        self._show(run, remaining)
        if remaining > 0:
            self._post(run, self._count_down, min(COUNTDOWN, remaining))

    def _show(self, run: Run, remaining: float) -> None:
        with self._lock:
            if self._run is run:
                self.exposure.set({VALUE: remaining}, state=State.BUSY)

    def _wait_ready(self, run: Run, camera: Camera) -> None:
        if camera.image_ready():
            self._read(run, camera)
            return
        assert run.opened is not None
        if time.monotonic() > run.opened + run.duration + READOUT_LIMIT:
            raise TimedOut("the readout of the sensor", READOUT_LIMIT)
        self._post(run, self._wait_ready, READY_INTERVAL)

    def _read(self, run: Run, camera: Camera) -> None:
        # Fresh memory each time: the image before may still be on its way into its file.
        target = memoryview(bytearray(run.exposure.geometry.bytes))
        image = camera.read_image(target, lambda done: self._repeat())
        if self._run is run:
            self._deliver(run, image)

    def _failed(self, run: Run, error: Exception) -> None:
        self.fail(run, explain(error))
        if not isinstance(error, Disconnected):
            self._post_abort()  # the camera may still be exposing

    # --- the end of a run ---

    def fail(self, run: Run, reason: str) -> None:
        """The run ends without a picture. Any thread."""
        with self._lock:
            if self._run is run:
                self._conclude(State.ALERT, reason)

    def finished(self, run: Run, send: Callable[[], None]) -> None:
        """The picture is there: `send` it, unless the run has ended otherwise meanwhile. Any thread."""
        with self._lock:
            if self._run is run:
                send()
                self._conclude(State.OK)

    def _conclude(self, state: State, message: str | None = None) -> None:
        self._forget()
        self.exposure.set({VALUE: 0}, state=state, message=message, level=Level.ERROR)

    def _forget(self) -> None:
        self._run = None
        for job in self._jobs:
            job.cancel()
        self._jobs.clear()

    def _post_abort(self) -> None:
        def work() -> None:
            if self._camera is not None:
                self._camera.abort_exposure()

        self._thread.post(Priority.ABORT, work)
