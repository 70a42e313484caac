# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file with what is kept for each camera."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path

import pytest

from indi_qsi.device import memory as module
from indi_qsi.device.memory import FILE, MAX_BROKEN, MAX_BYTES, Memory


def test_it_is_there_again(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet"
    memory = Memory(directory)
    assert memory.get("1", "wheel") == {}
    memory.put("1", "wheel", {"name": "Hα"})
    memory.put("1", "role", {"role": "x"})
    memory.put("2", "wheel", {"name": "赤"})
    again = Memory(directory)
    assert again.get("1", "wheel") == {"name": "Hα"}
    assert again.get("1", "role") == {"role": "x"}
    assert again.get("2", "wheel") == {"name": "赤"}
    again.put("1", "wheel", {})
    assert memory.get("1", "wheel") == {}
    assert not list(directory.glob("*.tmp"))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"1": 2}', b"\xff\xfe", b"null", b"[" * 100_000, b'{"1": {}}' + b" " * MAX_BYTES],
)
def test_a_broken_file_is_set_aside(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    memory = Memory(tmp_path)
    assert memory.get("1", "wheel") == {}
    memory.put("1", "wheel", {"a": 1})
    assert Memory(tmp_path).get("1", "wheel") == {"a": 1}
    assert (tmp_path / FILE).with_suffix(".broken.json").read_bytes() == text


def test_odd_sections_are_empty(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"1": {"wheel": [1, 2]}}')
    assert Memory(tmp_path).get("1", "wheel") == {}


def test_what_cannot_be_read_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it happens when the file is root's, after a server that was started with sudo."""
    memory = Memory(tmp_path)
    memory.put("1", "wheel", {"name": "precious"})
    original = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if path.name == FILE:
            raise PermissionError(13, "Permission denied")
        return original(path, mode, *arguments, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError):
            memory.put("1", "role", {"role": "x"})
        assert memory.get("1", "role") == {"role": "x"}  # it holds in this process
    assert json.loads((tmp_path / FILE).read_text()) == {"1": {"wheel": {"name": "precious"}}}
    assert memory.get("1", "role") == {"role": "x"}
    memory.put("1", "role", {"role": "y"})
    assert Memory(tmp_path).get("1", "role") == {"role": "y"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(tmp_path)
    memory.put("1", "wheel", {"name": "old"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        memory.put("1", "wheel", {"name": "new"})
    assert json.loads((tmp_path / FILE).read_text()) == {"1": {"wheel": {"name": "old"}}}
    assert not list(tmp_path.glob(".*.tmp"))


def test_drivers_of_several_cameras_share_it(tmp_path: Path) -> None:
    def work(serial: str) -> None:
        memory = Memory(tmp_path)  # each process has its own
        for number in range(20):
            memory.put(serial, "wheel", {"number": number})

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Memory(tmp_path).get(str(n), "wheel") for n in range(4)] == [{"number": 19}] * 4


def test_nobody_waits_for_ever_for_a_hung_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_LIMIT", 0.05)
    with (tmp_path / f".{FILE}.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError):
            Memory(tmp_path).put("1", "wheel", {"a": 1})
    Memory(tmp_path).put("1", "wheel", {"a": 1})


def test_every_broken_file_is_kept_and_they_do_not_pile_up(tmp_path: Path) -> None:
    for number in range(MAX_BROKEN + 3):
        (tmp_path / FILE).write_text(f"broken {number}")
        assert Memory(tmp_path).get("1", "wheel") == {}
    kept = sorted(path.read_text() for path in tmp_path.glob("*.broken*.json"))
    assert len(kept) == MAX_BROKEN
    assert {f"broken {number}" for number in range(MAX_BROKEN - 1)} <= set(kept)


@pytest.mark.parametrize("size", [MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1])
def test_the_largest_file(tmp_path: Path, size: int) -> None:
    text = '{"1": {"wheel": {"a": 1}}}'
    (tmp_path / FILE).write_text(text.ljust(size))
    assert Memory(tmp_path).get("1", "wheel") == ({"a": 1} if size <= MAX_BYTES else {})


def test_what_a_later_version_keeps_is_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"1": {"later": {"x": [1]}, "wheel": {"later": 2}}, "later": {}}')
    Memory(tmp_path).put("1", "role", {"role": "x"})
    everything = json.loads((tmp_path / FILE).read_text())
    assert everything == {
        "1": {"later": {"x": [1]}, "wheel": {"later": 2}, "role": {"role": "x"}},
        "later": {},
    }
