# SPDX-License-Identifier: LGPL-2.1-or-later
"""From an image in memory to a file, at the clients or on the disk: the frame thread.

Making a file takes some milliseconds, compressing and saving it much longer; a guide pulse must not wait for
that, so it is not the camera thread's work.

A picture that is to be saved is written before anything is told: CCD_FILE_PATH, then CCD1, then CCD_EXPOSURE.
One that cannot be saved goes to the clients in any mode, and CCD_EXPOSURE ends as Alert.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from indi_qsi.device import compression, files
from indi_qsi.device.subject import IMAGE_INFO, Subject, explain
from indi_qsi.device.upload import Mode, Plan, UploadSubject
from indi_qsi.properties import BlobElement, BlobVector, Level, Vector
from usbproto.errors import QsiError

if TYPE_CHECKING:
    from indi_qsi.device.plate import Plate
    from indi_qsi.device.run import Run
    from indi_qsi.fits import Card
    from indi_qsi.links.frame import Frame
    from usbproto.camera import Image

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # s, advisory
BLOB = "CCD1"
STOP_TIME = 5.0  # s
# The largest file takes 20 s on a slow USB stick; a disk that needs three times that does not answer.
LIMIT = 60.0  # s
# Bytes of a header with what is always in it; until the first picture tells better.
USUAL_HEADER = 2 * 2880


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image on its way into a file."""

    run: Run
    image: Image
    plate: Plate
    latest: float  # monotonic: then the run ends as failed


class NotSaved(QsiError):
    """The picture went to the clients, because it could not be saved."""


class HeaderMaker(Protocol):
    """Makes the records of headers."""

    def cards(self, run: Run, image: Image) -> list[Card]:
        """Those of the image of a run. Frame thread."""


