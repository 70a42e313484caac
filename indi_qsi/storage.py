# SPDX-License-Identifier: LGPL-2.1-or-later
"""The thread that may wait for the disk, and how small files are read and written.

A disk may need many seconds for one fsync, and a network share may never answer. So no other thread waits for
one: it posts its work to a `Storage`, and is answered when the file is on the disk.

The functions for files are for work in that thread. They know nothing of what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

Done = Callable[[Exception | None], None]

MAX_WAITING = 256  # keys; a process has a few files and some tens of saved vectors a camera
MAX_ANSWERS = 1000  # `done` functions that wait, for clients that ask again and again while a disk hangs
SLOW = 5.0  # s; a healthy disk needs some ms
# s after which work that was not carried out counts as failed: a disk that needs longer does not answer.
ANSWER_LIMIT = 30.0
CLOSE_TIME = 15.0  # s; a busy SD card may need 12 s for one fsync
LOCK_LIMIT = 30.0  # s for a lock: its owner writes up to two files, to a disk that may be slow
LOCK_POLL = 0.01  # s

_TEMPORARY = ".indi-qsi-{}.tmp"
_LEFT_OVER = re.compile(r"\.indi-qsi-[0-9a-f]{16}\.tmp", re.ASCII)
UNLOCKED_TIME = 5.0  # s; between making a temporary file and locking it pass some microseconds

# Not every file system can bring a folder to the disk on its own, and not every folder may be read.
_NO_SYNC = frozenset(
    {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EROFS}
)
# File systems without locks: some network shares, some in user space.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})


class StorageError(OSError):
    """Something cannot be saved; `strerror` has the reason and what the user can do."""

    def __init__(self, text: str, number: int = errno.EIO) -> None:
        super().__init__(number, text)

    def __str__(self) -> str:
        return str(self.strerror)


class NotRegularError(StorageError):
    """In the place of a file is something that must not be read, replaced or waited for.

    `kind` says what it is: "a FIFO", for example.
    """

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path} is {kind}, not a regular file; move it away", errno.EINVAL)
        self.kind = kind


def reason(error: Exception) -> str:
    """Why something could not be saved, for a message: without the number that OSError puts before it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


# --- the thread ---


@dataclass(slots=True, eq=False)
class _Answer:
    """A `done` function, to be called once: when the work is done, or when it is too late (monotonic)."""

    done: Done
    latest: float


@dataclass(slots=True)
class _Job:
    work: Callable[[], None]
    answers: list[_Answer] = field(default_factory=list)


class Storage:
    """One thread that may wait for the disk. It starts with the first work."""

    def __init__(self, name: str = "storage") -> None:
        self._name = name
        self._changed = threading.Condition()  # held for memory only, never while a disk is waited for
        self._waiting: dict[Hashable, _Job] = {}  # the next one first
        self._open: list[_Answer] = []  # not yet called, the oldest first
        self._closed = False
        self._thread: threading.Thread | None = None
        self._clock: threading.Thread | None = None
        self._running: Hashable = None  # the key of the work that is being carried out
        self._since: float | None = None  # when it began; None when nothing is carried out
        self._reported = False

    def post(self, key: Hashable, work: Callable[[], None], done: Done | None = None) -> None:
        """Has `work` carried out in the storage thread. Any thread; never waits.

        Work that waits under the same key is replaced by the newer one, which goes to the end of the queue.
        Work under different keys is carried out in the order in which it was posted. Every `done` is called,
        also those of replaced work, with None or with the error of the work that was carried out: in the
        storage thread, which it must not keep waiting. It is called with an error after `ANSWER_LIMIT` s if
        the disk has not answered by then; the work may still be carried out later. When the work cannot be
        accepted, `done` is called at once in this thread, with a `StorageError`: after `close`, and when too
        much waits for a slow disk.
        """
        refusal = self._accept(key, work, done)
        self._report_slow()
        if refusal is not None:
            _call([done] if done is not None else [], key, StorageError(refusal, errno.EAGAIN))

    def close(self) -> None:
        """Carries out what waits, for at most `CLOSE_TIME` s, and ends the thread.

        Work that still waits after that time is dropped, and its `done` is called with an error in this
        thread. Work that is being carried out then is left to itself.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(CLOSE_TIME)
        if not thread.is_alive():
            return
        log.warning("the disk does not answer: %s may not be saved", self._running)
        with self._changed:
            dropped, self._waiting = self._waiting, {}
        for key, job in dropped.items():
            self._answer(job.answers, key, StorageError("the driver ends, and the disk does not answer"))

    def _accept(self, key: Hashable, work: Callable[[], None], done: Done | None) -> str | None:
        """Queues the work; returns why not, if it cannot."""
        with self._changed:
            if self._closed:
                return "the driver is ending"
            if (key not in self._waiting and len(self._waiting) >= MAX_WAITING) or (
                done is not None and len(self._open) >= MAX_ANSWERS
            ):
                return "the disk is too slow, and too much waits for it; check the disk and try again"
            if not self._started():
                return "the system has no more threads"
            job = self._waiting.pop(key, None) or _Job(work)
            job.work = work
            if done is not None:
                answer = _Answer(done, time.monotonic() + ANSWER_LIMIT)
                job.answers.append(answer)
                self._open.append(answer)
            self._waiting[key] = job
            self._changed.notify_all()
            return None

    def _started(self) -> bool:
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            if self._clock is None:
                clock = threading.Thread(target=self._watch, name=f"{self._name} clock", daemon=True)
                clock.start()
                self._clock = clock
        except RuntimeError:  # the system has no more threads, or Python is ending
            return False
        return True

    def _answer(self, answers: list[_Answer], key: Hashable, error: Exception | None) -> None:
        """Calls those that were not called yet."""
        with self._changed:
            due = [answer for answer in answers if answer in self._open]
            self._open = [answer for answer in self._open if answer not in due]
        _call([answer.done for answer in due], key, error)

    def _watch(self) -> None:
        """The clock: answers that come too late are given as failures."""
        while True:
            with self._changed:
                while not self._open or self._open[0].latest > time.monotonic():
                    if self._closed:
                        return
                    self._changed.wait(self._open[0].latest - time.monotonic() if self._open else None)
                late = [answer for answer in self._open if answer.latest <= time.monotonic()]
                key = self._running
            text = f"the disk has not answered for {ANSWER_LIMIT:.0f} s; check it"
            self._answer(late, key, StorageError(text, errno.EAGAIN))

    def _report_slow(self) -> None:
        """Logs once that the present work takes long. Called with each post, because it may never end."""
        with self._changed:
            if self._since is None or self._reported:
                return
            seconds = time.monotonic() - self._since
            if seconds < SLOW:
                return
            self._reported = True
            key = self._running
        log.warning("the disk is slow: it has been busy with %s for %.0f s", key, seconds)

    # --- in the thread ---

    def _run(self) -> None:
        while self._carry_out_next():
            pass

    def _carry_out_next(self) -> bool:
        """False when the thread is to end. Nothing of the work is referred to after it."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return False
                self._changed.wait()
            key = next(iter(self._waiting))
            job = self._waiting.pop(key)
            self._running, self._since, self._reported = key, time.monotonic(), False
        failure: Exception | None = None
        try:
            job.work()
        except Exception as error:
            failure = error
        self._report_slow()
        with self._changed:
            self._running = self._since = None
        if failure is not None and not job.answers:
            log.warning("%s is not saved: %s", key, reason(failure))
        self._answer(job.answers, key, failure)
        return True


