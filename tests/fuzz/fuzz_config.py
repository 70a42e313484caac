# SPDX-License-Identifier: LGPL-2.1-or-later
"""What lies on the disk: INDI's config file, the memory of cameras, the memory of what they can do.

The first byte chooses which of them. Whatever is in a file, it is read or set aside, what was in it is kept
somewhere, and the next save works.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from indi_qsi.device.memory import FILE, Memory
from indi_qsi.properties.config import Config
from indi_qsi.properties.elements import TEXT_LENGTH
from indi_qsi.storage import Storage
from indi_qsi.wire import limits, writer
from indi_qsi.wire.messages import Kind, NewVector
from usbproto import packets as p
from usbproto.capabilities import Capabilities, FileCache, Learnt

_SAVED = NewVector(Kind.NUMBER, "D", "N", (("E", "1"),))
_KEPT = {"names": ["Red", "Hα"], "offsets": [0.5]}
_ABLE = Learnt(Capabilities(p.Features(), True, False), {"features": 1, "exposure_ex": 3})

SEEDS = (
    b"\0<INDIDriver>\n<newNumberVector device='D' name='N'>\n <oneNumber name='E'>\n1\n </oneNumber>\n"
    b"</newNumberVector>\n</INDIDriver>\n",
    b"\0<?xml version='1.0'?><INDIDriver/>",
    b"\0<INDIDriver><newSwitchVector device='D' name='S'><oneSwitch name='A'>On",
    b'\1{"00683001": {"filters": {"names": ["Red"], "offsets": [0.5]}}, "first camera": {}}',
    b'\1{"00683001": {"filters": [1, 2]}}',
    b'\1{"00683001": {"filters": {"names": ["Re',
    b'\1[1, NaN, 1e999, "\\ud800"]',
    b'\2{"00683001 06.01.07": {"features": "00000000", "temperature_ex": true, "exposure_ex": false}}',
    b'\2{"00683001 06.01.07": {"features": "", "temperature_ex": 0, "exposure_ex": 1, "missed": {"features": 2}}}',
    b'\2{"00683001 06.01.07": {"features": "", "temperature_ex": 0, "exposure_ex": 1, "missed": {"a": 1e999}}}',
    b'\2{"k": 1}',
    b"\2" + b"[" * 3000,
)


def one_input(data: bytes) -> None:
    if data:
        (_config, _memory, _capabilities)[data[0] % 3](data[1:])


def _config(data: bytes) -> None:
    folder = _folder()
    config = Config("D", {"HOME": str(folder), "INDICONFIG": str(folder / "config.xml")})
    config.path.write_bytes(data)
    first = config.load()
    kept = [path for path in folder.iterdir() if path.read_bytes() == data]
    assert kept, "what was in the file is lost"
    usual = [request for request in first if _could_be_ours(request)]
    config.save([*usual, _SAVED])
    second = config.load()
    assert len(second) == len(usual) + 1
    assert second[-1] == _SAVED
    config.save(second)
    assert config.load() == second
    _empty(folder)


def _could_be_ours(request: NewVector) -> bool:
    """Whether vectors have such values: the file's parser takes longer ones, which grow as they are escaped."""
    short = all(len(text) <= TEXT_LENGTH for _, text in request.values)
    written = writer.new_vector(request.kind, request.device, request.name, request.values)
    return short and len(written) <= limits.MAX_MESSAGE


def _memory(data: bytes) -> None:
    folder = _folder()
    (folder / FILE).write_bytes(data)
    storage = Storage()
    memory = Memory(folder, storage)
    before = memory.get("00683001", "filters")
    assert isinstance(before, dict)
    assert any(path.read_bytes() == data for path in folder.iterdir()), "what was in the file is lost"
    errors: list[Exception | None] = []
    memory.put("00683001", "names", _KEPT, errors.append)
    storage.close()
    assert errors == [None]
    del memory  # what it knows goes with it
    assert Memory(folder, storage).get("00683001", "names") == _KEPT
    _empty(folder)


def _capabilities(data: bytes) -> None:
    folder = _folder()
    path = folder / "capabilities.json"
    path.write_bytes(data)
    cache = FileCache(path)
    cache.get("00683001", "06.01.07")
    cache.get("k", "1")
    cache.put("k", "1", _ABLE)
    assert FileCache(path).get("k", "1") == _ABLE
    _empty(folder)


@cache
def _base() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="qsi-fuzz-", dir="/dev/shm", ignore_cleanup_errors=True)


def _folder() -> Path:
    return Path(_base().name)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
