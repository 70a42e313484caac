# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture's memory, from the USB to the clients: its pixels are received where its file has them.

So a picture is copied once, as it comes off the USB, and finished in place. Where its pixels lie depends on
the header, which is not known before the exposure is over; but nearly always it is as long as the last one.
If it is not, the file gets other memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from indi_qsi import fits
from indi_qsi.links.frame import Frame
from usbproto.frames import adjust_zero

if TYPE_CHECKING:
    from usbproto.camera import Image
    from usbproto.frames import Geometry

FITS, NATIVE = ".fits", ".bin"


class Plate:
    """Memory for one picture, with room for a header of `header_size` bytes before its pixels.

    `target` takes the pixels. Whoever makes a plate gives it back by `release`, or by leaving a `with` block.
    Raises OSError when there is no memory.
    """

    def __init__(self, geometry: Geometry, header_size: int, format: str) -> None:
        start = 0 if format == NATIVE else header_size
        size = geometry.bytes if format == NATIVE else fits.file_size(header_size, geometry.shape)
        self._frame = Frame(size, format, used=True)
        self.target = self._frame.buffer[start : start + geometry.bytes]

    def hold(self) -> Plate:
        """Takes one more reference."""
        self._frame.hold()
        return self

    def release(self) -> None:
        """Gives a reference back."""
        self._frame.release()

    def __enter__(self) -> Plate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def fits(self, image: Image, cards: Sequence[fits.Card]) -> tuple[Frame, int]:
        """The image as a FITS file, and the size of its header. The pixels of `image` are its no more."""
        header = fits.render_header(image.geometry.shape, cards)
        with self._memory(fits.file_size(len(header), image.geometry.shape), FITS) as frame:
            fits.write_file(frame.buffer, header, image.pixels, image.adjustment)
            frame.seal()
            return frame.hold(), len(header)

    def native(self, image: Image) -> Frame:
        """The image as its bare pixels, row by row from the top, little-endian; auto-zero applied.

        The pixels of `image` are its no more.
        """
        with self._memory(image.geometry.bytes, NATIVE) as frame:
            adjust_zero(image.pixels, image.adjustment)
            if frame is not self._frame:
                frame.buffer[:] = image.pixels.tobytes()
            frame.seal()
            return frame.hold()

    def _memory(self, size: int, format: str) -> Frame:
        """Our own if it is as the file wants it, or else other."""
        if (self._frame.size, self._frame.format) == (size, format):
            return self._frame.hold()
        return Frame(size, format, used=True)
