# SPDX-License-Identifier: LGPL-2.1-or-later
"""CCD_EXPOSURE, CCD_ABORT_EXPOSURE, CCD_FAST_TOGGLE, CCD_FAST_COUNT: one exposure after another.

    request -> Busy (duration) -> Busy (remaining, each second) -> Busy 0 -> BLOB -> Ok 0
    failure -> Alert 0        abort -> Idle 0        a request while Busy: abort, then the new one

Every exposure is a `Run`. Whoever ends a run (the picture, a failure, an abort, a newer request, the camera's
leaving) takes it away under the lock; what comes later for that run finds it gone and stays silent. So there
is exactly one final state for each.

In fast mode the next run starts as soon as the pixels of the one before are in memory; that one is then
answered Ok, and its picture follows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.geometry import BIAS, SHUTTER_OPEN, GeometrySubject
from indi_qsi.device.phase import Phase, PhaseSubject
from indi_qsi.device.run import Run, Surroundings
from indi_qsi.device.subject import MAIN_CONTROL, OPTIONS, Subject, explain
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
from usbproto.errors import BadArgument, Disconnected, NoCamera, ProtocolError, QsiError, Refused, TimedOut
from usbproto.steady import Steady

if TYPE_CHECKING:
    from indi_qsi.device.plate import Plate
    from usbproto.camera import Camera, Image
    from usbproto.frames import Geometry

TIMEOUT = 60.0  # s, advisory
VALUE = "CCD_EXPOSURE_VALUE"
MAX_FAST_COUNT = 100_000
COUNTDOWN = 1.0  # s between updates of the remaining time
# Between questions whether the image is there. With the time that one takes, the end is noticed within 20 ms.
READY_INTERVAL = 0.008  # s
# A readout like the one before takes about as long: of one that was seen only once, this part is relied on.
UNSURE_PART = 0.9
TRIGGER_INTERVAL = 0.05  # s between questions whether the trigger came
TRIGGER_LIMIT = 4 * 3600.0  # s; nobody waits longer than the longest exposure
BACKLOG_INTERVAL = 0.02  # s between looks whether the pictures before are on their way
WHEEL_INTERVAL = 0.1  # s between looks whether the filter wheel has stopped
# The slowest readout (9 million pixels at 800 kHz) takes 12 s; one of five times that is stuck.
READOUT_LIMIT = 60.0  # s
# s before the end of an exposure by our clock: by the camera's, its readout may have begun.
QUIET_BEFORE = 0.2
PREPARE_LIMIT = 15.0  # s for the directory of local files; a disk that sleeps takes some seconds to wake up
NO_TRIGGER = "TRIGGER_OFF"


class ExposureSubject(Subject):
    """Starts, watches and ends exposures."""

    def __init__(
        self,
        thread: CameraThread,
        geometry: GeometrySubject,
        phase: PhaseSubject,
        surroundings: Surroundings,
    ) -> None:
        self._thread = thread
        self._geometry = geometry
        self._phase = phase
        self._around = surroundings
        self._camera: Camera | None = None
        self._run: Run | None = None
        self._preparing: Run | None = None  # the one that was asked for last, until all is ready for it
        self._lock = threading.RLock()
        self._job: Job | None = None  # the next step
        self._readouts = Steady(UNSURE_PART, READY_INTERVAL)
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
        self.fast = SwitchVector(
            "CCD_FAST_TOGGLE",
            "Fast Exposure",
            OPTIONS,
            (SwitchElement("INDI_ENABLED", "Enabled"), SwitchElement("INDI_DISABLED", "Disabled", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
        )
        self.fast_count = NumberVector(
            "CCD_FAST_COUNT",
            "Fast Count",
            OPTIONS,
            (NumberElement("FRAMES", "Frames", 1, "%.f", 0, MAX_FAST_COUNT, 1),),
            permission=Permission.RW,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.exposure, self.abort, self.fast, self.fast_count)

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.fast,)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self.show_limits(camera)
        self.exposure.set({VALUE: 0}, state=State.IDLE)
        self.abort.set({"ABORT": False}, state=State.IDLE)
        self.fast_count.set({"FRAMES": 1}, state=State.IDLE)

    def show_limits(self, camera: Camera) -> None:
        """Tells the valid range, which depends on the shutter priority; not during an exposure."""
        limits = camera.min_exposure, camera.max_exposure
        if self.exposure.limits(VALUE) != limits:
            # This sends the vector, and the end of the exposure before must not be told twice.
            self.exposure.set(state=State.IDLE)
            self.exposure.set_limits(VALUE, minimum=limits[0], maximum=limits[1])

    def leave(self, camera: Camera) -> None:
        if self._run is not None:
            self._abort_camera(camera)

    def lost(self) -> None:
        self._end("The camera was lost during the exposure")

    def disconnect(self) -> None:
        self._end("The camera was disconnected during the exposure")

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._run is not None or self._preparing is not None:
                self._conclude(State.ALERT, f"{reason} ({self._phase.phase.value.lower()})")
        self._camera = None

    def back(self, camera: Camera) -> None:
        self._camera = camera

    @property
    def running(self) -> bool:
        """Whether an exposure has been asked for and not ended."""
        return self._run is not None or self._preparing is not None

    @property
    def waiting_for_trigger(self) -> bool:
        """Whether the camera waits for a trigger and may be sent next to nothing."""
        return self._phase.phase is Phase.WAITING

    @property
    def reading_out(self) -> bool:
        """Whether the sensor is read out, or soon is: other commands may disturb it (section 8)."""
        run, phase = self._run, self._phase.phase
        soon = phase is Phase.EXPOSING and run is not None and run.remaining < QUIET_BEFORE
        return soon or phase is Phase.READING

    # --- requests ---

    def _requested(self, request: Request[float]) -> None:
        try:
            run = self._new_run(request.values[VALUE])
        except QsiError as error:
            self._refuse(error)
            return
        with self._lock:
            self._preparing = run
            waits = self._around.must_prepare()
            if waits and self._run is None:
                self.exposure.set({VALUE: run.duration}, state=State.BUSY)
        if not waits:
            self._prepared(run)
            return
        # A disk may take its time or hang for ever; whoever waits for that has nothing else to do.
        threading.Thread(target=self._prepare, args=(run,), name="prepare", daemon=True).start()
        late = QsiError(f"UPLOAD_DIR does not answer within {PREPARE_LIMIT:g} s", "Does its disk answer?")
        self._thread.post_always(lambda: self._prepared(run, late), delay=PREPARE_LIMIT)

    def _prepare(self, run: Run) -> None:
        try:
            self._around.prepare()
        except QsiError as error:
            self._prepared(run, error)
        else:
            self._prepared(run)

    def _prepared(self, run: Run, problem: QsiError | None = None) -> None:
        """All is ready for a run, or not. Any thread; only the first word about the newest request counts."""
        with self._lock:
            if self._preparing is not run:
                return
            self._preparing = None
            if problem is not None:
                self._refuse(problem)
                return
            if self._run is not None:
                self._forget()
                self._post_abort()
            self._begin(run)

    def _refuse(self, error: QsiError) -> None:
        """A running exposure goes on: nothing was started, nothing is ended."""
        if self._run is None:
            self.exposure.refuse(explain(error))
        else:
            self.exposure.set(message=f"Ignored: {explain(error)}", level=Level.ERROR)

    def _new_run(self, duration: float) -> Run:
        """Raises `BadArgument`."""
        from usbproto.camera import Exposure

        camera = self._camera
        if camera is None:
            raise NoCamera("The camera is away", "It is used again as soon as it is back")
        frame_type = self._geometry.frame_type.selected or BIAS
        valid = f"valid range {camera.min_exposure:g}..{camera.max_exposure:g} s"
        if frame_type == BIAS:
            duration = 0.0
        elif duration == 0:
            raise BadArgument(f"an exposure of 0 s is a bias: choose that frame type; {valid}")
        camera.check_exposure(duration)
        exposure = Exposure(duration, self._geometry.fitted(), frame_type in SHUTTER_OPEN)
        return Run(exposure, frame_type, time.monotonic())

    def _begin(self, run: Run) -> None:
        self._run = run
        self.exposure.set({VALUE: run.duration}, state=State.BUSY)
        self._post(run, self._start)

    def _abort_requested(self, request: Request[bool]) -> None:
        with self._lock:
            running = self._run is not None
            self._preparing = None
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
            if self._run is run:
                self._job = self._thread.post(
                    Priority.EXPOSURE, work, delay=delay, failed=lambda error: self._failed(run, error)
                )

    def _start(self, run: Run, camera: Camera) -> None:
        if self._around.wheel_moving():
            self._post(run, self._start, WHEEL_INTERVAL)
            return
        self._enter(run, Phase.FLUSHING)
        self._around.renew()
        # High speed readout always opens the shutter, so darks and biases are taken without it.
        if self._around.high_speed() and run.exposure.open_shutter:
            self._high_speed(run, camera)
        elif self._around.trigger() == NO_TRIGGER:
            try:
                camera.start_exposure(run.exposure)
            except Refused:
                # It was not carried out, so it may be asked for again when that was the reason.
                if not _initialised(camera):
                    raise
                camera.start_exposure(run.exposure)
            self._open(run, camera, camera.started_at)
        else:
            try:
                camera.start_exposure(run.exposure)
            except Refused:
                self._check_trigger(camera.state().state, camera)
                raise
            self._wait_trigger(run, camera)

    def _wait_trigger(self, run: Run, camera: Camera) -> None:
        from usbproto.packets import CameraState

        state = camera.state().state
        self._check_trigger(state, camera)
        if state == CameraState.IDLE and not camera.left_idle:
            self._post(run, self._wait_trigger, TRIGGER_INTERVAL)  # it is not armed yet
        elif state == CameraState.WAITING_FOR_TRIGGER:
            self._enter(run, Phase.WAITING)
            if time.monotonic() > run.asked + TRIGGER_LIMIT:
                raise TimedOut("the wait for the trigger", TRIGGER_LIMIT)
            self._post(run, self._wait_trigger, TRIGGER_INTERVAL)
        else:
            self._open(run, camera, time.monotonic())

    @staticmethod
    def _check_trigger(state: int, camera: Camera) -> None:
        """Raises `ProtocolError` when the camera has given up to wait, and makes it fit for the next."""
        from usbproto.packets import CameraState, TriggerMode

        if state == CameraState.ERROR:
            camera.set_trigger(TriggerMode.CLEAR_ERROR)
            raise ProtocolError("no trigger came in time", "Check the trigger's wiring and its edge")

    def _open(self, run: Run, camera: Camera, at: float) -> None:
        """The shutter opened `at` (monotonic)."""
        run.opened, run.opened_wall = at, time.time() - (time.monotonic() - at)
        self._around.opened(run)
        self._enter(run, Phase.EXPOSING)
        self._count_down(run, camera)

    def _count_down(self, run: Run, camera: Camera) -> None:
        remaining = run.remaining
        with self._lock:
            if self._run is run:
                self.exposure.set({VALUE: remaining}, state=State.BUSY)
        if remaining > 0:
            self._post(run, self._count_down, min(COUNTDOWN, remaining))
        else:
            self._enter(run, Phase.READING)
            estimated = camera.session.timing.estimates
            known = self._readouts.sure(_readout(run, camera)) if estimated else 0.0
            self._post(run, self._wait_ready, max(0.0, known - run.closed_for))

    def _wait_ready(self, run: Run, camera: Camera) -> None:
        ready = camera.image_ready()
        took = run.closed_for
        if ready:
            self._readouts.took(_readout(run, camera), took)
            self._read(run, camera)
            return
        if took > READOUT_LIMIT:
            raise TimedOut("the readout of the sensor", READOUT_LIMIT)
        self._post(run, self._wait_ready, READY_INTERVAL)

    def _read(self, run: Run, camera: Camera) -> None:
        if self._around.backlog():
            self._post(run, self._read, BACKLOG_INTERVAL)
            return
        with self._around.plate(run.exposure.geometry) as plate:
            self._enter(run, Phase.DOWNLOADING)
            self._have(run, camera.read_image(plate.target, self._progress(run, len(plate.target))), plate)

    def _high_speed(self, run: Run, camera: Camera) -> None:
        if self._around.backlog():
            self._post(run, self._high_speed, BACKLOG_INTERVAL)
            return
        with self._around.plate(run.exposure.geometry) as plate:
            camera.settle_gain(run.exposure.geometry)  # before the facts for the header are noted
            run.opened, run.opened_wall = time.monotonic(), time.time()
            self._around.opened(run)
            progress = self._progress(run, len(plate.target))
            self._have(run, camera.expose_hsr(run.exposure, plate.target, progress), plate)

    def _progress(self, run: Run, total: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            self._around.transferring()
            with self._lock:
                if self._run is run:
                    self._phase.enter(Phase.DOWNLOADING)
                    self._phase.downloaded(done, total)

        return tell

    def _have(self, run: Run, image: Image, plate: Plate) -> None:
        with self._lock:
            if self._run is not run:
                return
            self._continue_series(run)
        self._around.deliver(run, image, plate)

    def _continue_series(self, run: Run) -> None:
        """In fast mode: this one is done, the next begins."""
        left = int(self.fast_count["FRAMES"]) - 1
        if not self.fast["INDI_ENABLED"] or left < 1:
            return
        run.continued = True
        self.fast_count.set({"FRAMES": left}, state=State.BUSY)
        self.exposure.set({VALUE: 0}, state=State.OK)
        self._begin(Run(run.exposure, run.frame_type, time.monotonic()))

    def _enter(self, run: Run, phase: Phase) -> None:
        with self._lock:
            if self._run is run:
                self._phase.enter(phase)
                if self._camera is not None:
                    self._camera.session.flight.note("phase", phase.value)

    def _failed(self, run: Run, error: Exception) -> None:
        phase = self._phase.phase.value.lower()
        reason = f"The exposure failed ({phase}): {explain(error)}"
        camera = self._camera
        if camera is not None and self._run is run:
            camera.session.failed("exposure", reason)
        self.fail(run, reason)
        if not isinstance(error, Disconnected):
            self._post_abort()  # the camera may still be exposing

    # --- the end of a run ---

    def fail(self, run: Run, reason: str) -> None:
        """The run ends without a picture. Any thread."""
        with self._lock:
            if self._run is run:
                self._conclude(State.ALERT, reason)
            elif run.continued:
                self.exposure.set(message=reason, level=Level.ERROR)

    def finished(self, run: Run, send: Callable[[], None]) -> None:
        """The picture is there: `send` it, unless the run has ended otherwise meanwhile. Any thread."""
        with self._lock:
            if self._run is run:
                send()
                self._conclude(State.OK)
            elif run.continued:
                send()

    def _conclude(self, state: State, message: str | None = None) -> None:
        self._forget()
        self._phase.enter(Phase.IDLE)
        if self.fast_count.state is State.BUSY:
            self.fast_count.set({"FRAMES": 1}, state=State.IDLE)
        self.exposure.set({VALUE: 0}, state=state, message=message, level=Level.ERROR)

    def _forget(self) -> None:
        self._run = self._preparing = None
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _post_abort(self) -> None:
        def work() -> None:
            if self._camera is not None:
                self._abort_camera(self._camera)

        self._thread.post(Priority.ABORT, work)

    def _abort_camera(self, camera: Camera) -> None:
        from usbproto.packets import CameraState, TriggerMode

        if self._around.trigger() != NO_TRIGGER and camera.state().state == CameraState.WAITING_FOR_TRIGGER:
            camera.set_trigger(TriggerMode.END_LONG_WAIT)
        else:
            camera.abort_exposure()
            _initialised(camera)


def _readout(run: Run, camera: Camera) -> tuple[Geometry, bool]:
    """What decides how long a readout takes."""
    return run.exposure.geometry, camera.settings.fast_readout


def _initialised(camera: Camera) -> bool:
    """Whether the camera was in its error state, and has been taken out of it."""
    from usbproto.packets import CameraState

    if camera.state().state != CameraState.ERROR:
        return False
    camera.initialise()
    return True
