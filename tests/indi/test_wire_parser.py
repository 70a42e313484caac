# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parser: every message, every limit at n-1, n, n+1, and what garbage can and cannot do."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indi_qsi.wire import limits
from indi_qsi.wire.messages import (
    BlobPolicy,
    DelProperty,
    EnableBlob,
    GetProperties,
    Kind,
    NewVector,
    PingReply,
    PingRequest,
    Problem,
    Severity,
    SnoopedVector,
    State,
)
from indi_qsi.wire.parser import Parser

GOOD = b"<getProperties version='1.7'/>"
GOOD_MESSAGE = GetProperties(None, None, "1.7")


def parse(data: bytes | str) -> list[object]:
    return list(Parser().feed(data.encode() if isinstance(data, str) else data))


def one(data: bytes | str) -> object:
    (event,) = parse(data)
    return event


def problem(data: bytes | str) -> Problem:
    """The only problem; a good message behind it must have survived."""
    events = parse((data.encode() if isinstance(data, str) else data) + GOOD)
    assert events[-1] == GOOD_MESSAGE
    (found,) = events[:-1]
    assert isinstance(found, Problem)
    return found


def text_vector(text: str = "x", name: str = "N", device: str = "D", element: str = "E") -> str:
    return (
        f"<newTextVector device='{device}' name='{name}'><oneText name='{element}'>{text}</oneText>"
        "</newTextVector>"
    )


MESSAGES = [
    ("<getProperties/>", GetProperties()),
    ("<getProperties version='1.7' device='D' name='N'/>", GetProperties("D", "N", "1.7")),
    ("<getProperties device='' name=''/>", GetProperties()),
    (text_vector(), NewVector(Kind.TEXT, "D", "N", (("E", "x"),))),
    (
        "<newNumberVector device='D' name='N' timestamp='2026-01-01T00:00:00'>\n  <oneNumber name='A'>\n 1 \n"
        "</oneNumber><oneNumber name='B'>-0:30</oneNumber></newNumberVector>",
        NewVector(Kind.NUMBER, "D", "N", (("A", "1"), ("B", "-0:30"))),
    ),
    (
        '<newSwitchVector name="N" device="D"><oneSwitch name="A">On</oneSwitch></newSwitchVector>',
        NewVector(Kind.SWITCH, "D", "N", (("A", "On"),)),
    ),
    ("<newTextVector device='D' name='N'/>", NewVector(Kind.TEXT, "D", "N", ())),
    ("<enableBLOB device='D'>\nAlso\n</enableBLOB>", EnableBlob("D", None, BlobPolicy.ALSO)),
    ("<enableBLOB device='D' name='N'>Only</enableBLOB>", EnableBlob("D", "N", BlobPolicy.ONLY)),
    ("<pingRequest uid='a/1'/>", PingRequest("a/1")),
    ("<pingReply uid='SetBLOB/1'/>", PingReply("SetBLOB/1")),
    ("<delProperty device='D'/>", DelProperty("D")),
    ("<delProperty device='D' name='N' timestamp='x'/>", DelProperty("D", "N")),
    (
        "<defNumberVector device='M' name='N' state='Ok' perm='rw'>"
        "<defNumber name='RA' label='' format='%m'>\n1</defNumber></defNumberVector>",
        SnoopedVector(Kind.NUMBER, True, "M", "N", State.OK, (("RA", "1"),)),
    ),
    (
        "<setLightVector device='M' name='N'><oneLight name='L'>Busy</oneLight></setLightVector>",
        SnoopedVector(Kind.LIGHT, False, "M", "N", None, (("L", "Busy"),)),
    ),
]


@pytest.mark.parametrize(("text", "message"), MESSAGES)
def test_each_message(text: str, message: object) -> None:
    assert one(text) == message


def test_entities_and_latin_1_and_utf_8() -> None:
    assert one(text_vector("&lt;&amp;&gt;&quot;&apos; &#233;")).values == (("E", "<&>\"' é"),)  # type: ignore[attr-defined]
    assert one(text_vector("Hα")).values == (("E", "Hα"),)  # type: ignore[attr-defined]
    assert one(text_vector("Fünf").encode("latin-1")).values == (("E", "Fünf"),)  # type: ignore[attr-defined]


