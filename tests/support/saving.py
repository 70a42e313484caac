# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of saved files need: answers to wait for, and a disk that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from indi_qsi.storage import Storage

PATIENCE = 60.0  # s


class Answer:
    """A `done` function that can be waited for."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._error: Exception | None = None
        self.calls = 0
        self.thread: threading.Thread | None = None

    def __call__(self, error: Exception | None) -> None:
        self.calls += 1
        self._error = error
        self.thread = threading.current_thread()
        self._event.set()

    @property
    def came(self) -> bool:
        return self._event.is_set()

    def wait(self) -> Exception | None:
        """The error, or None."""
        assert self._event.wait(PATIENCE), "no answer"
        return self._error


@contextmanager
def hanging(storage: Storage) -> Iterator[Answer]:
    """The storage thread hangs in some other work meanwhile, which has this answer."""
    answers, hangs, done = threading.Event(), threading.Event(), Answer()

    def hang() -> None:
        hangs.set()
        assert answers.wait(PATIENCE)

    storage.post("the disk hangs", hang, done)
    assert hangs.wait(PATIENCE)
    try:
        yield done
    finally:
        answers.set()
    done.wait()
