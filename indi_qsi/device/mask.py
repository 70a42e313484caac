# SPDX-License-Identifier: LGPL-2.1-or-later
"""PIXEL_MASK: bad pixels that are replaced by the zero level in every picture.

    PIXELS   12,34 2000,17           points as x,y of the unbinned sensor, from 0
    FILE     /home/me/bad-pixels     the same, one "x y" a line; # begins a comment

Both together are the mask. It belongs to a camera: the host keeps it by serial number, in `Memory`, with the
name of the file, which is read again at every connect.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.memory import Memory
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.subject import IMAGE_SETTINGS, Subject, saved_or_not
from indi_qsi.properties import Level, Permission, Request, State, TextElement, TextVector, Vector
from usbproto.errors import BadArgument

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.frames import Array

Point = tuple[int, int]

PIXELS, FILE = "PIXELS", "FILE"
SECTION = "mask"
TEXT_LENGTH = 4000  # characters; more does not fit into a request, and is better kept in a file
# Each costs a microsecond at every picture; a sensor with more of them is better served by dark frames.
MAX_PIXELS = 20_000
MAX_FILE = 1 << 20  # bytes
_COMMA = re.compile(r"\s*,\s*")
_POINT = re.compile(r"(\d{1,6})\s*[,\s]\s*(\d{1,6})", re.ASCII)


def parse_points(text: str) -> list[Point]:
    """The points of 'x,y x,y ...'. Raises `BadArgument`."""
    points = []
    for word in _COMMA.sub(",", text).split():
        match = _POINT.fullmatch(word)
        if match is None:
            raise BadArgument(f"{word[:20]!r} is not a pixel; valid are x,y x,y ... such as 12,34 2000,17")
        points.append((int(match[1]), int(match[2])))
    return points


def read_points(path: str) -> list[Point]:
    """The points of a file, one 'x y' a line. Raises `BadArgument`, which does not tell what is in it."""
    try:
        # Not to hang at a pipe; what is not a plain file is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = file.read(MAX_FILE + 1) if plain else b""
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise BadArgument(f"{path!r} is no name of a file") from error
    if not plain:
        raise BadArgument(f"{path} is not a plain file; valid is one with 'x y' in each line")
    if len(data) > MAX_FILE:
        raise BadArgument(f"{path} is larger than {MAX_FILE} bytes")
    points = []
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if not (line := line.partition("#")[0].strip()):
            continue
        match = _POINT.fullmatch(line)
        if match is None:
            raise BadArgument(f"line {number} of {path} is not a pixel; valid is one 'x y' a line")
        points.append((int(match[1]), int(match[2])))
    return points


def check_points(points: Iterable[Point], array: Array) -> Iterator[Point]:
    """The points, each once. Raises `BadArgument` for one outside the sensor, and for too many."""
    unique = dict.fromkeys(points)
    if len(unique) > MAX_PIXELS:
        raise BadArgument(f"{len(unique)} pixels are too many; at most {MAX_PIXELS} can be masked")
    for x, y in unique:
        if x >= array.columns or y >= array.rows:
            raise BadArgument(
                f"pixel {x},{y} is outside the sensor; "
                f"valid are x 0..{array.columns - 1}, y 0..{array.rows - 1}"
            )
        yield x, y


class MaskSubject(Subject):
    """Keeps the mask, and gives it to the camera."""

    def __init__(self, orders: OrderBook, memory: Memory) -> None:
        self._orders = orders
        self._memory = memory
        self._camera: Camera | None = None
        self._complaint: str | None = None
        self._vector = TextVector(
            "PIXEL_MASK",
            "Pixel Mask",
            IMAGE_SETTINGS,
            (
                TextElement(PIXELS, "Pixels (x,y x,y ...)", "", TEXT_LENGTH),
                TextElement(FILE, "File (x y a line)"),
            ),
            permission=Permission.RW,
            on_request=self._requested,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self._vector,) if self._camera is not None else ()

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._complaint = None
        kept = self._memory.get(camera.identity.serial, SECTION)
        values = {name: text if isinstance(text := kept.get(name), str) else "" for name in (PIXELS, FILE)}
        try:
            camera.pixel_mask = _mask(values, camera.array)
        except BadArgument as error:
            # The file is gone, or was changed: pictures can be taken all the same.
            self._complaint = f"No pixel is masked: {error}"
        try:
            self._vector.set(values, state=State.ALERT if self._complaint else State.IDLE)
        except ValueError:  # written by hand, with what cannot be sent
            self._vector.set(dict.fromkeys(values, ""), state=State.IDLE)

    def started(self) -> None:
        if self._complaint is not None:
            self._vector.set(state=State.ALERT, message=self._complaint, level=Level.ERROR)
            self._complaint = None

    def disconnect(self) -> None:
        self._camera = None

    def _requested(self, request: Request[str]) -> None:
        camera = self._camera
        if camera is None:
            self._vector.refuse("The camera is away; try again when it is back")
            return
        values = {name: text.strip() for name, text in request.values.items()}
        mask: list[Point] = []
        try:
            tuple(check_points(parse_points(values[PIXELS]), camera.array))
        except BadArgument as error:
            self._vector.refuse(str(error))
            return
        self._orders.submit(
            self._vector,
            lambda order: self._carry_out(order, values, tuple(mask)),
            prepare=lambda: mask.extend(_mask(values, camera.array)),  # reads a file
            disk="FILE",
        )

    def _carry_out(self, order: Order, values: dict[str, str], mask: tuple[Point, ...]) -> None:
        if self._camera is None:
            return
        self._camera.pixel_mask = mask
        self._vector.set(values)
        message = f"{len(mask)} pixels are masked"
        self._memory.put(
            self._camera.identity.serial,
            SECTION,
            values,
            lambda error: saved_or_not(order.answer, error, message=message),
        )


def _mask(values: dict[str, str], array: Array) -> tuple[Point, ...]:
    """Raises `BadArgument`."""
    points = parse_points(values[PIXELS])
    if values[FILE]:
        points += read_points(os.path.expanduser(values[FILE]))  # noqa: PTH111  (a name that is no path stays)
    return tuple(check_points(points, array))
