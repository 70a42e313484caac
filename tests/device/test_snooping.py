# SPDX-License-Identifier: LGPL-2.1-or-later
"""ACTIVE_DEVICES, and what is believed of what other devices say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from indi_qsi.device.config_file import ConfigFile
from indi_qsi.device.snooping import (
    J2000_BEHIND,
    Position,
    Snooping,
    Surroundings,
    Watch,
    filter_name,
    position,
)
from indi_qsi.properties import Device, Hub, Vector
from indi_qsi.wire.messages import DelProperty, Kind, NewVector, SnoopedVector, State
from tests.support.indi import RecordingLink, request


def said(
    name: str, state: State | None = State.OK, *, define: bool = False, **values: object
) -> SnoopedVector:
    pairs = tuple((element, str(value)) for element, value in values.items())
    return SnoopedVector(Kind.NUMBER, define, "Mount", name, state, pairs)


class World:
    def __init__(self) -> None:
        self.hub = Hub()
        self.link = RecordingLink()
        self.hub.attach(self.link)
        self.saved: list[Vector[Any]] = []
        self.snooping = Snooping(self.hub, cast(ConfigFile, self))
        self.device = Device("D", self.hub)
        self.device.add(self.snooping.vector)
        self.hub.add_device(self.device)
        self.link.take()

    def keep(self, vector: Vector[Any], values: Mapping[str, Any]) -> None:
        """What the config file does, without a disk."""
        self.saved.append(vector)
        vector.set(values, state=State.OK)

    def name(self, *, link: bool = True, **devices: str) -> None:
        message = NewVector(Kind.TEXT, "D", "ACTIVE_DEVICES", tuple(devices.items()))
        self.hub.dispatch(self.link if link else None, message)

    def say(self, data: str) -> Surroundings:
        request(self.hub, self.link, data)
        return self.snooping.surroundings()


def number(device: str, name: str, state: str = "Ok", **values: object) -> str:
    elements = "".join(f"<oneNumber name='{key}'>{value}</oneNumber>" for key, value in values.items())
    return f"<setNumberVector device='{device}' name='{name}' state='{state}'>{elements}</setNumberVector>"


def test_nothing_is_asked_for_at_first() -> None:
    world = World()
    assert set(world.snooping.vector.values.values()) == {""}
    assert world.snooping.surroundings() == Surroundings()


def test_a_name_is_asked_for_saved_and_answered() -> None:
    world = World()
    world.name(ACTIVE_TELESCOPE="Mount", ACTIVE_FOCUSER="Foc")
    messages = world.link.take()
    asked = [(m.attrib["device"], m.attrib["name"]) for m in messages if m.tag == "getProperties"]
    assert asked == [
        ("Mount", "EQUATORIAL_EOD_COORD"),
        ("Mount", "EQUATORIAL_COORD"),
        ("Mount", "TELESCOPE_INFO"),
        ("Mount", "GEOGRAPHIC_COORD"),
        ("Mount", "TELESCOPE_PIER_SIDE"),
        ("Foc", "ABS_FOCUS_POSITION"),
        ("Foc", "FOCUS_TEMPERATURE"),
    ]
    assert messages[-1].attrib["state"] == "Ok"
    assert world.saved == [world.snooping.vector]
    world.name(ACTIVE_TELESCOPE="Mount")  # nothing new: just an answer
    (answer,) = world.link.take()
    assert (answer.tag, answer.attrib["state"]) == ("setTextVector", "Ok")
    assert len(world.saved) == 1
    world.name(link=False, ACTIVE_TELESCOPE="Other")  # from the config file
    assert len(world.saved) == 1


def test_everything_that_is_snooped() -> None:
    world = World()
    world.name(
        ACTIVE_TELESCOPE="M", ACTIVE_ROTATOR="R", ACTIVE_FOCUSER="F", ACTIVE_FILTER="W", ACTIVE_SKYQUALITY="S"
    )
    found = world.say(
        number("M", "EQUATORIAL_EOD_COORD", RA="5:30:00", DEC="-5:24:00")
        + number("M", "TELESCOPE_INFO", TELESCOPE_APERTURE=100, TELESCOPE_FOCAL_LENGTH=500)
        + number("M", "GEOGRAPHIC_COORD", LAT=48, LONG=350, ELEV=500)
        + "<setSwitchVector device='M' name='TELESCOPE_PIER_SIDE'><oneSwitch name='PIER_WEST'>Off</oneSwitch>"
        "<oneSwitch name='PIER_EAST'>On</oneSwitch></setSwitchVector>"
        + number("R", "ABS_ROTATOR_ANGLE", ANGLE=12.5)
        + number("F", "ABS_FOCUS_POSITION", "Busy", FOCUS_ABSOLUTE_POSITION=1234)
        + number("F", "FOCUS_TEMPERATURE", TEMPERATURE=-3)
        + number("W", "FILTER_SLOT", FILTER_SLOT_VALUE=2)
        + "<defTextVector device='W' name='FILTER_NAME' state='Idle' perm='rw'>"
        "<defText name='FILTER_SLOT_NAME_1'>L</defText><defText name='FILTER_SLOT_NAME_2'>Hα</defText></defTextVector>"
        + number("S", "SKY_QUALITY", SKY_BRIGHTNESS=21.1)
    )
    assert found == Surroundings(
        telescope="M",
        position=Position(5.5, -5.4, of_date=True),
        latitude=48.0,
        longitude=-10.0,
        pier_side="EAST",
        focal_length=500.0,
        aperture=100.0,
        rotator_angle=12.5,
        focuser_position=1234.0,
        focuser_temperature=-3.0,
        filter_name="Hα",
        sky_brightness=21.1,
    )


def test_alerts_and_nonsense_are_not_believed() -> None:
    world = World()
    world.name(ACTIVE_FOCUSER="F", ACTIVE_TELESCOPE="M")
    world.say(number("F", "FOCUS_TEMPERATURE", TEMPERATURE=5))
    assert world.say(number("F", "FOCUS_TEMPERATURE", "Alert", TEMPERATURE=9)).focuser_temperature == 5
    for nonsense in ("nan", "x", "", "1e999", -300):
        assert world.say(number("F", "FOCUS_TEMPERATURE", TEMPERATURE=nonsense)).focuser_temperature is None
    for ra, dec in ((25, 0), (-1, 0), (5, 91), (5, "x")):
        assert world.say(number("M", "EQUATORIAL_EOD_COORD", RA=ra, DEC=dec)).position is None
    assert world.say(number("M", "TELESCOPE_INFO", TELESCOPE_FOCAL_LENGTH=0)).focal_length is None


def test_what_is_taken_back_is_unknown() -> None:
    world = World()
    world.name(ACTIVE_FOCUSER="F")
    everything = number("F", "FOCUS_TEMPERATURE", TEMPERATURE=5) + number(
        "F", "ABS_FOCUS_POSITION", FOCUS_ABSOLUTE_POSITION=7
    )
    world.say(everything)
    found = world.say("<delProperty device='F' name='FOCUS_TEMPERATURE'/>")
    assert (found.focuser_temperature, found.focuser_position) == (None, 7)
    assert world.say("<delProperty device='F'/>").focuser_position is None
    assert world.say(everything).focuser_position == 7


def test_another_name_is_another_device() -> None:
    world = World()
    world.name(ACTIVE_FOCUSER="F")
    world.say(number("F", "FOCUS_TEMPERATURE", TEMPERATURE=5))
    world.name(ACTIVE_FOCUSER="G")
    assert world.snooping.surroundings().focuser_temperature is None
    assert world.say(number("F", "FOCUS_TEMPERATURE", TEMPERATURE=6)).focuser_temperature is None
    assert world.say(number("G", "FOCUS_TEMPERATURE", TEMPERATURE=7)).focuser_temperature == 7
    world.name(ACTIVE_FOCUSER="")
    assert world.say(number("G", "FOCUS_TEMPERATURE", TEMPERATURE=8)).focuser_temperature is None


def test_a_name_too_long_for_indi_is_refused() -> None:
    world = World()
    world.name(ACTIVE_FOCUSER="x" * 64)
    assert world.link.take()[-1].attrib["state"] == "Alert"
    assert world.snooping.vector["ACTIVE_FOCUSER"] == ""


@pytest.mark.parametrize(
    ("j2000_at", "of_date_at", "of_date"),
    [
        (100, None, False),
        (None, 100, True),
        (100, 101, False),
        (100, 100 + J2000_BEHIND + 1, True),
        (200, 100, False),
    ],
)
def test_j2000_is_preferred_unless_it_has_stopped(
    j2000_at: float | None, of_date_at: float | None, of_date: bool
) -> None:
    now = 0.0
    mount = Watch("Mount", lambda: now)
    for name, at in (("EQUATORIAL_COORD", j2000_at), ("EQUATORIAL_EOD_COORD", of_date_at)):
        if at is not None:
            now = at
            mount.receive(said(name, RA=1, DEC=2))
    found = position(mount)
    assert found is not None
    assert found.of_date is of_date


def test_an_update_may_hold_some_elements_only() -> None:
    mount = Watch("Mount")
    mount.receive(said("EQUATORIAL_COORD", define=True, RA=1, DEC=2))
    mount.receive(said("EQUATORIAL_COORD", DEC=3))
    assert position(mount) == Position(1, 3, of_date=False)
    mount.receive(said("EQUATORIAL_COORD", define=True, RA=1))
    assert position(mount) is None


def test_slots_without_a_name() -> None:
    wheel = Watch("Mount")
    assert filter_name(wheel) is None
    wheel.receive(said("FILTER_SLOT", FILTER_SLOT_VALUE=3))
    wheel.receive(said("FILTER_NAME", A="L", B="R"))
    assert filter_name(wheel) is None
    wheel.receive(said("FILTER_SLOT", FILTER_SLOT_VALUE=2))
    assert filter_name(wheel) == "R"
    wheel.receive(DelProperty("Mount"))
    assert filter_name(wheel) is None
