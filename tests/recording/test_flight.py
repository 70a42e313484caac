# SPDX-License-Identifier: LGPL-2.1-or-later
"""The flight recorder's memory: what it keeps, what it counts, and which digits it never shows."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.indi import PATIENCE, eventually
from usbproto import flight
from usbproto.flight import KEPT, KEPT_BYTES, KEPT_TEXT, FlightRecorder
from usbproto.flightfiles import FlightFiles
from usbproto.models import Address
from usbproto.packets import (
    GET_DEVICE_DETAILS,
    GET_DEVICE_STATE,
    GET_EEPROM,
    Byte,
    DeviceDetails,
    EepromAddress,
    encode_answer,
    encode_request,
)

SERIALS = ("00602123", "05001234")
STATE = bytes((GET_DEVICE_STATE.code, 0))
IDLE, EXPOSING = bytes.fromhex("420407000000"), bytes.fromhex("420406ff0000")


def entries(recorder: FlightRecorder) -> list[dict[str, Any]]:
    return recorder.lines()[1:]


def details(serial: str) -> bytes:
    flags = (True,) * 5
    answer = DeviceDetails(*flags, 3326, 2504, 5.4, 5.4, 9, 9, True, False, 1, False, 5, "683", "QSI", serial)
    return encode_answer(GET_DEVICE_DETAILS, answer)


# --- what is kept ---


def test_an_exchange_has_its_bytes_times_and_outcome() -> None:
    recorder = FlightRecorder()
    began = time.monotonic()
    recorder.answered(STATE, memoryview(IDLE), began, 0.25)
    recorder.failed(STATE, IDLE[:2], "The camera did not answer", began + 1, 15.0)
    recorder.received("pixels", 17_000_000, began + 17, 0.5)
    first, second, third = entries(recorder)
    assert (first["e"], first["sent"], first["got"], first["took"]) == ("exchange", "4200", IDLE.hex(), 0.25)
    assert "count" not in first and "error" not in first
    assert (second["got"], second["error"], second["took"]) == ("4204", "The camera did not answer", 15.0)
    assert second["t"] - first["t"] == pytest.approx(1.0, abs=1e-5)
    assert (third["e"], third["what"], third["bytes"]) == ("received", "pixels", 17_000_000)
    assert 0 <= first["t"] <= recorder.lines()[0]["t"]


def test_the_buffer_of_an_answer_may_be_used_again() -> None:
    recorder = FlightRecorder()
    buffer = bytearray(IDLE)
    recorder.answered(STATE, memoryview(buffer), 0.0, 0.1)
    buffer[:] = bytes(len(buffer))
    assert entries(recorder)[0]["got"] == IDLE.hex()


def test_only_the_beginning_of_a_long_answer_is_kept() -> None:
    recorder = FlightRecorder()
    answer = details("00602123")
    recorder.answered(b"\x41\0", answer, 0.0, 0.1)
    (line,) = entries(recorder)
    assert bytes.fromhex(line["got"]) == answer[:KEPT_BYTES]
    assert line["got_length"] == len(answer)


def test_equal_exchanges_in_a_row_are_one_entry() -> None:
    recorder = FlightRecorder()
    for number, seconds in enumerate((0.3, 0.1, 0.2)):
        recorder.answered(STATE, IDLE, 100.0 + number, seconds)
    recorder.answered(STATE, EXPOSING, 103.0, 0.1)
    recorder.answered(STATE, IDLE, 104.0, 0.1)
    first, second, third = entries(recorder)
    assert (first["count"], first["least"], first["took"]) == (3, 0.1, 0.3)
    assert first["last"] - first["t"] == pytest.approx(2.0)
    assert (second["got"], third["got"]) == (EXPOSING.hex(), IDLE.hex())
    assert "count" not in second and "count" not in third


def test_answers_of_different_lengths_with_the_same_beginning_are_different() -> None:
    recorder = FlightRecorder()
    for length in (KEPT_BYTES, KEPT_BYTES + 1):
        recorder.answered(STATE, bytes(length), 1.0, 0.1)
    assert [line.get("got_length") for line in entries(recorder)] == [None, KEPT_BYTES + 1]


@pytest.mark.parametrize("between", ["note", "pixels", "failure"])
def test_what_comes_between_separates_equal_exchanges(between: str) -> None:
    recorder = FlightRecorder()
    recorder.answered(STATE, IDLE, 1.0, 0.1)
    if between == "note":
        recorder.note("phase", "exposing")
    elif between == "pixels":
        recorder.received("pixels", 10, 2.0, 0.1)
    else:
        recorder.failed(STATE, IDLE, "broken", 2.0, 0.1)
    recorder.answered(STATE, IDLE, 3.0, 0.1)
    assert [line.get("count", 1) for line in entries(recorder)] == [1, 1, 1]


def test_different_failures_are_different_entries() -> None:
    recorder = FlightRecorder()
    for error in ("silent", "silent", "wrong echo"):
        recorder.failed(STATE, b"", error, 1.0, 0.1)
    assert [(line["error"], line.get("count", 1)) for line in entries(recorder)] == [
        ("silent", 2),
        ("wrong echo", 1),
    ]


def test_the_oldest_entries_are_dropped_and_the_newest_stay() -> None:
    recorder = FlightRecorder()
    for number in range(KEPT + 10):
        recorder.answered(STATE, number.to_bytes(4, "big"), float(number), 0.1)
    got = [int(line["got"], 16) for line in entries(recorder)]
    assert got == list(range(10, KEPT + 10))


def test_entries_are_shown_by_the_time_of_their_beginning() -> None:
    recorder = FlightRecorder()
    began = time.monotonic()
    recorder.note("phase", "starting")
    recorder.answered(STATE, IDLE, began, 15.0)
    assert [line["e"] for line in entries(recorder)] == ["exchange", "note"]


def test_the_heading_has_the_facts_and_no_fact_replaces_its_own_keys() -> None:
    recorder = FlightRecorder()
    recorder.facts |= {"model": "683wsg", "driver": "1.2", "at": "never", "reason": "none"}
    heading = recorder.lines("The camera left", "lost")[0]
    assert next(iter(heading)) == flight.FORMAT and heading[flight.FORMAT] == flight.VERSION
    assert (heading["model"], heading["driver"]) == ("683wsg", "1.2")
    assert (heading["reason"], heading["kind"]) == ("The camera left", "lost")
    assert heading["at"].endswith("+00:00")


def test_long_texts_are_cut() -> None:
    recorder = FlightRecorder()
    recorder.note("k" * 1000, "n" * 1000)
    recorder.failed(STATE, b"", "e" * 1000, 1.0, 0.1)
    recorder.received("w" * 1000, 1, 2.0, 0.1)
    recorder.facts["model"] = "f" * 1000
    for line in recorder.lines("r" * 1000):
        assert all(len(value) <= KEPT_TEXT for value in line.values() if isinstance(value, str))


# --- threads ---


@contextmanager
def eager_threads() -> Iterator[None]:
    """Threads are switched as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_notes_and_readers_do_not_disturb_the_camera_thread() -> None:
    recorder = FlightRecorder()
    failures: list[BaseException] = []
    enough = threading.Event()

    def busy(step: Callable[[int], None]) -> None:
        try:
            for number in itertools.count():
                step(number)
                if enough.is_set():
                    return
        except BaseException as error:
            failures.append(error)

    def exchange(number: int) -> None:
        recorder.answered(STATE, number.to_bytes(6, "big"), float(number), 0.1)

    def annotate(number: int) -> None:
        recorder.note("phase", "exposing")

    threads = [threading.Thread(target=busy, args=(step,)) for step in (exchange, annotate)]
    with eager_threads():
        for thread in threads:
            thread.start()
        eventually(lambda: len(entries(recorder)) == KEPT, "the memory is full")
        try:
            for _ in range(50):
                lines = entries(recorder)
                assert len(lines) == KEPT
                assert {line["e"] for line in lines} <= {"exchange", "note"}
        finally:
            enough.set()
            for thread in threads:
                thread.join(PATIENCE)
    assert not failures


