# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model finds what is wrong: a right record passes, and does not pass any more with one thing changed in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest

from tests.orders import bench, sequences
from tests.orders.model import Judge
from tests.orders.record import Event, Record

QUIET = "wait 10"
STEPS = (
    *("c0 Gain.Low=On", QUIET, "c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.31", "wait 1", "c1 Gain.Low=On", QUIET),
    *("c0 FILTER_SLOT.FILTER_SLOT_VALUE=3", QUIET),
    *("c0 TELESCOPE_TIMED_GUIDE_WE.TIMED_GUIDE_W=200 TIMED_GUIDE_E=0", QUIET),
    *("c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.32", "wait 0.3", "c0 CCD_ABORT_EXPOSURE.ABORT=On", QUIET),
    *("c0 CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE=5", QUIET, "c0 CCD_BINNING.HOR_BIN=99 VER_BIN=99"),
)


@pytest.fixture(scope="module")
def right() -> Record:
    record, problems = bench.play("683wsg", STEPS)
    assert not problems, problems
    return record


def at(record: Record, kind: str, name: str, state: str = "") -> int:
    """The index of the last such event."""
    found = [
        index
        for index, event in enumerate(record.events)
        if event.kind == kind and event.name == name and state in ("", event.state)
    ]
    return found[-1]


def insert(record: Record, index: int, event: Event) -> None:
    """Before an event; the ends of requests move with it."""
    record.events.insert(index, event)
    for each in record.events:
        if each.kind == "request" and each.end >= index:
            each.end += 1


def told(record: Record, index: int, state: str) -> Event:
    """Another update like the one at an index."""
    event = copy.deepcopy(record.events[index])
    event.state, event.own = state, False
    return event


def no_frame(record: Record) -> None:
    record.events[at(record, "frame", "")].kind = "message"


def two_frames(record: Record) -> None:
    index = at(record, "frame", "")
    insert(record, index, copy.deepcopy(record.events[index]))


def wrong_gain(record: Record) -> None:
    index = next(i for i, e in enumerate(record.events) if e.name == "expose")
    facts = dict(record.camera_settings) | {"gain": 0}
    insert(record, index, Event(record.events[index].at, "camera", "settings", facts))


def early_end(record: Record) -> None:
    index = at(record, "set", "FILTER_SLOT", "Busy")
    insert(record, index + 2, told(record, index, "Ok"))


def second_end(record: Record) -> None:
    index = at(record, "set", "FILTER_SLOT", "Ok")
    insert(record, index + 1, told(record, index, "Ok"))


def no_end(record: Record) -> None:
    index = at(record, "set", "FILTER_SLOT", "Ok")
    record.events[index].kind = "message"


def second_pulse_end(record: Record) -> None:
    index = at(record, "set", "TELESCOPE_TIMED_GUIDE_WE", "Idle")
    insert(record, index + 1, told(record, index, "Idle"))


def unasked_pulse(record: Record) -> None:
    index = at(record, "camera", "relay")
    record.events[index].data = {"x": -30, "y": 0}


def unasked_busy(record: Record) -> None:
    index = at(record, "set", "Gain", "Ok")
    insert(record, index + 1, told(record, index, "Busy"))


def command(record: Record, before: str, name: str) -> None:
    index = at(record, "camera", before)
    insert(record, index, Event(record.events[index].at, "camera", "command", {"code": 0, "command": name}))


def not_quiet(record: Record) -> None:
    command(record, "idle", "GetTemperature")


def not_quiet_in_the_transfer(record: Record) -> None:
    index = at(record, "camera", "transfer")  # behind TransferImage, before GetAutoZero
    facts = {"code": 0, "command": "GetDeviceState"}
    insert(record, index + 1, Event(record.events[index].at, "camera", "command", facts))


def reached_too_early(record: Record) -> None:
    index = at(record, "set", "CCD_TEMPERATURE", "Busy")
    record.events[index].state = "Ok"


def set_point_lost(record: Record) -> None:
    index = len(record.events)
    facts = {"on": True, "ambient": False, "set_point": -3.0}
    insert(record, index, Event(record.events[-1].at, "camera", "temperature", facts))


def accepted_nonsense(record: Record) -> None:
    index = at(record, "set", "CCD_BINNING")
    record.events[index].state, record.events[index].message = "Ok", ""


def refused_without_a_word(record: Record) -> None:
    index = at(record, "set", "CCD_BINNING")
    record.events[index].kind = "message"
    record.events[index].message = ""


def stays_busy(record: Record) -> None:
    record.busy.append("Fan")


def frame_of_an_aborted_exposure(record: Record) -> None:
    index = at(record, "set", "CCD_ABORT_EXPOSURE", "Ok")
    frame = copy.deepcopy(record.events[at(record, "frame", "")])
    frame.data = dict(frame.data) | {"EXPTIME": "0.32"}
    insert(record, index + 3, frame)


def wrong_header(record: Record) -> None:
    index = at(record, "frame", "")
    record.events[index].data = dict(record.events[index].data) | {"XBINNING": "2"}


CHANGES: tuple[Callable[[Record], None], ...] = (
    *(no_frame, two_frames, wrong_gain, early_end, second_end, no_end, second_pulse_end, unasked_pulse),
    *(unasked_busy, not_quiet, not_quiet_in_the_transfer, reached_too_early, set_point_lost),
    *(accepted_nonsense, refused_without_a_word, stays_busy, frame_of_an_aborted_exposure, wrong_header),
)


@pytest.fixture
def changed(right: Record) -> Iterator[Record]:
    yield copy.deepcopy(right)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_record_with_one_wrong_thing_does_not_pass(
    changed: Record, change: Callable[[Record], None]
) -> None:
    change(changed)
    assert Judge(changed).judge()


def test_a_copy_passes(changed: Record) -> None:
    assert not Judge(changed).judge()


def test_a_seed_gives_the_same_sequence_each_time() -> None:
    assert sequences.make(7, "683wsg") == sequences.make(7, "683wsg")
    assert sequences.make(7, "683wsg") != sequences.make(8, "683wsg")


def test_shrinking_leaves_what_matters() -> None:
    steps = [str(number) for number in range(40)]
    assert sequences.shrink(steps, lambda left: {"3", "17"} <= set(left)) == ["3", "17"]
