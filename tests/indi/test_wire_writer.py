# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written can be read: by any XML parser, and by our own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indi_qsi.wire import writer
from indi_qsi.wire.limits import MAX_OUTGOING_MESSAGE
from indi_qsi.wire.messages import (
    BlobPolicy,
    EnableBlob,
    GetProperties,
    Kind,
    NewVector,
    SnoopedVector,
    State,
)
from indi_qsi.wire.parser import Parser

TEXT = st.text(max_size=60)
NAME = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)


@given(NAME, NAME, NAME, TEXT, TEXT)
def test_any_text_is_escaped(device: str, name: str, element: str, text: str, message: str) -> None:
    data = writer.set_vector(
        Kind.TEXT, device, name, [(element, text, ())], state=State.OK, timeout=0, message=message
    )
    root = ET.fromstring(data)
    clean = re.sub("[\x00-\x1f\x7f\ufffe\uffff]", " ", text)
    assert (root[0].text or "") == clean
    (event,) = Parser().feed(data)
    assert event == SnoopedVector(Kind.TEXT, False, device, name, State.OK, ((element, clean.strip()),))


@given(NAME, NAME, st.lists(st.tuples(NAME, TEXT), max_size=5))
def test_requests_come_back(device: str, name: str, values: list[tuple[str, str]]) -> None:
    (event,) = Parser().feed(writer.new_vector(Kind.TEXT, device, name, values))
    clean = tuple((key, re.sub("[\x00-\x1f\x7f\ufffe\uffff]", " ", text).strip()) for key, text in values)
    assert event == NewVector(Kind.TEXT, device, name, clean)


def test_definitions_have_the_attributes_of_their_kind() -> None:
    common = {"label": "L", "group": "G", "state": State.IDLE}
    items = [("E", "On", (("label", "l"),))]
    more = {"permission": "rw", "rule": "OneOfMany", "timeout": 60}
    switch = ET.fromstring(writer.define_vector(Kind.SWITCH, "D", "N", items, **common, **more))
    assert switch.tag == "defSwitchVector"
    expected = {"perm": "rw", "rule": "OneOfMany", "timeout": "60", "state": "Idle"}
    assert expected.items() <= switch.attrib.items()
    element = switch[0]
    assert (element.tag, element.attrib, element.text) == ("defSwitch", {"name": "E", "label": "l"}, "On")
    light = ET.fromstring(writer.define_vector(Kind.LIGHT, "D", "N", [], **common))
    assert not {"perm", "rule", "timeout"} & set(light.attrib)


def test_time_stamps_are_utc_without_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer.time, "time", lambda: 1_000_000_000.9)
    assert writer.timestamp() == "2001-09-09T01:46:40"
    monkeypatch.setattr(writer.time, "time", lambda: 999_999_999.0)  # the clock was set back
    assert writer.timestamp() == "2001-09-09T01:46:39"


def test_long_messages_are_cut() -> None:
    text = ET.fromstring(writer.message("D", "x" * 1000)).attrib["message"]
    assert len(text) == MAX_OUTGOING_MESSAGE
    assert text.endswith("...")


@pytest.mark.parametrize("attached", [True, False])
def test_blobs(attached: bool) -> None:
    header = writer.blob_header("D", "N", "E", 3, ".fits", attached=attached, state=State.OK, timeout=0)
    blob = ET.fromstring(header + (b"" if attached else b"QUJD") + writer.BLOB_TRAILER)[0]
    expected = {"name": "E", "size": "3", "format": ".fits"}
    assert blob.attrib == (expected | {"len": "3", "attached": "true"} if attached else expected)


def test_small_messages() -> None:
    (event,) = Parser().feed(writer.get_properties("Mount", "COORD"))
    assert event == GetProperties("Mount", "COORD", "1.7")
    (event,) = Parser().feed(writer.enable_blob("D", None, BlobPolicy.NEVER))
    assert event == EnableBlob("D", None, BlobPolicy.NEVER)
    assert ET.fromstring(writer.delete_property("D", "N")).attrib.keys() == {"device", "name", "timestamp"}
