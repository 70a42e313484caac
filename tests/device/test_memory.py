# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file with what is kept for each camera."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indi_qsi.device import memory as module
from indi_qsi.device.memory import FILE, MAX_BROKEN, MAX_BYTES, MAX_DEPTH, Memory
from indi_qsi.storage import Storage, StorageError, reason
from tests.support.saving import PATIENCE, Answer, hanging

Stranger = Callable[[Path], Memory]


@pytest.fixture
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Makes memories like those of other processes: they share the file and nothing else."""
    storages = []

    def make(directory: Path) -> Memory:
        storages.append(Storage())
        with module._files_lock:
            module._files.clear()
        return Memory(directory, storages[-1])

    yield make
    for storage in storages:
        storage.close()


def put(memory: Memory, serial: str, section: str, values: dict[str, Any]) -> None:
    """Waits until it is saved. Raises the error."""
    answer = Answer()
    memory.put(serial, section, values, answer)
    if (error := answer.wait()) is not None:
        raise error


def in_file(directory: Path) -> Any:
    return json.loads((directory / FILE).read_text())


def test_it_is_there_again(tmp_path: Path, stranger: Stranger) -> None:
    directory = tmp_path / "not" / "yet"
    memory = stranger(directory)
    assert memory.get("1", "wheel") == {}
    put(memory, "1", "wheel", {"name": "Hα"})
    put(memory, "1", "role", {"role": "x"})
    put(memory, "2", "wheel", {"name": "赤"})
    again = stranger(directory)
    assert again.get("1", "wheel") == {"name": "Hα"}
    assert again.get("1", "role") == {"role": "x"}
    assert again.get("2", "wheel") == {"name": "赤"}
    put(again, "1", "wheel", {})
    assert again.get("1", "wheel") == {}
    assert stranger(directory).get("1", "wheel") == {}
    assert not list(directory.glob("*.tmp"))


# --- who waits for the disk ---


def test_after_the_first_reading_nobody_reads(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FILE).write_text('{"1": {"wheel": {"name": "Red"}}}')
    memory = Memory(tmp_path, storage)
    memory.load()

    def refuse(path: Path, limit: int) -> bytes:
        raise AssertionError("the disk is used")

    monkeypatch.setattr(module, "read_regular", refuse)
    memory.load()
    assert memory.get("1", "wheel") == {"name": "Red"}
    assert memory.get("1", "role") == memory.get("2", "wheel") == {}


def test_a_disk_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    original = module.write_atomically

    def write(path: Path, data: bytes) -> None:
        written.append(json.loads(data))
        original(path, data)

    monkeypatch.setattr(module, "write_atomically", write)
    memory = Memory(tmp_path, storage)
    answers = [Answer() for _ in range(100)]
    with hanging(storage):
        for number, answer in enumerate(answers):
            memory.put(str(number % 4), f"section {number % 5}", {"number": number}, answer)
            assert memory.get(str(number % 4), f"section {number % 5}") == {"number": number}
        assert not [answer for answer in answers if answer.came]
        assert not (tmp_path / FILE).exists()
    assert [answer.wait() for answer in answers] == [None] * 100
    # All that has changed goes in one writing.
    assert written == [in_file(tmp_path)]
    assert len(written[0]) == 4 and all(len(camera) == 5 for camera in written[0].values())
    assert written[0]["3"]["section 4"] == {"number": 99}


def test_what_changes_while_it_is_written_is_not_lost(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path, storage)
    original = module.write_atomically
    first, second = Answer(), Answer()

    def write(path: Path, data: bytes) -> None:
        if not first.came and b"old" in data:
            memory.put("1", "wheel", {"name": "new"}, second)
        original(path, data)

    monkeypatch.setattr(module, "write_atomically", write)
    memory.put("1", "wheel", {"name": "old"}, first)
    assert first.wait() is None and second.wait() is None
    assert memory.get("1", "wheel") == in_file(tmp_path)["1"]["wheel"] == {"name": "new"}


def test_values_are_copies(tmp_path: Path, storage: Storage) -> None:
    memory = Memory(tmp_path, storage)
    values = {"names": ["a"]}
    with hanging(storage):
        memory.put("1", "wheel", values)
        values["names"].append("b")
        memory.get("1", "wheel")["names"].append("c")
        assert memory.get("1", "wheel") == {"names": ["a"]}


def test_what_json_cannot_hold_is_refused_at_once(tmp_path: Path, storage: Storage) -> None:
    memory = Memory(tmp_path, storage)
    with pytest.raises(TypeError):
        memory.put("1", "wheel", {"names": {1, 2}})
    put(memory, "1", "role", {"role": "x"})
    assert in_file(tmp_path) == {"1": {"role": {"role": "x"}}}


# --- several users of the file ---


def test_memories_of_one_process_know_the_same(tmp_path: Path, storage: Storage) -> None:
    other_storage = Storage()
    first, second = Memory(tmp_path, storage), Memory(tmp_path / "." / "x" / "..", other_storage)
    assert first.get("1", "wheel") == second.get("1", "wheel") == {}
    with hanging(storage), hanging(other_storage):
        first.put("1", "wheel", {"name": "Red"})
        assert second.get("1", "wheel") == {"name": "Red"}
        second.put("1", "wheel", {"name": "Blue"})
        assert first.get("1", "wheel") == {"name": "Blue"}
    other_storage.close()
    put(first, "1", "role", {})
    assert in_file(tmp_path) == {"1": {"wheel": {"name": "Blue"}, "role": {}}}


def test_drivers_of_several_cameras_share_it(tmp_path: Path, stranger: Stranger) -> None:
    def work(memory: Memory, serial: str) -> None:
        for number in range(20):
            put(memory, serial, "wheel", {"number": number})

    threads = [threading.Thread(target=work, args=(stranger(tmp_path), str(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_file(tmp_path) == {str(n): {"wheel": {"number": 19}} for n in range(4)}


def test_what_others_have_saved_is_known_with_the_next_saving(tmp_path: Path, stranger: Stranger) -> None:
    ours, theirs = stranger(tmp_path), stranger(tmp_path)
    assert ours.get("2", "wheel") == {}
    put(theirs, "2", "wheel", {"name": "Red"})
    put(ours, "1", "wheel", {})
    assert ours.get("2", "wheel") == {"name": "Red"}


PROCESS = """
import sys, threading
from pathlib import Path
from indi_qsi.device.memory import Memory
from indi_qsi.storage import Storage
directory, serial = Path(sys.argv[1]), sys.argv[2]
storage = Storage()
memory = Memory(directory, storage)
for number in range(80):
    answered, errors = threading.Event(), []
    memory.put(serial, f"section {number}", {"n": number}, lambda e: (errors.append(e), answered.set()))
    assert answered.wait(60) and errors == [None], errors
