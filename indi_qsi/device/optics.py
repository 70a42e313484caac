# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the user says of optics and sensor for the headers: SCOPE_INFO, WCS_CONTROL, CCD_ROTATION, CCD_CFA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.subject import IMAGE_INFO, OPTIONS, Subject
from indi_qsi.properties import (
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
    Vector,
)

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.identity import Identity

TIMEOUT = 60.0  # s, advisory
WCS = "WCS"
ENABLE, DISABLE = "WCS_ENABLE", "WCS_DISABLE"
FOCAL_LENGTH, APERTURE, ANGLE = "FOCAL_LENGTH", "APERTURE", "CCD_ROTATION_VALUE"
OFFSET_X, OFFSET_Y, PATTERN = "CFA_OFFSET_X", "CFA_OFFSET_Y", "CFA_TYPE"
PATTERN_SIZE = 2  # pixels each way


def is_colour(identity: Identity) -> bool:
    """Whether the sensor has a colour mask: a 'c' after the model's digits (583c, 583ci, 683cwsg)."""
    names = (identity.model_number, identity.marketing_model or "")
    return any("c" in name.lower().lstrip("0123456789")[:1] for name in names)


class OpticsSubject(Subject):
    """`define` and `remove` show and hide a vector: CCD_ROTATION is there while WCS is enabled."""

    def __init__(self, define: Callable[[Vector[Any]], None], remove: Callable[[Vector[Any]], None]) -> None:
        self._define = define
        self._remove = remove
        self._colour = False
        self._angle: float | None = None
        self.scope = NumberVector(
            "SCOPE_INFO",
            "Scope",
            OPTIONS,
            (
                NumberElement(FOCAL_LENGTH, "Focal Length (mm)", 0, "%g", 0, 10000, 1),
                NumberElement(APERTURE, "Aperture (mm)", 0, "%g", 0, 3000, 1),
            ),
            permission=Permission.RW,
            state=State.OK,
            timeout=TIMEOUT,
        )
        self.wcs = SwitchVector(
            "WCS_CONTROL",
            "WCS",
            WCS,
            (SwitchElement(ENABLE, "Enable"), SwitchElement(DISABLE, "Disable", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._set_wcs,
        )
        self.rotation = NumberVector(
            "CCD_ROTATION",
            "Orientation",
            WCS,
            (NumberElement(ANGLE, "Angle", 0, "%.2f", -360, 360, 1),),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_rotation,
        )
        # Which colour comes first is in no table that we could trust, so the user says it once.
        self.colours = TextVector(
            "CCD_CFA",
            "Bayer Info",
            IMAGE_INFO,
            (
                TextElement(OFFSET_X, "X Offset", "0"),
                TextElement(OFFSET_Y, "Y Offset", "0"),
                TextElement(PATTERN, "Filter", ""),
            ),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_colours,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        colours = (self.colours,) if self._colour else ()
        rotation = (self.rotation,) if self.wcs[ENABLE] else ()
        return (*colours, self.scope, self.wcs, *rotation)

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.colours, self.scope)

    def connect(self, camera: Camera) -> None:
        self._colour = is_colour(camera.identity)

    # --- what headers ask ---

    @property
    def focal_length(self) -> float | None:
        """mm; None when it was not said."""
        return self.scope[FOCAL_LENGTH] or None

    @property
    def aperture(self) -> float | None:
        """mm; None when it was not said."""
        return self.scope[APERTURE] or None

    @property
    def angle(self) -> float | None:
        """Degrees; None unless WCS is enabled and an angle was given since."""
        return self._angle

    @property
    def bayer(self) -> tuple[int, int, str] | None:
        """Offset x, y and pattern of the whole sensor; None on a mono camera or when it was not said."""
        if not (self._colour and self.colours[PATTERN]):
            return None
        return int(self.colours[OFFSET_X]), int(self.colours[OFFSET_Y]), self.colours[PATTERN]

    # --- requests ---

    def _set_wcs(self, request: Request[bool]) -> None:
        enable, was = request.values[ENABLE], self.wcs[ENABLE]
        self.wcs.select(ENABLE if enable else DISABLE, state=State.OK if enable else State.IDLE)
        if enable and not was:
            self._define(self.rotation)
        elif was and not enable:
            self._angle = None
            self._remove(self.rotation)
            self.rotation.set({ANGLE: 0}, state=State.IDLE)

    def _set_rotation(self, request: Request[float]) -> None:
        self._angle = request.values[ANGLE]
        self.rotation.set(request.values, state=State.OK)

    def _set_colours(self, request: Request[str]) -> None:
        pattern = request.values[PATTERN].upper()
        if pattern and (len(pattern) != PATTERN_SIZE**2 or not set(pattern) <= set("RGBCMY")):
            self.colours.refuse(
                f"CFA_TYPE cannot be {pattern[:20]!r}; valid are four of R, G, B, C, M, Y (RGGB), or nothing"
            )
            return
        offsets = [request.values[name] for name in (OFFSET_X, OFFSET_Y)]
        if any(offset not in ("0", "1") for offset in offsets):
            self.colours.refuse("CFA_OFFSET_X and CFA_OFFSET_Y are 0 or 1")
            return
        self.colours.set({**request.values, PATTERN: pattern}, state=State.OK)