def test_no_exchange_is_lost_while_other_threads_note() -> None:
    recorder = FlightRecorder()
    rounds, notes = 50 * KEPT, KEPT // 4  # few enough that nothing is dropped
    others = [
        threading.Thread(target=lambda: [recorder.note("n", "x") for _ in range(notes // 2)]) for _ in (0, 1)
    ]
    with eager_threads():
        for thread in others:
            thread.start()
        for number in range(rounds):
            recorder.answered(STATE, IDLE, float(number), 0.1)
        for thread in others:
            thread.join(PATIENCE)
    lines = entries(recorder)
    assert sum(line["e"] == "note" for line in lines) == notes
    assert sum(line.get("count", 1) for line in lines if line["e"] == "exchange") == rounds


# --- serial numbers ---


def test_a_serial_number_is_masked_that_was_noted_before_it_was_known() -> None:
    recorder = FlightRecorder()
    recorder.note("found", "camera 00602123, in hexadecimal 3030363032313233")
    recorder.mask("00602123")
    (line,) = entries(recorder)
    assert line["text"] == "camera 00600001, in hexadecimal 3030363030303031"


def test_the_serial_number_in_the_eeprom_is_hidden_without_being_known() -> None:
    recorder = FlightRecorder()
    for place in range(0x08, 0x20):
        recorder.answered(
            encode_request(GET_EEPROM, EepromAddress(place)), encode_answer(GET_EEPROM, Byte(0x37)), 0.0, 0.1
        )
    for line in entries(recorder):
        serial = 0x10 <= int(line["sent"][4:], 16) <= 0x17
        assert line["got"] == ("60022a00" if serial else "60023700")
        assert line.get("hidden", False) is serial


def test_a_garbled_answer_about_the_serial_number_is_hidden_too() -> None:
    recorder = FlightRecorder()
    sent = encode_request(GET_EEPROM, EepromAddress(Address.HARDWARE_SERIAL))
    recorder.answered(sent, bytes.fromhex("6004370031323300"), 0.0, 0.1)
    recorder.failed(sent, b"7700", "GetEEPROM: the camera answered 3737 to 6002", 1.0, 0.1)
    longer, wrong = entries(recorder)
    assert longer["got"] == "60042a002a2a2a2a"
    assert wrong["got"] == b"****".hex() and "3737" not in wrong["error"]


@pytest.mark.parametrize("before", range(KEPT_BYTES - 9, KEPT_BYTES + 1))
def test_a_serial_number_that_the_limit_cuts_shows_only_its_first_digits(before: int) -> None:
    serial = "97654321"
    recorder = FlightRecorder()
    recorder.mask(serial)
    recorder.answered(b"\x41\0", b"\x41" + bytes(before - 1) + serial.encode() + b"\0", 0.0, 0.1)
    got = bytes.fromhex(entries(recorder)[0]["got"])
    assert len(got) == KEPT_BYTES
    assert got[before:] == b"97600001\0"[: KEPT_BYTES - before]


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_serial_number_in_two_pieces_is_hidden(cut: int) -> None:
    serial = b"97654328"
    recorder = FlightRecorder()
    recorder.mask(serial.decode())
    recorder.failed(b"\x41\0", b"\x41\x66" + serial[:cut], "cut", 0.0, 0.1)
    recorder.failed(b"\x41\0", serial[cut:] + b"\0", "stray", 1.0, 0.1)
    shown = b"".join(bytes.fromhex(line["got"]) for line in entries(recorder))
    assert not any(serial[start : start + 4] in shown for start in range(1, 5))


def test_a_serial_number_with_letters_is_found_in_hexadecimal_of_both_cases() -> None:
    recorder = FlightRecorder()
    recorder.mask("QSIJKLMN")
    data = b"QSIJKLMN".hex()
    recorder.note("odd", f"{data} {data.upper()}")
    masked = b"QSI00001".hex()
    assert entries(recorder)[0]["text"] == f"{masked} {masked.upper()}"


@pytest.mark.parametrize("start", range(KEPT_TEXT - 20, KEPT_TEXT + 1))
@pytest.mark.parametrize("form", [SERIALS[0], SERIALS[0].encode().hex()])
def test_a_serial_number_in_a_text_that_is_cut_is_masked(start: int, form: str) -> None:
    recorder = FlightRecorder()
    recorder.mask(SERIALS[0])
    recorder.note("note", "-" * start + form + "-" * 100)
    text = entries(recorder)[0]["text"]
    masked = "00600001" if form == SERIALS[0] else b"00600001".hex()
    assert text == ("-" * start + masked + "-" * 100)[:KEPT_TEXT]


PIECES = st.one_of(
    st.sampled_from([serial.encode() for serial in SERIALS]),
    st.sampled_from([serial.encode()[:n] for serial in SERIALS for n in range(1, 8)]),
    st.sampled_from([serial.encode()[n:] for serial in SERIALS for n in range(1, 8)]),
    st.sampled_from([details(SERIALS[0]), b"\0" * 16, b"\x41\x66", STATE]),
    st.binary(max_size=20),
)
DATA = st.lists(PIECES, max_size=4).map(b"".join)
TEXTS = DATA.flatmap(lambda data: st.sampled_from([data.decode("latin-1"), data.hex(), data.hex().upper()]))
EXCHANGES = st.lists(st.tuples(DATA, DATA, TEXTS, st.booleans()), max_size=8)


def on_disk(recorder: FlightRecorder, reason: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        files = FlightFiles(Path(folder))
        path = files.save(recorder, "test", reason)
        files.close()
        assert path is not None
        return path.read_bytes()


# A busy disk is no failure.
@settings(deadline=None, max_examples=300)
@given(EXCHANGES, TEXTS)
@example([], "\0" + SERIALS[0][1:])
@example([], "\u0100602123")
@example([], "\ud800" + SERIALS[0])
def test_no_serial_number_reaches_the_disk(
    exchanges: list[tuple[bytes, bytes, str, bool]], text: str
) -> None:
    recorder = FlightRecorder()
    for serial in SERIALS:
        recorder.mask(serial)
    for sent, got, error, failed in exchanges:
        if failed:
            recorder.failed(sent, got, error, 0.0, 0.1)
        else:
            recorder.answered(sent, got, 0.0, 0.1)
        recorder.note(error, error)
    for serial in SERIALS:
        for place, char in enumerate(serial.encode()):
            sent = encode_request(GET_EEPROM, EepromAddress(Address.HARDWARE_SERIAL + place))
            recorder.answered(sent, encode_answer(GET_EEPROM, Byte(char)), 0.0, 0.1)
    recorder.facts[text] = text
    data = on_disk(recorder, text)
    lines = [json.loads(line) for line in data.splitlines()]
    told = [data.lower()]
    told += [bytes.fromhex(line[key]) for line in lines for key in ("sent", "got") if key in line]
    told.append(
        b"".join(
            bytes.fromhex(line["got"])[2:3] for line in lines if str(line.get("sent")).startswith("600200")
        )
    )
    for serial in SERIALS:
        for form in (serial.encode(), serial.encode().hex().encode()):
            assert not [part for part in told if form in part]


def test_serial_numbers_would_be_found_if_they_were_not_masked() -> None:
    recorder = FlightRecorder()
    recorder.failed(STATE, b"\0" + SERIALS[0].encode(), SERIALS[1], 0.0, 0.1)
    data = on_disk(recorder, "")
    assert SERIALS[0].encode().hex().encode() in data and SERIALS[1].encode() in data