def test_declarations_and_messages_of_others_are_skipped_silently() -> None:
    data = (
        b"<?xml version='1.0' encoding='latin-9'?>\n" + GOOD + b"<?xml version='1.0'?><?xml version='1.0'?>"
    )
    assert parse(data + GOOD + b"<message device='M' message='hello'/>\n") == [GOOD_MESSAGE] * 2


def test_unknown_elements_and_attributes_inside_are_ignored() -> None:
    inside = "t<new><er/></new><oneText name='E' x='1'>x</oneText>"
    data = f"<newTextVector device='D' name='N' x='1'>{inside}</newTextVector>"
    assert one(data) == NewVector(Kind.TEXT, "D", "N", (("E", "x"),))


@pytest.mark.parametrize(
    ("data", "severity", "reason"),
    [
        ("<what><ever/></what>", Severity.NOTE, "unknown element 'what'"),
        ("hello ", Severity.BROKEN, "text between messages"),
        ("\0", Severity.BROKEN, "text between messages"),
        ("</newTextVector>", Severity.BROKEN, "broken XML"),
        (text_vector("a & b"), Severity.BROKEN, "broken XML"),
        (text_vector("&nbsp;"), Severity.BROKEN, "broken XML"),
        (text_vector("\1"), Severity.BROKEN, "broken XML"),
        (text_vector("&#1;"), Severity.BROKEN, "broken XML"),
        (text_vector()[:-5], Severity.BROKEN, "broken XML"),
        (text_vector()[:-16], Severity.BROKEN, "getProperties inside another message"),
        ("<newTextVector device='D", Severity.BROKEN, "broken XML"),
        ("<newTextVector device='D' device='E' name='N'/>", Severity.BROKEN, "broken XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>", Severity.BROKEN, "DTD"),
        ("<!-- never closed ", Severity.BROKEN, "comment"),
        (text_vector("<![CDATA[x"), Severity.BROKEN, "CDATA"),
        ("<?php echo ?>", Severity.BROKEN, "processing instruction"),
        ("<?xml never closed ", Severity.BROKEN, "processing instruction"),
        (text_vector("<?php echo ?>"), Severity.BROKEN, "instruction"),
        ("<newTextVector name='N'/>", Severity.REFUSED, "device is missing"),
        ("<newTextVector device='D'/>", Severity.REFUSED, "name is missing"),
        (text_vector(element=""), Severity.REFUSED, "name of oneText is missing"),
        (text_vector(element="a&#10;b"), Severity.REFUSED, "control characters"),
        (text_vector(device="a&#9;b"), Severity.REFUSED, "control characters"),
        ("<enableBLOB device='D'>Perhaps</enableBLOB>", Severity.REFUSED, "neither Never"),
        ("<newBLOBVector device='D' name='N'><oneBLOB name='E' size='3'>AAAA", Severity.REFUSED, "BLOBs"),
    ],
)
def test_refused_input_is_one_problem_and_costs_nothing_else(
    data: str, severity: Severity, reason: str
) -> None:
    found = problem(data)
    assert found.severity is severity
    assert reason in found.reason


def test_a_large_blob_from_a_client_is_dropped_without_being_kept() -> None:
    parser = Parser()
    events = parser.feed(b"<newBLOBVector device='D' name='N'><oneBLOB name='E' size='9'>")
    tracemalloc.start()
    for _ in range(200):
        events += parser.feed(b"QUJD" * 10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    events += parser.feed(b"</oneBLOB></newBLOBVector>" + GOOD)
    assert [type(event) for event in events] == [Problem, GetProperties]
    assert peak < 500_000


def nested(depth: int) -> str:
    inner = depth - 1
    return f"<newTextVector device='D' name='N'>{'<a>' * inner}{'</a>' * inner}</newTextVector>"


def many(count: int) -> str:
    member = "<oneText name='E'/>"
    return f"<newTextVector device='D' name='N'>{member * count}</newTextVector>"


def message_of(length: int) -> str:
    """A message of exactly this many bytes, each of its texts within the limit."""
    head, tail = "<newTextVector device='D' name='N'>", "</newTextVector>"
    member = "<oneText name='E'>{}</oneText>"
    frame = len(member.format(""))
    rest = length - len(head) - len(tail)
    texts = []
    while rest > 0:
        size = min(rest - frame, limits.MAX_TEXT - 100)
        if 0 < rest - frame - size < frame:
            size -= frame
        texts.append(member.format("x" * size))
        rest -= frame + size
    message = head + "".join(texts) + tail
    assert len(message) == length
    return message


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: text_vector(device="d" * n), limits.MAX_NAME),
        (lambda n: text_vector(name="n" * n), limits.MAX_NAME),
        (lambda n: text_vector(element="é" * n), limits.MAX_NAME),
        (lambda n: f"<newTextVector device='D' name='N'><{'t' * n}/></newTextVector>", limits.MAX_NAME),
        (lambda n: f"<getProperties {'a' * n}='x'/>", limits.MAX_NAME),
        (lambda n: f"<getProperties version='{'v' * n}'/>", limits.MAX_ATTRIBUTE),
        (lambda n: "<getProperties" + "".join(f" a{i}='x'" for i in range(n)) + "/>", limits.MAX_ATTRIBUTES),
        (lambda n: text_vector("x" * n), limits.MAX_TEXT),
        (lambda n: text_vector("é" * n), limits.MAX_TEXT),
        (nested, limits.MAX_DEPTH),
        (many, limits.MAX_ELEMENTS),
        (message_of, limits.MAX_MESSAGE),
        (lambda n: f"<getProperties{' ' * (n - 16)}/>", limits.MAX_RUN),
    ],
)
def test_limits(make: object, limit: int) -> None:
    for size in (limit - 1, limit):
        assert not isinstance(one(make(size)), Problem)  # type: ignore[operator]
    assert problem(make(limit + 1)).severity is Severity.REFUSED  # type: ignore[operator]


