# SPDX-License-Identifier: LGPL-2.1-or-later
"""CCD_EXPOSURE, CCD_ABORT_EXPOSURE, CCD_FAST_TOGGLE, CCD_FAST_COUNT: one exposure after another.

    request -> Busy (duration) -> Busy (remaining, each second) -> Busy 0 -> BLOB -> Ok 0
    failure -> Alert 0        abort -> Idle 0        a request while Busy: abort, then the new one

Every exposure is an order, and a `Run` from its first command on. Whatever ends a run (the picture, a
failure, an abort, a newer request, the camera's leaving) takes it away under the lock; what comes later for
that run finds it gone and stays silent. So there is exactly one final state for each.

In fast mode the next run starts as soon as the pixels of the one before are in memory; that one is then
answered Ok, and its picture follows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from indi_qsi.device.activity import Activity, Phase
from indi_qsi.device.connection import AWAY
from indi_qsi.device.cooler import CoolerSubject
from indi_qsi.device.delivery import DeliverySubject
from indi_qsi.device.geometry import BIAS, SHUTTER_OPEN, GeometrySubject
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.panel import PanelSubject
from indi_qsi.device.phase import PhaseSubject
from indi_qsi.device.recorder import HeaderSubject
from indi_qsi.device.run import Run
from indi_qsi.device.subject import MAIN_CONTROL, OPTIONS, Subject, explain
from indi_qsi.device.upload import Mode, UploadSubject
from indi_qsi.device.worker import CameraThread, Job, Priority
from indi_qsi.properties import (
    Answer,
    Device,
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
from usbproto.errors import BadArgument, Disconnected, ProtocolError, QsiError, Refused, TimedOut
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
# The slowest readout (9 million pixels at 800 kHz) takes 12 s; one of five times that is stuck.
READOUT_LIMIT = 60.0  # s
NO_TRIGGER = "TRIGGER_OFF"


class ExposureSubject(Subject):
    """Starts, watches and ends exposures.

    `renew` sends the camera its settings again if it may have forgotten them.
    """

    def __init__(
        self,
        thread: CameraThread,
        orders: OrderBook,
        activity: Activity,
        device: Device,
        *,
        geometry: GeometrySubject,
        phase: PhaseSubject,
        panel: PanelSubject,
        cooler: CoolerSubject,
        upload: UploadSubject,
        header: HeaderSubject,
        delivery: DeliverySubject,
        renew: Callable[[], None],
    ) -> None:
        self._thread = thread
        self._orders = orders
        self._activity = activity
        self._device = device
        self._geometry = geometry
        self._phase = phase
        self._panel = panel
        self._cooler = cooler
        self._upload = upload
        self._header = header
        self._delivery = delivery
        self._renew = renew
        self._camera: Camera | None = None
        self._run: Run | None = None
        self._newest: Order | None = None  # of those for which all is ready
        self._aborts = False  # the camera is to end an exposure that is over for the clients
        self._lock = threading.RLock()
        self._job: Job | None = None  # the next step
        activity.exposures = self
        panel.applied.append(self.show_limits)
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
        return (self.fast, self.fast_count, self.exposure, self.abort)

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.fast,)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._aborts = self._activity.ending_wait = False
        self.show_limits(camera)
        self.exposure.set({VALUE: 0}, state=State.IDLE)
        self.abort.set({"ABORT": False}, state=State.IDLE)
        self.fast_count.set({"FRAMES": 1}, state=State.IDLE)

    def show_limits(self, camera: Camera) -> None:
        """Shows the valid range, which depends on the settings. The state stays as it is."""
        limits = camera.min_exposure, camera.max_exposure
        if self.exposure.limits(VALUE) != limits:
            self.exposure.set_limits(VALUE, minimum=limits[0], maximum=limits[1])

    def leave(self, camera: Camera) -> None:
        if self._run is not None or self._aborts:
            self._abort_camera(camera)

    def lost(self) -> None:
        self._end("The camera was lost during the exposure")

    def disconnect(self) -> None:
        self._end("The camera was disconnected during the exposure")

    def _end(self, reason: str) -> None:
        with self._lock:
            if self.exposure.pending:
                self._conclude_all(State.ALERT, f"{reason} ({self._phase.phase.value.lower()})")
            self._end_series()
        if self.abort.pending:
            self.abort.end_all(State.ALERT, message=reason)
        self._camera = None

    def back(self, camera: Camera) -> None:
        self._camera = camera
        self._aborts = self._activity.ending_wait = False

    # --- for others ---

    @property
    def asked(self) -> bool:
        """Whether an exposure was asked for and has not ended. Any thread."""
        return self.exposure.pending

    def end_wait(self, reason: str) -> None:
        """Ends the wait for a trigger, and its exposure as failed for this reason. Camera thread."""
        with self._lock:
            if self._run is None or not self._activity.waiting_for_trigger:
                return
            self._conclude(self._run, State.ALERT, reason)
        if self._camera is not None:
            self._abort_camera(self._camera)

    # --- requests ---

    def _requested(self, request: Request[float]) -> None:
        try:
            run = self._new_run(request.values[VALUE])
        except QsiError as error:
            self.exposure.refuse(explain(error))
            return
        saves = run.plan.mode is not Mode.CLIENT
        self._orders.submit(
            self.exposure,
            lambda order: self._begin(run, order),
            # The one that runs goes on until all is ready for this one.
            values=None if saves and self._run is not None else {VALUE: run.duration},
            failed=lambda order, error: self._order_failed(run, order, error),
            prepare=run.plan.prepare if saves else None,
            prepared=self._take_place,
            disk="UPLOAD_DIR",
        )

    def _new_run(self, duration: float) -> Run:
        """Raises `BadArgument`."""
        from usbproto.camera import Exposure

        camera = self._camera
        if camera is None:
            raise AWAY
        frame_type = self._geometry.frame_type.selected or BIAS
        valid = f"valid range {camera.min_exposure:g}..{camera.max_exposure:g} s"
        if frame_type == BIAS:
            duration = 0.0
        elif duration == 0:
            raise BadArgument(f"an exposure of 0 s is a bias: choose that frame type; {valid}")
        try:
            camera.check_exposure(duration)
        except BadArgument:
            # Settings that are on their way may allow a shorter one; if they do not, its start fails.
            if not (0 < duration < camera.min_exposure and self._panel.unsettled):
                raise
        exposure = Exposure(duration, self._geometry.fitted(), frame_type in SHUTTER_OPEN)
        return Run(self, exposure, frame_type, self._upload.plan(), self._header.records())

    def _take_place(self, order: Order) -> None:
        """All is ready for an exposure: it replaces those that were asked for earlier. Any thread."""
        with self._lock:
            earlier = self._orders.withdraw(self.exposure, before=order)
            if earlier is None:
                return  # it was withdrawn itself
            self._newest = order
            for older in earlier:
                older.answer.superseded()
            self._end_series()
            run = self._run
            if run is not None:
                self._post_abort()
                self._forget()
        if run is not None and run.answer is not None:
            run.answer.superseded()

    def _abort_requested(self, request: Request[bool]) -> None:
        self._device.drop_held(self.exposure.name)
        with self._lock:
            running = self._run is not None
            self._orders.withdraw(self.exposure)
            if running:
                self._post_abort(self.abort.accept({"ABORT": False}))
            self._conclude_all(State.IDLE)
            if not running:
                self.abort.set({"ABORT": False}, state=State.OK)

    # --- one run, in the camera thread ---

    def _begin(self, run: Run, order: Order) -> None:
        camera = self._camera
        with self._lock:
            if camera is None or self._newest is not order:
                order.answer.superseded()
            if camera is None or not order.answer.open:
                return  # it was aborted, or replaced, in the last moment
            run.answer = order.answer
            self._set_run(run)
        self._start(run, camera)

    def _set_run(self, run: Run) -> None:
        run.asked = time.monotonic()
        self._run = run
        self._activity.exposing = True
        self.exposure.show({VALUE: run.duration}, state=State.BUSY)

    def _post(
        self,
        run: Run,
        step: Callable[[Run, Camera], None],
        delay: float = 0.0,
        priority: Priority = Priority.STEP,
    ) -> None:
        def work() -> None:
            camera = self._camera
            if self._run is run and camera is not None:
                step(run, camera)

        with self._lock:
            if self._run is run:
                self._job = self._thread.post(
                    priority, work, delay=delay, failed=lambda error: self._failed(run, error)
                )

    def _start(self, run: Run, camera: Camera) -> None:
        self._enter(run, Phase.FLUSHING)
        self._renew()
        camera.wait_for_idle()
        if self._run is not run:
            return  # it was aborted meanwhile
        # High speed readout always opens the shutter, so darks and biases are taken without it.
        # What a camera does with that and a trigger together is not known; the trigger is what waits.
        untriggered = self._panel.trigger == NO_TRIGGER
        if self._panel.high_speed and run.exposure.open_shutter and untriggered:
            self._high_speed(run, camera)
        elif untriggered:
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
            # At once: from now on next to nothing may be sent.
            self._enter(run, Phase.WAITING)
            self._wait_trigger(run, camera)

    def _wait_trigger(self, run: Run, camera: Camera) -> None:
        from usbproto.packets import CameraState

        state = camera.state().state
        self._check_trigger(state, camera)
        if state == CameraState.IDLE and not camera.left_idle:
            self._post(run, self._wait_trigger, TRIGGER_INTERVAL)  # it is not armed yet
        elif state == CameraState.WAITING_FOR_TRIGGER:
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
        self._header.capture(run)
        self._activity.closes = at + run.duration
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
        if self._delivery.backlog:
            self._post(run, self._read, BACKLOG_INTERVAL)
            return
        with self._delivery.plate(run) as plate:
            self._enter(run, Phase.DOWNLOADING)
            self._have(run, camera.read_image(plate.target, self._progress(run, len(plate.target))), plate)

    def _high_speed(self, run: Run, camera: Camera) -> None:
        if self._delivery.backlog:
            self._post(run, self._high_speed, BACKLOG_INTERVAL)
            return
        with self._delivery.plate(run) as plate:
            camera.settle_gain(run.exposure.geometry)  # before the facts for the header are noted
            run.opened, run.opened_wall = time.monotonic(), time.time()
            self._header.capture(run)
            progress = self._progress(run, len(plate.target))
            self._have(run, camera.expose_hsr(run.exposure, plate.target, progress), plate)

    def _progress(self, run: Run, total: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            self._thread.beat()
            self._cooler.repeat()
            with self._lock:
                if self._run is run:
                    self._phase.enter(Phase.DOWNLOADING)
                    self._phase.downloaded(done, total)

        return tell

    def _have(self, run: Run, image: Image, plate: Plate) -> None:
        with self._lock:
            if self._run is not run:
                return
            self._activity.exposing = False  # the camera is free; what its settings were was noted
            self._continue_series(run)
        self._delivery.deliver(run, image, plate)

    def _continue_series(self, run: Run) -> None:
        """In fast mode: this one is done, the next begins."""
        left = int(self.fast_count["FRAMES"]) - 1
        if not self.fast["INDI_ENABLED"] or left < 1:
            return
        assert run.answer is not None  # it has begun
        run.continued = True
        self.fast_count.set({"FRAMES": left}, state=State.BUSY)
        run.answer.end(State.OK, {VALUE: 0})
        following = replace(run, plan=self._upload.plan(), records=self._header.records(), continued=False)
        following.answer = self.exposure.accept({VALUE: run.duration})
        following.opened = following.opened_wall = None
        self._set_run(following)
        # Behind the orders that need no end of the series, and a poll that is due.
        self._post(following, self._start, priority=Priority.POLL)

    def _enter(self, run: Run, phase: Phase) -> None:
        with self._lock:
            if self._run is run:
                self._phase.enter(phase)
                if self._camera is not None:
                    self._camera.session.flight.note("phase", phase.value)

    def _order_failed(self, run: Run, order: Order, error: Exception) -> None:
        self._failed(run, error)
        order.answer.end(State.ALERT, {VALUE: 0}, message=explain(error))  # if it had not begun

    def _failed(self, run: Run, error: Exception) -> None:
        if self._run is not run:
            return  # it has not begun, or has ended already
        phase = self._phase.phase.value.lower()
        reason = f"The exposure failed ({phase}): {explain(error)}"
        if self._camera is not None:
            self._camera.session.failed("exposure", reason)
        if not isinstance(error, Disconnected):
            self._post_abort()  # the camera may still be exposing
        self.fail(run, reason)

    # --- the end of a run ---

    def fail(self, run: Run, reason: str) -> None:
        """The run ends without a picture. Any thread."""
        with self._lock:
            if self._run is run:
                self._conclude(run, State.ALERT, reason)
            elif run.continued:
                self.exposure.set(message=reason, level=Level.ERROR)

    def finished(self, run: Run, send: Callable[[], None]) -> None:
        """The picture is there: `send` it, unless the run has ended otherwise meanwhile. Any thread."""
        with self._lock:
            if self._run is run:
                send()
                self._conclude(run, State.OK)
            elif run.continued:
                send()

    def _conclude(self, run: Run, state: State, message: str | None = None) -> None:
        self._end_series()
        self._forget()
        assert run.answer is not None  # it has begun
        run.answer.end(state, {VALUE: 0}, message=message)

    def _conclude_all(self, state: State, message: str | None = None) -> None:
        """Ends the run and all that was asked for; sent even if there was nothing."""
        self._end_series()
        self._forget()
        self.exposure.end_all(state, {VALUE: 0}, message=message)

    def _end_series(self) -> None:
        if self.fast_count.state is State.BUSY:
            self.fast_count.set({"FRAMES": 1}, state=State.IDLE)

    def _forget(self) -> None:
        """The run is over: the requests that wait for its end may go."""
        self._run = None
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._phase.enter(Phase.IDLE)
        self._activity.exposing = False
        self._activity.closes = None
        self._thread.wake()

    def _post_abort(self, answer: Answer[bool] | None = None) -> None:
        """Has the camera's exposure ended before anything else; `answer`: a client asked for it.

        To be called while the run is still there: what waits for its end must not go before the abort.
        """
        self._aborts = True
        self._activity.ending_wait = self._activity.waiting_for_trigger

        def work() -> None:
            if self._camera is not None:
                self._abort_camera(self._camera)
            if answer is not None:
                answer.end(State.OK)

        def failed(error: Exception) -> None:
            self._activity.ending_wait = False
            if answer is not None:
                answer.end(State.ALERT, message=f"The exposure could not be aborted: {explain(error)}")

        self._thread.post(Priority.URGENT, work, failed=failed)

    def _abort_camera(self, camera: Camera) -> None:
        from usbproto.packets import CameraState, TriggerMode

        armed = self._panel.trigger != NO_TRIGGER
        if armed and camera.state().state == CameraState.WAITING_FOR_TRIGGER:
            camera.set_trigger(TriggerMode.END_LONG_WAIT)
        else:
            camera.abort_exposure()
            _initialised(camera)
        self._aborts = self._activity.ending_wait = False


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