storage.close()
"""


def test_two_processes_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path), serial], stderr=subprocess.PIPE)
        for serial in ("1", "2")
    ]
    for process in processes:
        assert process.communicate(timeout=PATIENCE) == (None, b"")
        assert process.returncode == 0
    sections = {f"section {number}": {"n": number} for number in range(80)}
    assert in_file(tmp_path) == {"1": sections, "2": sections}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{FILE}.lock", FILE]


# --- files and disks that cannot be used ---


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"{", b'{"1": 2}', b"\xff\xfe", b"null", b"[" * 100_000),
        b'{"1": {}}' + b" " * MAX_BYTES,
        b'{"1": {"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}}",
    ],
)
def test_a_broken_file_is_set_aside(tmp_path: Path, text: bytes, stranger: Stranger) -> None:
    for action in ("get", "put"):
        (tmp_path / FILE).write_bytes(text)
        memory = stranger(tmp_path)
        if action == "get":
            assert memory.get("1", "wheel") == {}
        put(memory, "1", "wheel", {"a": 1})
        assert stranger(tmp_path).get("1", "wheel") == {"a": 1}
        aside = (tmp_path / FILE).with_suffix(".broken.json")
        assert aside.read_bytes() == text
        aside.unlink()


def test_a_broken_file_that_cannot_be_renamed_stays(
    tmp_path: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(b"{")

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refuse)
    memory = stranger(tmp_path)
    assert memory.get("1", "wheel") == {}
    assert "cannot be renamed" in caplog.text
    with pytest.raises(PermissionError):
        put(memory, "1", "wheel", {"a": 1})
    assert (tmp_path / FILE).read_bytes() == b"{"


def test_a_file_that_was_saved_meanwhile_is_not_set_aside(
    tmp_path: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FILE).write_bytes(b"{")
    original = module.locked

    def locked(path: Path, limit: float) -> Any:
        (tmp_path / FILE).write_text('{"1": {"wheel": {"a": 1}}}')  # by a driver that had the lock before
        return original(path, limit)

    monkeypatch.setattr(module, "locked", locked)
    assert stranger(tmp_path).get("1", "wheel") == {"a": 1}
    assert not list(tmp_path.glob("*broken*"))


def test_odd_sections_are_empty(tmp_path: Path, storage: Storage) -> None:
    (tmp_path / FILE).write_text('{"1": {"wheel": [1, 2]}}')
    assert Memory(tmp_path, storage).get("1", "wheel") == {}


def test_half_a_character_can_be_written_again(tmp_path: Path, stranger: Stranger) -> None:
    (tmp_path / FILE).write_text('{"1": {"wheel": {"name": "\\ud800"}}}')
    put(stranger(tmp_path), "1", "role", {})
    assert stranger(tmp_path).get("1", "wheel") == {"name": "\ud800"}


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device"])
def test_what_is_not_a_file_is_left_alone(
    tmp_path: Path, storage: Storage, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    mode = path.lstat().st_mode
    memory = Memory(tmp_path, storage)
    assert memory.get("1", "wheel") == {}
    assert f"is a {kind}, not a regular file; move it away" in caplog.text
    with pytest.raises(StorageError, match=f"{path} is a {kind}, not a regular file; move it away"):
        put(memory, "1", "wheel", {"a": 1})
    assert memory.get("1", "wheel") == {"a": 1}
    assert list(tmp_path.iterdir()) == [path] and path.lstat().st_mode == mode


def test_what_cannot_be_read_is_not_overwritten(
    tmp_path: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it happens when the file is root's, after a server that was started with sudo."""
    put(stranger(tmp_path), "1", "wheel", {"name": "precious"})

    def refuse(path: Path, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    memory = stranger(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_regular", refuse)
        with pytest.raises(PermissionError):
            put(memory, "1", "role", {"role": "x"})
        assert memory.get("1", "role") == {"role": "x"}  # it holds in this process
        assert memory.get("1", "wheel") == {}
    assert in_file(tmp_path) == {"1": {"wheel": {"name": "precious"}}}
    assert memory.get("1", "role") == {"role": "x"}
    # The next saving tries again, whatever it is for.
    put(memory, "2", "role", {"role": "y"})
    assert stranger(tmp_path).get("1", "role") == {"role": "x"}
    assert memory.get("1", "wheel") == {"name": "precious"}


def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path, storage)
    put(memory, "1", "wheel", {"name": "old"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space") as caught:
            put(memory, "1", "wheel", {"name": "new"})
        assert reason(caught.value) == "No space left on device"
    assert in_file(tmp_path) == {"1": {"wheel": {"name": "old"}}}
    assert memory.get("1", "wheel") == {"name": "new"}
    assert not list(tmp_path.glob(".*.tmp"))


def test_it_holds_after_the_end_of_the_storage(tmp_path: Path) -> None:
    storage, answer = Storage(), Answer()
    memory = Memory(tmp_path, storage)
    storage.close()
    memory.put("1", "wheel", {"a": 1}, answer)
    assert isinstance(answer.wait(), StorageError)
    assert memory.get("1", "wheel") == {"a": 1}


def test_nobody_waits_for_ever_for_a_hung_one(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path, storage)
    with (tmp_path / f".{FILE}.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(module, "LOCK_LIMIT", 0.05)
            with pytest.raises(StorageError, match="another program has locked"):
                put(memory, "1", "wheel", {"a": 1})
    put(memory, "1", "wheel", {"a": 1})
    assert in_file(tmp_path) == {"1": {"wheel": {"a": 1}}}


def test_every_broken_file_is_kept_and_they_do_not_pile_up(tmp_path: Path, stranger: Stranger) -> None:
    for number in range(MAX_BROKEN + 3):
        (tmp_path / FILE).write_text(f"broken {number}")
        assert stranger(tmp_path).get("1", "wheel") == {}
    kept = sorted(path.read_text() for path in tmp_path.glob("*.broken*.json"))
    assert len(kept) == MAX_BROKEN
    assert {f"broken {number}" for number in range(MAX_BROKEN - 1)} <= set(kept)


@pytest.mark.parametrize("size", [MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1])
def test_the_largest_file(tmp_path: Path, storage: Storage, size: int) -> None:
    text = '{"1": {"wheel": {"a": 1}}}'
    (tmp_path / FILE).write_text(text.ljust(size))
    assert Memory(tmp_path, storage).get("1", "wheel") == ({"a": 1} if size <= MAX_BYTES else {})


def test_what_a_later_version_keeps_is_kept(tmp_path: Path, storage: Storage) -> None:
    (tmp_path / FILE).write_text('{"1": {"later": {"x": [1]}, "wheel": {"later": 2}}, "later": {}}')
    put(Memory(tmp_path, storage), "1", "role", {"role": "x"})
    assert in_file(tmp_path) == {
        "1": {"later": {"x": [1]}, "wheel": {"later": 2}, "role": {"role": "x"}},
        "later": {},
    }