# Pieces of INDI and of nonsense, from which streams are made.
NONSENSE = [
    *(b"< > /> </ ' \" & &amp; <!-- --> <![CDATA[ ]]> <? ?> <unknown> </unknown> \xe4 \xc3 \0".split(b" ")),
    b" \n",
    b"<?xml version='1.0'?>",
    b"<newTextVector device='D' name='N'>",
    b"</newTextVector>",
    b"<oneText name='E'>",
    b"</oneText>",
    b"<newBLOBVector>",
    b"<getProperties ",
    b"<newNumberVector device='",
    b"x" * 5000,
    b"<a " + b"b" * 20000,
]
FRAGMENTS = st.one_of(
    st.sampled_from([text.encode() for text, _ in MESSAGES]),
    st.sampled_from(NONSENSE),
    st.binary(max_size=20),
)
STREAMS = st.lists(FRAGMENTS, max_size=12).map(b"".join)


@settings(deadline=None, max_examples=150)
@given(STREAMS, st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_the_result_does_not_depend_on_the_portions(stream: bytes, sizes: list[int]) -> None:
    whole = parse(stream)
    parser = Parser()
    in_portions: list[object] = []
    start = 0
    for index in range(len(stream)):
        end = start + sizes[index % len(sizes)]
        in_portions += parser.feed(stream[start:end])
        start = end
    assert in_portions == whole


@settings(deadline=None, max_examples=50)
@given(STREAMS)
def test_the_result_is_the_same_byte_by_byte(stream: bytes) -> None:
    parser = Parser()
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == parse(stream)


@settings(deadline=None, max_examples=200)
@given(STREAMS)
def test_the_next_good_message_is_never_lost(stream: bytes) -> None:
    events = parse(stream + GOOD)
    assert events[-1] == GOOD_MESSAGE


@settings(deadline=None)
@given(st.lists(st.sampled_from(MESSAGES)))
def test_good_streams_are_read_completely(messages: list[tuple[str, object]]) -> None:
    stream = "\n".join(text for text, _ in messages)
    assert parse(stream) == [message for _, message in messages]


@pytest.mark.parametrize(
    "attack",
    [
        b"<getProperties " * 8,
        b"<getProperties x='" + b">" * 200,
        b"<newTextVector device='a' name='b'>" * 8,
        b"<newTextVector device='a' name='b'><oneText name='c'>&" + b"a" * 15_000,
        b"x" * 300,
        b"<a b='" + b"c" * 17_000,
    ],
)
@pytest.mark.parametrize("portion", [1, 70_000])
def test_hostile_streams_cost_little(attack: bytes, portion: int) -> None:
    parser = Parser()
    stream = (attack * (100_000 // len(attack) + 1))[:100_000]
    tracemalloc.start()
    start = time.process_time()
    for at in range(0, len(stream), portion):
        parser.feed(stream[at : at + portion])
    spent = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Generous, because tracing slows everything down; a quadratic parser takes minutes.
    assert spent < 10
    assert peak < 3_000_000
