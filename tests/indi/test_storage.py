# SPDX-License-Identifier: LGPL-2.1-or-later
"""The thread that may wait for the disk, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indi_qsi import storage as module
from indi_qsi.storage import (
    MAX_ANSWERS,
    MAX_WAITING,
    NotRegularError,
    Storage,
    StorageError,
    locked,
    read_regular,
    reason,
    write_atomically,
)
from tests.support.saving import PATIENCE, Answer, hanging


@pytest.fixture
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.close()


class Log:
    """Work that notes that it was carried out."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def work(self, name: str) -> Callable[[], None]:
        return lambda: self.done.append(name)


def nothing() -> None:
    pass


def fail() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# --- the thread ---


def test_nothing_is_started_before_the_first_work(storage: Storage) -> None:
    idle = Storage("idle")
    assert "idle" not in [thread.name for thread in threading.enumerate()]
    idle.close()
    answer = Answer()
    storage.post("a", nothing, answer)
    assert answer.wait() is None
    assert answer.thread is not None and answer.thread.name == "storage" and answer.thread.daemon
    assert answer.thread is not threading.current_thread()


def test_work_that_waits_is_replaced_by_newer_work_and_everybody_is_answered(storage: Storage) -> None:
    log, answers = Log(), [Answer() for _ in range(5)]
    with hanging(storage):
        for number, answer in enumerate(answers):
            storage.post("file", log.work(f"version {number}"), answer)
            assert not answer.came
    assert [answer.wait() for answer in answers] == [None] * 5
    assert log.done == ["version 4"]


def test_an_error_is_the_answer_of_all_that_were_replaced(storage: Storage) -> None:
    first, second, next_one = Answer(), Answer(), Answer()
    with hanging(storage):
        storage.post("file", nothing, first)
        storage.post("file", fail, second)
    for answer in (first, second):
        error = answer.wait()
        assert isinstance(error, OSError) and error.errno == errno.ENOSPC
    storage.post("file", nothing, next_one)
    assert next_one.wait() is None
    assert (first.calls, second.calls) == (1, 1)


def test_different_keys_keep_their_order(storage: Storage) -> None:
    log, last = Log(), Answer()
    with hanging(storage):
        for name in "abcd":
            storage.post(name, log.work(name))
        # What was replaced is not carried out before what was posted between the two.
        storage.post("b", log.work("newer b"))
        storage.post("end", nothing, last)
    last.wait()
    assert log.done == ["a", "c", "d", "newer b"]


def test_work_that_is_being_carried_out_is_not_replaced(storage: Storage) -> None:
    answer = Answer()
    log = Log()
    with hanging(storage):
        storage.post("the disk hangs", log.work("once more"), answer)
        assert not answer.came
    assert answer.wait() is None
    assert log.done == ["once more"]


def test_not_more_than_so_many_keys_wait(storage: Storage) -> None:
    answers = [Answer() for _ in range(MAX_WAITING)]
    refused, replaced = Answer(), Answer()
    with hanging(storage):
        for number, answer in enumerate(answers):
            storage.post(number, nothing, answer)
        storage.post("one more", fail, refused)
        assert refused.came and refused.thread is threading.current_thread()
        error = refused.wait()
        assert isinstance(error, StorageError) and "the disk is too slow" in str(error)
        assert error.strerror == str(error) == reason(error)
        storage.post(0, nothing, replaced)  # takes no further place
        assert not replaced.came
    assert [answer.wait() for answer in (*answers, replaced)] == [None] * (MAX_WAITING + 1)


def test_a_client_that_asks_again_and_again_is_refused(storage: Storage) -> None:
    most = MAX_ANSWERS - 1  # one waits for what is being carried out
    log, answers, refused = Log(), [Answer() for _ in range(most)], Answer()
    with hanging(storage):
        for number, answer in enumerate(answers):
            storage.post("file", log.work(str(number)), answer)
        storage.post("file", log.work("refused"), refused)
        assert isinstance(refused.wait(), StorageError)
        storage.post("file", log.work("without an answer"))
    assert [answer.wait() for answer in answers] == [None] * most
    assert log.done == ["without an answer"]
    answer = Answer()
    storage.post("file", log.work("later"), answer)
    assert answer.wait() is None


