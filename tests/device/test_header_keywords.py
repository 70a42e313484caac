# SPDX-License-Identifier: LGPL-2.1-or-later
"""FITS_HEADER: what clients may add to headers, and what they may not."""

from __future__ import annotations

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from indi_qsi.device.header import header
from indi_qsi.device.keywords import MAX_CARDS, KeywordsSubject, guessed
from indi_qsi.properties import Device, Hub, State
from indi_qsi.wire.messages import Kind, NewVector
from tests.device.test_header_cards import FACTS, replace, written
from tests.device.test_header_fits import header_of
from tests.support.indi import RecordingLink


class World:
    def __init__(self) -> None:
        self.hub = Hub()
        self.link = RecordingLink()
        self.hub.attach(self.link)
        device = Device("D", self.hub)
        self.subject = KeywordsSubject()
        device.add(*self.subject.vectors())
        self.hub.add_device(device)
        self.link.take()

    def give(self, name: str = "", value: str = "", comment: str = "") -> tuple[str, str]:
        """State and message of the answer."""
        elements = {"KEYWORD_NAME": name, "KEYWORD_VALUE": value, "KEYWORD_COMMENT": comment}
        self.hub.dispatch(self.link, NewVector(Kind.TEXT, "D", "FITS_HEADER", tuple(elements.items())))
        answer = self.link.take()[-1]
        return answer.attrib["state"], answer.attrib.get("message", "")

    def header(self) -> fits.Header:
        return header_of(self.subject.cards())


def test_what_ekos_sends() -> None:
    world = World()
    for _ in range(2):  # before each job
        for name, value in (("Observer", "Jörg Müller"), ("Object", "NGC 7331"), ("TELESCOP", "RC8")):
            assert world.give(name, value) == ("Ok", "")
    found = world.header()
    assert (found["OBSERVER"], found["OBJECT"], found["TELESCOP"]) == ("Jorg Muller", "NGC 7331", "RC8")
    assert world.give("Observer", "") == ("Ok", "")
    assert "OBSERVER" not in world.header()


def test_sorted_replaced_and_cleared() -> None:
    world = World()
    for name, value in (("ZZ", "1"), ("aa", "2"), ("ZZ", "3")):
        world.give(name, value)
    world.give(comment="first")
    world.give(comment="second")
    world.give(comment="first")
    world.give("history", "made")
    assert [card.keyword for card in world.subject.cards()] == ["AA", "ZZ", "COMMENT", "COMMENT", "HISTORY"]
    assert world.header()["ZZ"] == 3
    assert world.give("indi_clear") == ("Ok", "")
    assert world.subject.cards() == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            (name, "structure")
            for name in ("SIMPLE", "bitpix", "NAXIS", "NAXIS2", "END", "CONTINUE", "BZERO")
        ),
        *((name, "structure") for name in ("HIERARCH", "XTENSION", "EXTEND", "CHECKSUM", "PCOUNT")),
        *(
            (name, "driver itself")
            for name in ("EXPTIME", "DATE-OBS", "ccd-temp", "EGAIN", "XBINNING", "SWCREATE")
        ),
        *((name, "valid are 1 to 8") for name in ("TOOLONGNAME", "A B", "Größe", "A=B", "A.B", "ß", "猫")),
    ],
)
def test_refused_with_a_reason(name: str, reason: str) -> None:
    world = World()
    state, message = world.give(name, "1")
    assert state == "Alert"
    assert reason in message
    assert world.subject.cards() == ()
    assert world.give("OBJECT", "x")[0] == "Ok"


def test_empty_records_are_refused() -> None:
    world = World()
    assert world.give()[0] == "Alert"
    assert world.give(value="5")[0] == "Alert"


def test_a_flood_ends() -> None:
    world = World()
    states = [world.give(f"K{number}", "1")[0] for number in range(MAX_CARDS + 1)]
    assert states == ["Ok"] * MAX_CARDS + ["Alert"]
    assert world.give("K1", "2")[0] == "Ok"  # replacing is no more
    assert world.header()["K1"] == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-007", -7),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", "1_000"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("0x10", "0x10"),
        ("1e999", "1e999"),
        ("9" * 400 + ".0", "9" * 400 + ".0"),
        ("12345678901234567890", "12345678901234567890"),
        ("١٢", "١٢"),
        ("", ""),
    ],
)
def test_guessing(text: str, value: object) -> None:
    found = guessed(text)
    assert (found, type(found)) == (value, type(value))


def test_names_are_texts_even_if_they_look_like_numbers() -> None:
    world = World()
    world.give("OBJECT", "7331")
    assert world.header()["OBJECT"] == "7331"


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=200), st.text(max_size=90)), max_size=8))
def test_no_client_breaks_a_header(records: list[tuple[str, str, str]]) -> None:
    world = World()
    for name, value, comment in records:
        world.give(name, value, comment)
    found = header_of(header(replace(FACTS, custom=world.subject.cards())))
    plain = written()
    assert all(
        found[name] == plain[name] for name in plain if name not in ("COMMENT", "INSTRUME", "TELESCOP")
    )


@given(st.from_regex("[A-Za-z0-9_-]{1,8}", fullmatch=True), st.text(min_size=1, max_size=200))
def test_every_legal_name_is_taken_or_refused_and_never_breaks(name: str, value: str) -> None:
    world = World()
    state, message = world.give(name, value)
    found = header_of(header(replace(FACTS, custom=world.subject.cards())))
    assert found["EXPTIME"] == 600
    assert (state == "Alert") is bool(message)


def test_the_vector_is_write_only() -> None:
    vector = World().subject.vector
    assert b"perm='wo'" in vector.definition("D").replace(b'"', b"'")
    assert vector.state is State.IDLE
