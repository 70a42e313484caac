# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware files as they are downloaded: a hex file, or a zip with hex files in it. Pure; writes nothing.

A zip may be made to lie: about sizes, names, or how much comes out of it. Everything is read into memory
under the limits below, and names are only shown, yet a zip with tricks is not trusted with the rest either.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass

from qsi_tools.firmware import ihex
from qsi_tools.firmware.errors import FileError, NoIdentity
from qsi_tools.firmware.ihex import HexFile
from qsi_tools.firmware.image import Image, Target, image_of

MAX_FILE = ihex.MAX_TEXT  # bytes, zip or not
MAX_MEMBERS = 64  # more than there are models
MAX_UNPACKED = 16 << 20  # bytes of all members together
SUFFIX = ".hex"

_ZIP = b"PK"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_LINK = 0o120000  # of a unix mode: a symbolic link
_FORMAT = 0o170000
_END = b"PK\x05\x06"
_END_COUNT = struct.Struct("<4s4xHH")
# What zipfile is known to raise on damaged files.
_DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True)
class HexText:
    """A sound hex file, and where it was. `image` is None when it has none of ours; `sha256` of the text."""

    name: str
    file: HexFile
    image: Image | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and where it was."""

    name: str
    image: Image


def load(name: str, data: bytes) -> list[Found]:
    """The images of a file of this name. Raises `FileError`; inside a zip, it names the member."""
    return images(read(name, data))


def images(texts: list[HexText]) -> list[Found]:
    """What may be written. Raises `NoIdentity` when any of them does not say for which camera it is."""
    found = []
    for text in texts:
        if text.image is None:
            raise NoIdentity(text.name if len(texts) > 1 else "the file")
        found.append(Found(text.name, text.image))
    return found


def read(name: str, data: bytes) -> list[HexText]:
    """The hex files in a file of this name, whatever they hold. Raises `FileError`, as `load` does."""
    if len(data) > MAX_FILE:
        raise FileError(f"the file has more than {MAX_FILE >> 20} MiB: this is no firmware file")
    if not data.startswith(_ZIP):
        return [_text(name, data)]
    try:
        members = _members(data)
    except _DAMAGED as error:
        raise FileError(f"the zip is damaged ({str(error) or type(error).__name__})") from error
    found = []
    for member, text in members:
        try:
            found.append(_text(member, text))
        except FileError as error:
            raise FileError(f"{member}: {error}") from error
    return found


def choose(found: list[Found], base_type: str, target: Target) -> Found | None:
    """The file for this camera. None when there is none for it; raises `FileError` for more than one."""
    fitting = [one for one in found if (one.image.base_type, one.image.target) == (base_type, target)]
    if len(fitting) > 1:
        raise FileError("several files in the zip are for this camera: " + ", ".join(f.name for f in fitting))
    return fitting[0] if fitting else None


def _text(name: str, text: bytes) -> HexText:
    file = ihex.parse(text)
    try:
        image = image_of(file)
    except NoIdentity:
        image = None
    return HexText(name, file, image, hashlib.sha256(text).hexdigest())


def _members(data: bytes) -> list[tuple[str, bytes]]:
    _check_count(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        for entry in entries:
            _check_entry(entry)
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise FileError("the zip has two members of one name")
        if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
            raise FileError(f"the zip would unpack to more than {MAX_UNPACKED >> 20} MiB")
        wanted = [entry for entry in entries if entry.filename.lower().endswith(SUFFIX)]
        if not wanted:
            raise FileError(f"the zip has no {SUFFIX} file")
        return [(entry.filename, _read(archive, entry)) for entry in wanted]


def _check_count(data: bytes) -> None:
    """Before zipfile makes an object of every entry."""
    at = data.rfind(_END)
    if at < 0 or len(data) < at + _END_COUNT.size:
        raise FileError("the zip is damaged (its end is missing)")
    _, here, count = _END_COUNT.unpack_from(data, at)
    if max(here, count) > MAX_MEMBERS or data.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise FileError(f"the zip has more than {MAX_MEMBERS} members")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    # `filename` is what zipfile made of it; `orig_filename` is what stands in the file.
    name = entry.orig_filename
    parts = name.split("/")
    if (
        not name
        or name.startswith("/")
        or ".." in parts
        or any(c in name for c in "\\:\0")
        or not name.isprintable()
    ):
        raise FileError(f"the zip has a member with a bad name: {name!r}")
    if (entry.external_attr >> 16) & _FORMAT == _LINK:
        raise FileError(f"{name} in the zip is a link")
    if entry.flag_bits & _ENCRYPTED:
        raise FileError(f"{name} in the zip is encrypted")
    if entry.compress_type not in _METHODS:
        raise FileError(f"{name} in the zip is packed by a method that is not taken")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Never more than it says, whatever comes out of it."""
    with archive.open(entry) as member:
        text = member.read(min(entry.file_size, ihex.MAX_TEXT) + 1)
    if len(text) != entry.file_size:
        raise FileError(f"{entry.filename} in the zip is not as large as the zip says")
    return text