class DeliverySubject(Subject):
    """CCD1, and the thread that fills it.

    `header` makes the header's records. Each run is ended by its owner: what the sending raises passes
    through `finished` and leaves the run to `fail`. A picture that takes more than `limit` seconds ends its
    run as failed.
    """

    def __init__(self, header: HeaderMaker, upload: UploadSubject, limit: float = LIMIT) -> None:
        self._header = header
        self._upload = upload
        self._limit = limit
        self._header_size = USUAL_HEADER  # of the last picture: the next one's is hardly ever another
        # One picture in the making, and one that waits; nobody delivers more before.
        self._waiting: Picture | None = None
        self._unfinished: list[Picture] = []  # of these two, what may still be in time
        self._stopping = False
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._limited = threading.Condition(lock)
        self._looks_at = math.inf  # when the clock looks next, monotonic
        self._thread = threading.Thread(target=self._serve, name="frames", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="frame clock", daemon=True).start()
        self.blob = BlobVector(BLOB, "Image Data", IMAGE_INFO, (BlobElement(BLOB, "Image"),), timeout=TIMEOUT)

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.blob,)

    def disconnect(self) -> None:
        from indi_qsi.links.frame import spare

        spare.drop()

    @property
    def backlog(self) -> bool:
        """Whether a picture waits already."""
        return self._waiting is not None

    def plate(self, run: Run) -> Plate:
        """Memory for the image of a run, which is to be read now. Raises `QsiError` when there is none."""
        from indi_qsi.device.plate import Plate

        geometry, plan = run.exposure.geometry, run.plan
        if plan.mode is not Mode.LOCAL:
            self.blob.make_room(geometry.bytes)
        try:
            return Plate(geometry, self._header_size, plan.suffix)
        except OSError as error:
            raise QsiError(
                f"There is no memory for a picture of {geometry.bytes / 1e6:.0f} MB ({error.strerror})",
                "End other programs, or take a smaller frame",
            ) from error

    def deliver(self, run: Run, image: Image, plate: Plate) -> None:
        """Takes over the image, which lies in the plate; the run's end is told by `finished` or `fail`.

        Never waits. Not to be called while there is a `backlog`.
        """
        picture = Picture(run, image, plate.hold(), time.monotonic() + self._limit)
        with self._changed:
            self._waiting = picture
            self._unfinished.append(picture)
            self._changed.notify()
            if picture.latest < self._looks_at:
                self._limited.notify()

    def stop(self) -> None:
        """Ends the thread after what it has at hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            self._limited.notify()
        self._thread.join(STOP_TIME)
        if self._thread.is_alive():
            log.error("a picture was not saved or sent within %.0f s", STOP_TIME)

    # --- the frame clock ---

    def _watch(self) -> None:
        while (late := self._late()) is not None:
            # Nothing can end a write to a disk that hangs; but the run ends, and the next one gets its turn.
            late.owner.fail(
                late,
                f"The picture was not saved and sent within {self._limit:g} s; "
                "does the disk of UPLOAD_DIR answer?",
            )

    def _late(self) -> Run | None:
        """The run of the next picture that is not finished in time, waited for; None at the end of all."""
        with self._limited:
            while not self._stopping:
                # Who finishes one does not tell: with each picture it would wake this thread up for nothing.
                self._looks_at = self._unfinished[0].latest if self._unfinished else math.inf
                remaining = self._looks_at - time.monotonic()
                if remaining <= 0:
                    late = self._unfinished.pop(0)
                    if self._waiting is late:
                        self._waiting = None
                        late.plate.release()
                    return late.run
                self._limited.wait(None if remaining == math.inf else remaining)
            return None

    # --- the frame thread ---

    def _serve(self) -> None:
        while (picture := self._next()) is not None:
            try:
                self._make(picture)
            except NotSaved as error:
                picture.run.owner.fail(picture.run, error.explain())
            except Exception as error:
                log.exception("a picture could not be made into a file")
                picture.run.owner.fail(
                    picture.run, f"The picture could not be made into a file: {explain(error)}"
                )
            with self._changed:
                if picture in self._unfinished:
                    self._unfinished.remove(picture)
            picture.plate.release()
            del picture  # as long as somebody looks at its memory, that cannot be used again

    def _next(self) -> Picture | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
            picture, self._waiting = self._waiting, None
            return picture

    def _make(self, picture: Picture) -> None:
        plan = picture.run.plan
        with self._frame(picture) as frame:
            saved, problem = self._save(picture, frame)
            if saved is not None and plan.mode is Mode.LOCAL:
                self._tell(picture.run, saved)
                return
            with self._to_send(plan, frame) as sent:
                self._tell(picture.run, saved, sent, problem)

    def _frame(self, picture: Picture) -> Frame:
        if picture.run.plan.native:
            return picture.plate.native(picture.image)
        cards = self._header.cards(picture.run, picture.image)
        frame, self._header_size = picture.plate.fits(picture.image, cards)
        return frame

    def _save(self, picture: Picture, frame: Frame) -> tuple[files.Saved | None, NotSaved | None]:
        if picture.run.plan.mode is Mode.CLIENT:
            return None, None
        run = picture.run
        assert run.opened_wall is not None  # no image without an exposure
        try:
            return picture.run.plan.save(frame.buffer, run.opened_wall + run.duration), None
        except QsiError as error:
            return None, NotSaved(f"{error.explain()}. The picture was sent to the clients")

    def _to_send(self, plan: Plan, frame: Frame) -> Frame:
        """The frame as the clients get it, with a reference of its own."""
        if plan.compress:
            try:
                return compression.pack(frame)
            except compression.CompressionError as error:
                self._upload.compression.set(
                    message=f"{error.explain()}. The picture is sent uncompressed", level=Level.WARNING
                )
        return frame.hold()

    def _tell(
        self,
        run: Run,
        saved: files.Saved | None,
        frame: Frame | None = None,
        problem: NotSaved | None = None,
    ) -> None:
        told = False

        def send() -> None:
            nonlocal told
            told = True
            if saved is not None:
                self._upload.written(saved)
            if frame is not None:
                self.blob.send(BLOB, frame)
            if problem is not None:
                raise problem

        run.owner.finished(run, send)
        if saved is not None and not told:
            files.discard(saved)  # the run was aborted meanwhile