def test_a_disk_that_does_not_answer_ends_its_requests(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.01)
    log, first, second = Log(), Answer(), Answer()
    with hanging(storage) as hung:
        storage.post("a", log.work("a"), first)
        storage.post("b", log.work("b"), second)
        for answer in (first, second, hung):
            assert "has not answered" in str(answer.wait())
    answer = Answer()
    monkeypatch.setattr(module, "ANSWER_LIMIT", 60)
    storage.post("c", log.work("c"), answer)
    assert answer.wait() is None
    assert log.done == ["a", "b", "c"]  # late is better than never
    assert [answer.calls for answer in (first, second, hung)] == [1, 1, 1]


def test_no_error_ends_the_thread(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    def odd() -> None:
        raise KeyError("odd")

    def bad_answer(error: Exception | None) -> None:
        raise RuntimeError("a fault in the answer")

    first, after, last = Answer(), Answer(), Answer()
    storage.post("a", odd, first)
    assert isinstance(first.wait(), KeyError)
    with hanging(storage):
        storage.post("b", nothing, bad_answer)
        storage.post("b", nothing, after)
        storage.post("c", fail)
        storage.post("d", nothing, last)
    assert after.wait() is None and last.wait() is None
    assert "a fault in the answer" in caplog.text
    assert "c is not saved: No space left on device" in caplog.text


def test_answers_may_post(storage: Storage) -> None:
    second = Answer()
    storage.post("a", nothing, lambda error: storage.post("b", nothing, second))
    assert second.wait() is None


def test_a_slow_disk_is_logged_once_even_if_it_never_answers(
    storage: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW", 3600.0)
    with hanging(storage):
        storage.post("quick", nothing)
        assert not caplog.text
        monkeypatch.setattr(module, "SLOW", 0.0)
        for _ in range(3):
            storage.post("file", nothing)
        assert caplog.text.count("it has been busy with the disk hangs") == 1


def test_slow_work_is_logged_as_it_ends(
    storage: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer()
    storage.post("file", lambda: monkeypatch.setattr(module, "SLOW", 0.0), answer)
    answer.wait()
    assert "the disk is slow: it has been busy with file" in caplog.text


def test_what_waits_is_carried_out_before_the_end() -> None:
    storage, log = Storage(), Log()
    with hanging(storage):
        for name in "abc":
            storage.post(name, log.work(name))
        closing = threading.Thread(target=storage.close)
        closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive() and log.done == ["a", "b", "c"]
    late = Answer()
    storage.post("late", log.work("late"), late)
    assert late.came and late.thread is threading.current_thread()
    assert "ending" in str(late.wait()) and "late" not in log.done
    storage.close()


def test_a_disk_that_hangs_does_not_keep_the_driver_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIME", 0.01)
    storage, log, dropped = Storage(), Log(), Answer()
    with hanging(storage):
        storage.post("file", log.work("file"), dropped)
        storage.close()
        assert isinstance(dropped.wait(), StorageError)
        assert "the disk does not answer: the disk hangs may not be saved" in caplog.text
    monkeypatch.undo()
    storage.close()
    assert not log.done and dropped.calls == 1


def test_the_thread_may_close_it(storage: Storage) -> None:
    log, answer = Log(), Answer()
    with hanging(storage):
        storage.post("a", storage.close)
        storage.post("b", log.work("b"), answer)
    assert answer.wait() is None and log.done == ["b"]


def test_a_system_without_threads(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    refused, taken = Answer(), Answer()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        storage.post("a", nothing, refused)
    assert "threads" in str(refused.wait())
    storage.post("a", nothing, taken)
    assert taken.wait() is None


# --- files ---


def test_a_file_is_written_with_what_its_links_lead_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "link"
    link.symlink_to(elsewhere / "file")
    for text in (b"one", b"two"):
        write_atomically(link, text)
        assert link.is_symlink() and (elsewhere / "file").read_bytes() == text
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
    assert read_regular(link, 2) == b"tw"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), lambda *_: fail())
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_systems_that_cannot_sync_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    number = errno.EINVAL
    write_atomically(tmp_path / "file", b"x")
    number = errno.EIO
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", b"y")


def test_what_is_not_a_regular_file_is_left_alone(tmp_path: Path) -> None:
    fifo, folder, device, loop = (tmp_path / name for name in ("fifo", "folder", "device", "loop"))
    os.mkfifo(fifo)
    folder.mkdir()
    device.symlink_to("/dev/null")
    loop.symlink_to(loop)
    for path, kind in ((fifo, "FIFO"), (folder, "directory"), (device, "device")):
        with pytest.raises(NotRegularError, match=f"{path} is a {kind}, not a regular file; move it away"):
            read_regular(path, 10)
        with pytest.raises(NotRegularError, match=kind):
            write_atomically(path, b"x")
        with pytest.raises(NotRegularError, match=kind), locked(path):
            pass
    with pytest.raises(OSError):
        read_regular(loop, 10)
    with pytest.raises(OSError):
        write_atomically(loop, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device", "fifo", "folder", "loop"]
    assert Path("/dev/null").is_char_device() and not Path("/dev/.null.lock").exists()
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 10)


WRITER = """
import sys
from pathlib import Path
from indi_qsi.storage import write_atomically
for number in range(1_000_000):
    write_atomically(Path(sys.argv[1]), b"%09d" % number * 20_000)
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    rounds = random.Random(1)
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in itertools.islice(writer.stdout, rounds.randint(1, 5)):
                written = int(line)
            time.sleep(rounds.uniform(0, 0.005))  # to come at any moment of the next one
            writer.kill()
        data = path.read_bytes()
        assert data == data[:9] * 20_000
        assert int(data[:9]) >= written
    # What the killed ones have left goes with the next file.
    left = [other for other in tmp_path.iterdir() if other != path]
    left.append(tmp_path / ".indi-qsi-0123456789abcdef.tmp")
    left[-1].touch()
    busy = tmp_path / ".indi-qsi-fedcba9876543210.tmp"
    monkeypatch.setattr(module, "UNLOCKED_TIME", 0.0)
    with busy.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(path, b"x")
    assert set(tmp_path.iterdir()) == {path, busy}


def test_a_young_temporary_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may not have locked it yet."""
    monkeypatch.setattr(module, "UNLOCKED_TIME", 3600.0)
    young = tmp_path / ".indi-qsi-0123456789abcdef.tmp"
    young.touch()
    write_atomically(tmp_path / "file", b"x")
    assert young.exists()


def test_a_lock_of_another_program_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (tmp_path / ".file.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another program has locked"), locked(path, 0.02):
            pass
    with locked(path):
        pass


def test_threads_wait_for_one_another_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "file"
    write_atomically(path, b"0")

    def count() -> None:
        for _ in range(20):
            with locked(path):
                write_atomically(path, b"%d" % (int(read_regular(path, 10)) + 1))

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"60"
    with locked(path):
        failed: list[str] = []

        def try_it() -> None:
            try:
                with locked(path, 0.02):
                    pass
            except StorageError as error:
                failed.append(str(error))

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert "slow" in failed[0]


def test_a_lock_file_of_another_user_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a server that was started with sudo."""
    original = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if path.name.endswith(".lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, flags, mode)

    with locked(tmp_path / "file"):
        pass
    monkeypatch.setattr(os, "open", refuse)
    with locked(tmp_path / "file"), (tmp_path / ".file.lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