def _call(functions: list[Done], key: Hashable, error: Exception | None) -> None:
    for done in functions:
        try:
            done(error)
        except Exception:
            log.exception("the answer to saving %s failed", key)


# --- files ---


def read_regular(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a file. Raises OSError; `NotRegularError` for what may never end."""
    # Asked before it is opened, because to open a device may do something to it.
    _check_regular(path, path.stat())
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _check_regular(path, os.fstat(descriptor))
        return file.read(limit)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that, whatever happens, there is the old file or the new one. Raises OSError.

    The file is on the disk when this returns. A symbolic link is followed. What is not a regular file is
    left alone: `NotRegularError`.
    """
    target = _target(path)
    _check_target(path, target)
    temporary = target.with_name(_TEMPORARY.format(os.urandom(8).hex()))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            with suppress(OSError):  # it keeps `_remove_left_over` away, where the file system has locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    _remove_left_over(target.parent)


@contextmanager
def locked(path: Path, limit: float = LOCK_LIMIT) -> Iterator[None]:
    """Keeps a file from other threads and from other processes that use this lock. Raises OSError.

    The folder must exist. Waits at most `limit` s. Where the file system has no locks, only threads of this
    process wait for one another.
    """
    target = _target(path)
    _check_target(path, target)  # there must be no lock file beside a device
    beside = target.with_name(f".{target.name}.lock")
    end = time.monotonic() + limit
    mutex = _MUTEXES.setdefault(beside, threading.Lock())
    if not mutex.acquire(timeout=limit):
        raise StorageError(f"{path} has been in use for {limit:.0f} s by a disk that is slow", errno.EAGAIN)
    try:
        descriptor = _open_lock(beside)
        try:
            while not _take(descriptor):
                if time.monotonic() >= end:
                    raise StorageError(
                        f"another program has locked {path} for more than {limit:.0f} s", errno.EAGAIN
                    )
                time.sleep(LOCK_POLL)
            yield
        finally:
            os.close(descriptor)
    finally:
        mutex.release()


# By the lock file's path. A process has a few of them.
_MUTEXES: dict[Path, threading.Lock] = {}


def _target(path: Path) -> Path:
    """The file behind symbolic links, as people keep config files elsewhere."""
    return Path(os.path.realpath(path))  # unlike Path.resolve(), no error for links that form a loop


def _check_target(path: Path, target: Path) -> None:
    """Raises OSError if there is something that is not a regular file."""
    with suppress(FileNotFoundError):
        _check_regular(path, target.stat())


def _check_regular(path: Path, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    kind = "a special file"
    if stat.S_ISDIR(mode):
        kind = "a directory"
    elif stat.S_ISFIFO(mode):
        kind = "a FIFO"
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        kind = "a device"
    elif stat.S_ISSOCK(mode):
        kind = "a socket"
    raise NotRegularError(path, kind)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except PermissionError:
        # It belongs to another user, after a server that was started with sudo. It can be locked anyway.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _take(descriptor: int) -> bool:
    """Whether we have the lock now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _sync_folder(folder: Path) -> None:
    """Brings a new name to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _remove_left_over(folder: Path) -> None:
    """Removes the temporary files of programs that were killed. A program that still writes has a lock."""
    with suppress(OSError):
        for path in folder.iterdir():
            if not _LEFT_OVER.fullmatch(path.name):
                continue
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if abs(time.time() - os.fstat(descriptor).st_mtime) >= UNLOCKED_TIME:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                finally:
                    os.close(descriptor)
