# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log as a message to clients: whoever logs never waits for whoever changes a vector."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.device import diagnostics
from indi_qsi.device.diagnostics import LOGGERS, Diagnostics
from indi_qsi.properties import Device, Hub, Level, Request
from indi_qsi.properties.vectors import MODEL_LOCK
from indi_qsi.storage import Storage
from tests.support.indi import eventually

PATIENCE = 10.0  # s


class Bench:
    """A device whose log goes to clients. `telling` is set when a thread is about to tell them something."""

    def __init__(self) -> None:
        hub = Hub()
        self.device = Device("test", hub)
        self.telling = threading.Event()
        self.device.tell = self._tell  # type: ignore[method-assign]
        self.storage = Storage()
        self.diagnostics = Diagnostics("test", "camera test", self.device, self.storage)
        self.device.add(self.diagnostics.debug)
        hub.add_device(self.device)

    def _tell(self, text: str, level: Level) -> None:
        self.telling.set()
        Device.tell(self.device, text, level)

    def ask(self, **switches: bool) -> None:
        debug = self.diagnostics.debug
        values = {"ENABLE": False, "DISABLE": False, **switches}
        assert debug.on_request is not None
        debug.on_request(Request(debug, values, values, None))

    def write_a_file(self) -> None:
        output = self.diagnostics._output
        values = {"CLIENT_DEBUG": False, "FILE_DEBUG": True}
        assert output.on_request is not None
        output.on_request(Request(output, values, values, None))
        eventually(lambda: not output.pending, "the file is open")


def levels() -> set[int]:
    return {logging.getLogger(name).level for name in LOGGERS}


@pytest.fixture
def b() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.diagnostics.close()
    bench.storage.close()


def test_who_changes_a_vector_may_log_while_another_thread_does(b: Bench) -> None:
    """A vector's message is logged with the vectors' lock held; the camera thread logs without it."""
    b.ask(ENABLE=True)
    log = logging.getLogger(LOGGERS[0])
    done = threading.Event()

    def change() -> None:
        with MODEL_LOCK:
            other.start()
            assert b.telling.wait(PATIENCE)  # it waits for the vectors now
            log.warning("from within a change")
        done.set()

    other = threading.Thread(target=lambda: log.warning("from the camera thread"), daemon=True)
    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    assert done.wait(PATIENCE), "each of the two waits for the other"
    other.join(PATIENCE)
    assert not other.is_alive()


def test_the_level_is_lowered_as_long_as_any_device_wants_it(b: Bench) -> None:
    other = Bench()
    for bench in (b, other):
        bench.ask(ENABLE=True)
    b.ask(DISABLE=True)
    assert levels() == {logging.DEBUG}
    other.ask(DISABLE=True)
    assert levels() == {logging.NOTSET}
    other.diagnostics.close()
    other.storage.close()


def test_a_disk_that_hangs_keeps_no_thread_that_logs(
    b: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    answers = threading.Event()
    monkeypatch.setattr(diagnostics, "MAX_RECORDS", 100)
    b.ask(ENABLE=True)
    b.write_a_file()
    assert b.diagnostics._file is not None
    handler = b.diagnostics._file._file
    write = handler.emit

    def hang(record: logging.LogRecord) -> None:
        assert answers.wait(PATIENCE)
        write(record)

    handler.emit = hang  # type: ignore[method-assign]
    log = logging.getLogger(LOGGERS[0])
    for number in range(120):
        log.error("number %d", number)  # the last ones are dropped
    answers.set()
    b.ask(DISABLE=True)
    (file,) = tmp_path.rglob("*.log")
    eventually(lambda: "number 99" in file.read_text(), "what could wait is written")
    assert "number 119" not in file.read_text()
