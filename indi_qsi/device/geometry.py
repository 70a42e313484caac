# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is read from the sensor: frame, binning, frame type, and the sensor's own figures.

CCD_FRAME stays in unbinned sensor pixels. Clients send frame and binning in either order, so both are stored
as they come and fitted to the sensor when an exposure starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.subject import IMAGE_INFO, IMAGE_SETTINGS, Subject
from indi_qsi.properties import (
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
from usbproto.errors import BadArgument

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.frames import Array, Geometry

TIMEOUT = 60.0  # s; advisory, as other camera drivers say it
BITS_PER_PIXEL = 16

LIGHT, BIAS, DARK, FLAT = "FRAME_LIGHT", "FRAME_BIAS", "FRAME_DARK", "FRAME_FLAT"
FRAME_NAMES = {LIGHT: "Light", BIAS: "Bias", DARK: "Dark", FLAT: "Flat"}
SHUTTER_OPEN = frozenset({LIGHT, FLAT})


class GeometrySubject(Subject):
    """CCD_FRAME, CCD_BINNING, CCD_INFO, CCD_FRAME_TYPE."""

    def __init__(self) -> None:
        self._array: Array | None = None
        self.frame = NumberVector(
            "CCD_FRAME",
            "Frame",
            IMAGE_SETTINGS,
            (
                NumberElement("X", "Left", 0, "%4.0f", 0, 1),
                NumberElement("Y", "Top", 0, "%4.0f", 0, 1),
                NumberElement("WIDTH", "Width", 1, "%4.0f", 1, 2),
                NumberElement("HEIGHT", "Height", 1, "%4.0f", 1, 2),
            ),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_frame,
        )
        self.binning = NumberVector(
            "CCD_BINNING",
            "Binning",
            IMAGE_SETTINGS,
            (
                NumberElement("HOR_BIN", "X", 1, "%2.0f", 1, 1, 1),
                NumberElement("VER_BIN", "Y", 1, "%2.0f", 1, 1, 1),
            ),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_binning,
        )
        self.reset = SwitchVector(
            "CCD_FRAME_RESET",
            "Frame Values",
            IMAGE_SETTINGS,
            (SwitchElement("RESET", "Reset"),),
            permission=Permission.WO,
            rule=Rule.ONE_OF_MANY,
            on_request=self._reset,
        )
        self.frame_type = SwitchVector(
            "CCD_FRAME_TYPE",
            "Type",
            IMAGE_SETTINGS,
            [SwitchElement(name, label, name == LIGHT) for name, label in FRAME_NAMES.items()],
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
        )
        self.info = NumberVector(
            "CCD_INFO",
            "CCD Information",
            IMAGE_INFO,
            (
                NumberElement("CCD_MAX_X", "Max. Width", 1, "%.f", 1, 16000),
                NumberElement("CCD_MAX_Y", "Max. Height", 1, "%.f", 1, 16000),
                NumberElement("CCD_PIXEL_SIZE", "Pixel size (um)", 1, "%.2f", 1, 40),
                NumberElement("CCD_PIXEL_SIZE_X", "Pixel size X", 1, "%.2f", 1, 40),
                NumberElement("CCD_PIXEL_SIZE_Y", "Pixel size Y", 1, "%.2f", 1, 40),
                NumberElement("CCD_BITSPERPIXEL", "Bits per pixel", BITS_PER_PIXEL, "%.f", 8, 64),
            ),
            permission=Permission.RO,
            timeout=TIMEOUT,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.frame, self.reset, self.binning, self.info, self.frame_type)

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.frame, self.binning)

    def connect(self, camera: Camera) -> None:
        array = self._array = camera.array
        self.frame.set_limits("X", minimum=0, maximum=array.columns - 1)
        self.frame.set_limits("Y", minimum=0, maximum=array.rows - 1)
        self.frame.set_limits("WIDTH", minimum=1, maximum=array.columns)
        self.frame.set_limits("HEIGHT", minimum=1, maximum=array.rows)
        self.frame.set(self._full(array), state=State.IDLE)
        self.binning.set_limits("HOR_BIN", maximum=array.max_bin_x)
        self.binning.set_limits("VER_BIN", maximum=array.max_bin_y)
        self.binning.set({"HOR_BIN": 1, "VER_BIN": 1}, state=State.IDLE)
        # Another client may have left it at Dark, and a guiding program never sets it.
        self.frame_type.select(LIGHT, state=State.IDLE)
        details = camera.details
        self.info.set(
            {
                "CCD_MAX_X": array.columns,
                "CCD_MAX_Y": array.rows,
                "CCD_PIXEL_SIZE": details.pixel_width,
                "CCD_PIXEL_SIZE_X": details.pixel_width,
                "CCD_PIXEL_SIZE_Y": details.pixel_height,
            },
            state=State.IDLE,
        )

    def back(self, camera: Camera) -> None:
        """It is the same sensor: frame and binning stay as they are."""
        self._array = camera.array

    def fitted(self) -> Geometry:
        """What the camera is to read now. Raises `BadArgument` when frame and binning do not go together."""
        if self._array is None:
            raise RuntimeError("no camera was ever connected")
        f, b = self.frame.values, self.binning.values
        return self._array.fit(
            int(f["X"]),
            int(f["Y"]),
            int(f["WIDTH"]),
            int(f["HEIGHT"]),
            int(b["HOR_BIN"]),
            int(b["VER_BIN"]),
        )

    @staticmethod
    def _full(array: Array) -> dict[str, float]:
        return {"X": 0, "Y": 0, "WIDTH": array.columns, "HEIGHT": array.rows}

    def _reset(self, request: Request[bool]) -> None:
        assert self._array is not None  # the vector is only defined while connected
        self.binning.set({"HOR_BIN": 1, "VER_BIN": 1}, state=State.OK)
        self.frame.set(self._full(self._array), state=State.OK)
        self.reset.select(None, state=State.OK)

    def _set_frame(self, request: Request[float]) -> None:
        # Clients send 1280.0000000000001 for 1280.
        f = {name: round(value) for name, value in request.values.items()}
        for origin, size in (("X", "WIDTH"), ("Y", "HEIGHT")):
            _, whole = self.frame.limits(size)
            if request.link is None:  # from a config file, maybe another camera's: cut to this sensor
                f[size] = min(f[size], int(whole) - f[origin])
            if f[origin] + f[size] > whole:
                self.frame.refuse(
                    f"{origin} {f[origin]} + {size} {f[size]} leaves the sensor; "
                    f"valid range of {size} there: 1..{int(whole) - f[origin]}"
                )
                return
        self.frame.set(f, state=State.OK)

    def _set_binning(self, request: Request[float]) -> None:
        x, y = round(request.values["HOR_BIN"]), round(request.values["VER_BIN"])
        assert self._array is not None  # the vector is only defined while connected
        try:
            self._array.check_binning(x, y)
        except BadArgument as error:
            self.binning.refuse(str(error))
            return
        self.binning.set({"HOR_BIN": x, "VER_BIN": y}, state=State.OK)
