# SPDX-License-Identifier: LGPL-2.1-or-later
"""The conversation with the camera: find it, set it up, cool it, expose, and end cleanly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from indi_qsi.wire.messages import State
from qsi_tools.indi.client import (
    Alert,
    Client,
    ClientError,
    Interrupted,
    Missing,
    ServerGone,
    TimedOut,
)
from qsi_tools.indi.devices import CAMERA, choose, set_switch
from qsi_tools.indi.model import Blob, Vector
from qsi_tools.snap import request as limits
from qsi_tools.snap.display import Display
from qsi_tools.snap.request import Frame, Request

CONNECT_LIMIT = 60.0  # s; a camera that was just switched on takes 6 s, one that is found by retries 20
DEFINE_LIMIT = 10.0  # s after connecting
ABORT_LIMIT = 15.0  # s; the camera is told at once, unless a picture is on its way over the USB
PICTURE = "CCD1"
USUAL_NAME = "QSI CCD"  # of the camera that is meant where there are several


class Session:
    """One camera of one server."""

    def __init__(self, client: Client, display: Display, device: str | None) -> None:
        """Finds the camera. Raises `Missing`."""
        self._client = client
        self._display = display
        display.show("connecting", client.server)
        client.get_properties()
        self.device = choose(client, device, CAMERA, USUAL_NAME)
        client.model.on_note.append(lambda note: self._note(note.device, note.text))
        self._blobs: list[Blob] = []
        client.model.on_blob.append(self._took)

    def _note(self, device: str, text: str) -> None:
        if device in ("", self.device):
            self._display.say(f"  {device or 'server'}: {text}")

    def _took(self, blob: Blob) -> None:
        if blob.device == self.device and blob.vector == PICTURE:
            self._blobs.append(blob)

    # --- what there is ---

    def _vector(self, name: str) -> Vector:
        return self._client.vector(self.device, name)

    def _there(self, name: str) -> Vector | None:
        return self._client.model.vector(self.device, name)

    def number(self, name: str, element: str) -> float | None:
        """A number that may not be there."""
        vector = self._there(name)
        return vector.number(element) if vector is not None else None

    @property
    def filter(self) -> str | None:
        """The name of the filter, or its number, if there is a wheel."""
        slot = self.number("FILTER_SLOT", "FILTER_SLOT_VALUE")
        if slot is None:
            return None
        names = self._there("FILTER_NAME")
        name = names.values.get(f"FILTER_SLOT_NAME_{slot:.0f}") if names is not None else None
        return name or f"{slot:.0f}"

    # --- getting ready ---

    def connect(self) -> None:
        """Connects the camera if it is not. Raises `ClientError`."""
        connection = self._client.vector(self.device, "CONNECTION", DEFINE_LIMIT)
        if not connection.on("CONNECT"):
            self._client.change(
                connection,
                {"CONNECT": "On"},
                CONNECT_LIMIT,
                lambda vector: vector.on("CONNECT") and vector.state is not State.BUSY,
            )
        exposure = self._client.vector(self.device, "CCD_EXPOSURE", DEFINE_LIMIT)
        self._client.vector(self.device, PICTURE, DEFINE_LIMIT)
        # There is no sign that all has been defined.
        self._client.settle(0.3, DEFINE_LIMIT)
        if exposure.state is State.BUSY:
            raise Alert(f"{self.device} is taking a picture for somebody else: wait, or abort it there")
        self._client.enable_blobs(self.device)

    def set_up(self, request: Request) -> None:
        """Settings, frame, binning, type, filter. Raises `ClientError`."""
        self._display.show("setting up")
        self._check(request)
        for name, element, value in request.settings:
            self._client.change(self._vector(name), {element: value})
        if request.full_frame:
            self._full_frame()
        if request.binning is not None:
            across, down = request.binning
            self._client.change(self._vector("CCD_BINNING"), {"HOR_BIN": across, "VER_BIN": down})
        if request.frame is not None:
            self._set_frame(request.frame)
        set_switch(self._client, self._vector("CCD_FRAME_TYPE"), limits.FRAME_TYPES[request.frame_type])
        if request.filter is not None:
            self._set_filter(request.filter, request.filter_device or self.device)

    def _check(self, request: Request) -> None:
        """What can be known before anything is changed."""
        low, high = self._vector("CCD_EXPOSURE").limits.get("CCD_EXPOSURE_VALUE", (0.0, float("inf")))
        if request.frame_type != "bias" and not low <= request.seconds <= high:
            raise Alert(
                f"{self.device} cannot expose for {request.seconds:g} s; valid range {low:g}..{high:g} s"
            )
        needed = [name for name, _, _ in request.settings]
        if request.temperature is not None:
            needed.append("CCD_TEMPERATURE")
        for name in needed:
            self._vector(name)

    def _full_frame(self) -> None:
        info = self._vector("CCD_INFO")
        width, height = info.number("CCD_MAX_X"), info.number("CCD_MAX_Y")
        if width is None or height is None:
            raise Missing(f"{self.device} does not tell the size of its sensor")
        self._set_frame(Frame(0, 0, int(width), int(height)))

    def _set_frame(self, frame: Frame) -> None:
        values = {"X": frame.x, "Y": frame.y, "WIDTH": frame.width, "HEIGHT": frame.height}
        self._client.change(self._vector("CCD_FRAME"), values)

    def _set_filter(self, wanted: str, device: str) -> None:
        slot = self._client.vector(device, "FILTER_SLOT")
        names = self._client.model.vector(device, "FILTER_NAME")
        known = list(names.values.values()) if names is not None else []
        if wanted.isdecimal():
            number = int(wanted)
        else:
            folded = [name.casefold() for name in known]
            if wanted.casefold() not in folded:
                raise Missing(f"{device} has no filter {wanted!r}; it has {', '.join(known) or 'no names'}")
            number = folded.index(wanted.casefold()) + 1
        self._display.show("filter", wanted)
        self._client.change(
            slot,
            {"FILTER_SLOT_VALUE": number},
            limits.FILTER_LIMIT,
            lambda vector: (
                vector.state is not State.BUSY and round(vector.number("FILTER_SLOT_VALUE") or 0) == number
            ),
        )

    def cool(self, request: Request) -> None:
        """Waits for the temperature, if one is asked for. Raises `ClientError`."""
        target = request.temperature
        if target is None:
            return
        vector = self._vector("CCD_TEMPERATURE")
        start = vector.number("CCD_TEMPERATURE_VALUE")
        if vector.permission == "ro" or start is None:
            raise Missing(f"{self.device} cannot be cooled to a temperature")
        limit = request.cooling_limit
        if limit is None:
            ramp = self.number("CCD_TEMP_RAMP", "RAMP_SLOPE") or 0.0
            limit = limits.cooling_limit(start, target, ramp)
        low, high = vector.limits.get("CCD_TEMPERATURE_VALUE", (-273.15, 100.0))
        if not low <= target <= high:
            raise Alert(f"{self.device} cannot be cooled to {target:g} °C; valid range {low:g}..{high:g} °C")

        near = request.tolerance

        def show() -> None:
            if self._there("CCD_TEMPERATURE") is None:
                raise Alert(f"{self.device} was disconnected while it was cooled")
            now = self.number("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE")
            if now is not None:
                power = self.number("CCD_COOLER_POWER", "CCD_COOLER_VALUE")
                at = f" at {power:.0f} % power" if power is not None else ""
                span = abs(target - start)
                part = 1 - abs(target - now) / span if span else None
                self._display.show("cooling", f"{now:.1f} °C on the way to {target:g} °C{at}", part)

        try:
            self._client.change(
                vector,
                {"CCD_TEMPERATURE_VALUE": target},
                limit,
                lambda vector: (
                    (now := vector.number("CCD_TEMPERATURE_VALUE")) is not None and abs(now - target) <= near
                ),
                show,
            )
        except TimedOut:
            now = self.number("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE")
            at = f"{now:.1f} °C" if now is not None else "an unknown temperature"
            raise TimedOut(
                f"{self.device} has not reached {target:g} °C within {limit:.0f} s, it is at {at}; "
                "it goes on cooling. A higher temperature, the fan at full speed, or --cooling-limit help"
            ) from None

    # --- pictures ---

    @contextmanager
    def as_files_to_us(self) -> Iterator[None]:
        """Meanwhile pictures come as FITS files to this program; afterwards as they did before."""
        before: list[tuple[Vector, str]] = []
        try:
            for name, unfit, fit in (
                ("UPLOAD_MODE", "UPLOAD_LOCAL", "UPLOAD_BOTH"),
                ("CCD_TRANSFER_FORMAT", "FORMAT_NATIVE", "FORMAT_FITS"),
                ("CCD_FAST_TOGGLE", "INDI_ENABLED", "INDI_DISABLED"),
            ):
                vector = self._there(name)
                if vector is not None and vector.on(unfit) and fit in vector.values:
                    before.append((vector, unfit))
                    set_switch(self._client, vector, fit)
            yield
        finally:
            for vector, element in before:
                with suppress(ClientError):  # what went wrong before is what the user has to know
                    set_switch(self._client, vector, element)

    def expose(self, request: Request, number: int) -> Blob:
        """One picture. Whatever goes wrong, the camera does not go on exposing. Raises `ClientError`."""
        self._blobs.clear()
        exposure = self._vector("CCD_EXPOSURE")
        seconds = request.seconds
        if request.frame_type == "bias":
            seconds = max(0.0, exposure.limits.get("CCD_EXPOSURE_VALUE", (0.0, 0.0))[0])
        before = exposure.updates
        started = time.monotonic()
        of = f"{number} of {request.count}: " if request.count > 1 else ""

        def picture() -> Blob | None:
            if self._blobs:
                return self._blobs[0]
            now = self._there("CCD_EXPOSURE")
            if now is None:
                raise Alert(f"{self.device} was disconnected during the exposure")
            if now.updates > before and now.state is State.ALERT:
                raise Alert(f"{self.device} failed: {now.message or 'it does not say why'}")
            if now.updates > before + 1 and now.state is State.IDLE:
                raise Alert(f"{self.device}: the exposure was aborted by somebody else")
            return None

        def show() -> None:
            if exposure.updates > before:
                self._show(seconds, time.monotonic() - started, of)

        limit = limits.exposure_limit(seconds, self._pixels())
        try:
            self._client.ask(exposure, {"CCD_EXPOSURE_VALUE": seconds})
            return self._client.wait(picture, limit, f"{self.device}, the picture", show)
        except ServerGone:
            raise
        except ClientError as error:
            if aborted := self._abort(error):
                raise type(error)(f"{error}; {aborted}") from None
            raise

    def _pixels(self) -> int:
        """Of a whole picture, as an upper limit: binned ones have fewer."""
        width = self.number("CCD_INFO", "CCD_MAX_X") or 0
        return int(width * (self.number("CCD_INFO", "CCD_MAX_Y") or 0))

    def _show(self, seconds: float, elapsed: float, of: str) -> None:
        if (picture := self._client.picture) is not None:
            done, size = picture
            self._display.show("downloading", f"{of}{done / 1e6:.1f} of {size / 1e6:.1f} MB", done / size)
            return
        phase = self._there("EXPOSURE_PHASE")
        word = phase.values.get("PHASE", "") if phase is not None else ""
        left = self.number("CCD_EXPOSURE", "CCD_EXPOSURE_VALUE") or 0.0
        if word == "Downloading":
            percent = self.number("DOWNLOAD_PROGRESS", "PERCENT") or 0.0
            self._display.show("downloading", f"{of}{percent:.0f} % from the camera", percent / 100)
        elif word in ("Flushing", "Waiting for trigger"):
            self._display.show(word.lower(), of.rstrip(": "))
        elif word == "Reading out" or (not left and elapsed > seconds):
            self._display.show("reading", of.rstrip(": "))
        else:
            left = min(left, seconds)
            part = 1 - left / seconds if seconds else None
            self._display.show("exposing", f"{of}{left:.0f} s of {seconds:g} s left", part)

    def _abort(self, error: ClientError) -> str:
        """Ends an exposure that is running; says how that went."""
        now = self._there("CCD_EXPOSURE")
        abort = self._there("CCD_ABORT_EXPOSURE")
        if abort is None or now is None:
            return ""
        if isinstance(error, Alert) and now.state is not State.BUSY:
            return ""
        self._client.stop.clear()  # the user's Ctrl-C has been understood; this wait is for the camera
        self._display.show("aborting")
        before = now.updates
        try:
            self._client.change(abort, {"ABORT": "On"}, ABORT_LIMIT)
            self._client.wait(lambda: self._ended(before), ABORT_LIMIT, "the abort")
        except Interrupted:
            return "the exposure was told to end, and may be running still"
        except ClientError as failure:
            return f"the exposure could not be aborted: {failure}"
        return "the exposure was aborted"

    def _ended(self, before: int) -> bool:
        now = self._there("CCD_EXPOSURE")
        return now is None or (now.updates > before and now.state is not State.BUSY)
