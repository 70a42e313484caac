# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a connection counts and reports, and how another thread ends its waiting."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import PATIENCE
from usbproto.deadline import Stop
from usbproto.errors import Interrupted, LinkError
from usbproto.session import CAREFUL_AFTER, CAREFUL_WITHIN, Session
from usbproto.timing import FAST, TIMINGS, VENDOR

# --- what is odd ---


def test_something_odd_is_logged_once_a_key_and_counted_always(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    session, kept = Session(), []

    def keep(kind: str, reason: str) -> Path | None:
        kept.append((kind, reason))
        return None

    session.keep = keep
    for number in range(3):
        session.odd("first", f"text {number}")
        session.odd("second", "another text")
    assert [record.message for record in caplog.records] == ["text 0", "another text"]
    assert kept == [("odd", "text 0"), ("odd", "another text")]
    assert session.oddities == {"first": 3, "second": 3}
    session.oddities.clear()  # a copy
    assert session.oddities


# --- link errors ---


@pytest.mark.parametrize(
    ("gaps", "careful"),
    [
        ([0.0, 0.0], True),
        ([CAREFUL_WITHIN / 2 - 1.0] * 2, True),
        ([CAREFUL_WITHIN / 2 + 1.0] * 2, False),
        ([CAREFUL_WITHIN, 0.0, 0.0], True),  # an old one does not count, and does not spoil it either
        ([CAREFUL_WITHIN, CAREFUL_WITHIN, CAREFUL_WITHIN], False),
        ([0.0], False),
    ],
)
def test_many_link_errors_within_a_while_ask_for_more_care(gaps: list[float], careful: bool) -> None:
    with Clock():
        session = Session()
        answers = [session.link_error("noise")]
        for gap in gaps:
            time.sleep(gap)
            answers.append(session.link_error("noise"))
        assert (True in answers) == careful
        assert answers.count(True) <= 1
        assert (session.timing is VENDOR) == careful
        assert len(answers) >= CAREFUL_AFTER or not careful


def test_the_vendors_timing_does_not_become_more_careful() -> None:
    session = Session(VENDOR)
    assert not any(session.link_error("noise") for _ in range(3 * CAREFUL_AFTER))
    assert session.timing is VENDOR


def test_the_two_timings() -> None:
    assert {"Fast": FAST, "Vendor": VENDOR} == TIMINGS
    assert (VENDOR.latency_ms, VENDOR.large_reads, VENDOR.merged_looks, VENDOR.estimates) == (
        *(16, False, False, False),
    )
    assert FAST.latency_ms < VENDOR.latency_ms


# --- stopping ---


def test_a_pause_without_a_wish_to_stop_is_a_pause() -> None:
    with Clock() as clock:
        begun, stop = clock.monotonic(), Stop()
        stop.check()
        stop.pause(60.0)
        assert clock.monotonic() - begun >= 60.0
        assert not stop.requested


def test_a_pause_ends_at_once() -> None:
    stop, ended = Stop(), []

    def wait() -> None:
        with pytest.raises(Interrupted) as caught:
            stop.pause(3600.0)
        ended.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    stop.request()
    thread.join(PATIENCE)
    assert len(ended) == 1
    assert stop.requested
    for _ in range(2):  # from now on
        with pytest.raises(Interrupted):
            stop.check()
        with pytest.raises(Interrupted):
            stop.pause(3600.0)


def test_an_interruption_is_no_error_of_the_link() -> None:
    """Else a question would be asked again, and a camera that is well would be talked to more slowly."""
    assert not isinstance(Interrupted(), LinkError)
    assert "as requested" in str(Interrupted())
