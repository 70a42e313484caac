# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a peer sends: the INDI parser, and the property model behind it."""

from __future__ import annotations

from functools import cache

from indi_qsi.properties import (
    Device,
    Hub,
    NumberElement,
    NumberVector,
    Permission,
    Rule,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
)
from indi_qsi.wire import limits
from indi_qsi.wire.messages import Message, NewVector, Problem, SnoopedVector
from indi_qsi.wire.numbers import parse_number
from indi_qsi.wire.parser import Parser
from tests.support.indi import RecordingLink

SEEDS = (
    b"<getProperties version='1.7' device='D' name='N'/>",
    b"<newTextVector device='D' name='T'><oneText name='E'>x&amp;\xc3\xa4</oneText></newTextVector>",
    b"<newNumberVector device='D' name='N'>\n<oneNumber name='A'>-12:30:05.5</oneNumber>"
    b"<oneNumber name='B'>1e3</oneNumber></newNumberVector>",
    b"<newSwitchVector device='D' name='S'><oneSwitch name='A'>On</oneSwitch></newSwitchVector>",
    b"<enableBLOB device='D'>Also</enableBLOB><pingRequest uid='1'/>",
    b"<newBLOBVector device='D' name='B'><oneBLOB name='E' size='3' format='.z'>QUJD</oneBLOB></newBLOBVector>",
    b"<?xml version='1.0'?><setLightVector device='D' name='L' state='Ok'><oneLight name='a'>Ok</oneLight>"
    b"</setLightVector><delProperty device='D' name='N'/>",
    b"<defNumberVector device='M' name='N' label='' group='' state='Idle' perm='rw'><defNumber name='RA' "
    b"format='%g' min='0' max='24' step='0'>1.5</defNumber></defNumberVector>",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a><!-- - --><![CDATA[<getProperties/>]]>",
    b"<newTextVector device='D' name='T'><oneText name='\xe4'>" + b"x" * 5000,
)


def one_input(data: bytes) -> None:
    whole = Parser().feed(data)
    parser = Parser()
    piece = bytearray(1)
    singly: list[Message | Problem] = []
    for byte in data:
        piece[0] = byte
        singly += parser.feed(piece)
    assert singly == whole
    hub, link = _model()
    for event in whole:
        if isinstance(event, Problem):
            assert event.reason.isprintable()  # it goes into the log
            hub.refuse(event)
            continue
        if isinstance(event, NewVector | SnoopedVector):
            _check(event)
        hub.dispatch(link, event)
    link.take()  # what is answered is XML


def _check(event: NewVector | SnoopedVector) -> None:
    assert 0 < len(event.device) <= limits.MAX_NAME
    assert 0 < len(event.name) <= limits.MAX_NAME
    assert len(event.values) <= limits.MAX_ELEMENTS
    for name, text in event.values:
        assert 0 < len(name) <= limits.MAX_NAME
        assert len(text) <= limits.MAX_TEXT
        try:
            number = parse_number(text)
        except ValueError:
            continue
        assert abs(number) < float("inf")  # neither infinite nor nan


@cache
def _model() -> tuple[Hub, RecordingLink]:
    """A device with a vector of each kind that clients may change, and a link that hears everything."""
    hub = Hub()
    device = Device("D", hub)
    rw = Permission.RW
    device.add(
        TextVector("T", "", "", (TextElement("E", ""),), permission=rw),
        NumberVector(
            "N",
            "",
            "",
            (NumberElement("A", "", 0, "%010.6m", -90, 90), NumberElement("B", "", 0, "%g", -5, 5000)),
            permission=rw,
        ),
        SwitchVector(
            "S",
            "",
            "",
            (SwitchElement("A", ""), SwitchElement("B", "", True)),
            permission=rw,
            rule=Rule.ONE_OF_MANY,
        ),
    )
    hub.add_device(device)
    link = RecordingLink()
    hub.attach(link)
    return hub, link
