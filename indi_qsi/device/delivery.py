# SPDX-License-Identifier: LGPL-2.1-or-later
"""From an image in memory to a FITS file at the clients: the frame thread.

Making a file takes some ten milliseconds, during which a guide pulse must not wait; so it is not the camera
thread's work.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from indi_qsi.device.geometry import DARK, FRAME_NAMES
from indi_qsi.device.subject import IMAGE_INFO, Subject, explain
from indi_qsi.properties import BlobElement, BlobVector, Vector
from indi_qsi.version import VERSION

if TYPE_CHECKING:
    from indi_qsi.device.exposure import Run
    from indi_qsi.fits import Card
    from usbproto.camera import Camera, Image, Temperatures

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # s, advisory
BLOB = "CCD1"
FORMAT = ".fits"
# One picture in the making and one that waits; the camera thread makes no more before.
WAITING = 1
STOP_TIME = 5.0  # s


class DeliverySubject(Subject):
    """CCD1, and the thread that fills it.

    `finished` ends a run well (with something to send), `fail` badly; `measured` gives the last temperatures.
    """

    def __init__(
        self,
        device_name: str,
        finished: Callable[[Run, Callable[[], None]], None],
        fail: Callable[[Run, str], None],
        measured: Callable[[], Temperatures | None],
    ) -> None:
        self._device_name = device_name
        self._finished = finished
        self._fail = fail
        self._measured = measured
        self._camera: Camera | None = None
        self._work: queue.Queue[tuple[Run, Image, list[Card]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._serve, name="frames", daemon=True)
        self._thread.start()
        self.blob = BlobVector(BLOB, "Image Data", IMAGE_INFO, (BlobElement(BLOB, "Image"),), timeout=TIMEOUT)

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.blob,)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        # astropy is slow to import: now, in this thread's time, rather than when the first picture waits.
        threading.Thread(target=_import_astropy, name="import", daemon=True).start()

    def disconnect(self) -> None:
        self._camera = None

    def deliver(self, run: Run, image: Image) -> None:
        """Takes over the image; the run's end is told by `finished` or `fail`. Camera thread."""
        assert self._camera is not None
        self._work.put((run, image, header_cards(self._device_name, run, self._camera, self._measured())))

    def stop(self) -> None:
        """Ends the thread after what it has at hand."""
        self._work.put(None)
        self._thread.join(STOP_TIME)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            run, image, cards = item
            try:
                self._make(run, image, cards)
            except Exception as error:
                log.exception("a picture could not be made into a file")
                self._fail(run, f"The picture could not be made into a file: {explain(error)}")
            del item, run, image, cards  # they keep the picture's memory

    def _make(self, run: Run, image: Image, cards: list[Card]) -> None:
        from indi_qsi import fits
        from indi_qsi.links.frame import Frame

        header = fits.render_header(image.geometry.shape, cards)
        frame = Frame(fits.file_size(len(header), image.geometry.shape), FORMAT)
        try:
            fits.write_file(frame.buffer, header, image.pixels, image.adjustment)
            frame.seal()
            self._finished(run, lambda: self.blob.send(BLOB, frame))
        finally:
            frame.release()


def header_cards(device: str, run: Run, camera: Camera, measured: Temperatures | None) -> list[Card]:
    """The header's records but for the mandatory ones, in INDI's order."""
    from indi_qsi.fits import Card

    g, details = run.exposure.geometry, camera.details
    name = FRAME_NAMES[run.frame_type]
    assert run.opened_wall is not None  # no image without an exposure
    return [
        Card("ROWORDER", "TOP-DOWN", "row order"),
        Card("INSTRUME", device, "camera name"),
        Card("CAMMODEL", camera.identity.model, "camera model"),
        Card("EXPTIME", run.duration, "[s] total exposure time"),
        Card("DARKTIME", run.duration if run.frame_type == DARK else None, "[s] dark exposure time"),
        Card("CCD-TEMP", measured.ccd if measured else None, "[degC] CCD temperature"),
        Card("PIXSIZE1", details.pixel_width, "[um] pixel size X, unbinned"),
        Card("PIXSIZE2", details.pixel_height, "[um] pixel size Y, unbinned"),
        Card("XBINNING", g.bin_x, "binning X"),
        Card("YBINNING", g.bin_y, "binning Y"),
        Card("XPIXSZ", details.pixel_width * g.bin_x, "[um] pixel size X, binned"),
        Card("YPIXSZ", details.pixel_height * g.bin_y, "[um] pixel size Y, binned"),
        Card("XORGSUBF", g.x, "frame origin X in binned pixels"),
        Card("YORGSUBF", g.y, "frame origin Y in binned pixels"),
        Card("FRAME", name, "frame type"),
        Card("IMAGETYP", f"{name} Frame", "frame type"),
        Card("EGAIN", camera.electrons_per_adu, "[e-/ADU] gain"),
        Card("DATE-OBS", fits_time(run.opened_wall), "UTC, start of the exposure"),
        Card("DATE-END", fits_time(run.opened_wall + run.duration), "UTC, end of the exposure"),
        Card("SWCREATE", f"indi-qsi {VERSION}", "program that made this file"),
    ]


def fits_time(unix: float) -> str:
    """UTC as FITS wants it: no zone, milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")


def _import_astropy() -> None:
    import astropy.io.fits  # noqa: F401
