# SPDX-License-Identifier: LGPL-2.1-or-later
"""SCOPE_INFO, WCS_CONTROL, CCD_ROTATION, CCD_CFA."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from indi_qsi.device.optics import OpticsSubject, is_colour
from indi_qsi.properties import Device, Hub, State
from indi_qsi.wire.messages import Kind, NewVector


def identity(model: str, marketing: str | None = None) -> Any:
    return SimpleNamespace(model_number=model, marketing_model=marketing)


class World:
    def __init__(self, model: str = "683wsg") -> None:
        self.hub = Hub()
        self.device = Device("D", self.hub)
        self.optics = OpticsSubject(self.device.add, self.device.remove)
        self.optics.connect(SimpleNamespace(identity=identity(model)))  # type: ignore[arg-type]
        self.device.add(*self.optics.vectors())
        self.hub.add_device(self.device)

    def new(self, kind: Kind, name: str, **values: object) -> State:
        pairs = tuple((element, str(value)) for element, value in values.items())
        self.hub.dispatch(None, NewVector(kind, "D", name, pairs))
        vector = self.device.get(name)
        assert vector is not None
        return vector.state


@pytest.mark.parametrize(
    ("model", "marketing", "colour"),
    [
        ("683wsg", None, False),
        ("583c", None, True),
        ("640cwsg", None, True),
        ("", "583ci", True),
        ("", "583ws", False),
    ],
)
def test_colour_models(model: str, marketing: str | None, colour: bool) -> None:
    assert is_colour(identity(model, marketing)) is colour


def test_scope() -> None:
    world = World()
    assert (world.optics.focal_length, world.optics.aperture) == (None, None)
    assert world.new(Kind.NUMBER, "SCOPE_INFO", FOCAL_LENGTH=500, APERTURE=100) is State.OK
    assert (world.optics.focal_length, world.optics.aperture) == (500, 100)
    assert world.new(Kind.NUMBER, "SCOPE_INFO", FOCAL_LENGTH=-1) is State.ALERT
    assert world.optics.focal_length == 500


def test_rotation_is_there_while_wcs_is() -> None:
    world = World()
    assert world.device.get("CCD_ROTATION") is None
    for _ in range(2):
        assert world.new(Kind.SWITCH, "WCS_CONTROL", WCS_ENABLE="On") is State.OK
        assert world.device.get("CCD_ROTATION") is world.optics.rotation
    assert world.optics.angle is None  # not said yet
    assert world.new(Kind.NUMBER, "CCD_ROTATION", CCD_ROTATION_VALUE=-30) is State.OK
    assert world.optics.angle == -30
    for _ in range(2):
        assert world.new(Kind.SWITCH, "WCS_CONTROL", WCS_DISABLE="On") is State.IDLE
        assert world.device.get("CCD_ROTATION") is None
    assert world.optics.angle is None
    world.new(Kind.SWITCH, "WCS_CONTROL", WCS_ENABLE="On")
    assert world.optics.angle is None


def test_a_mono_camera_has_no_colours() -> None:
    assert World().device.get("CCD_CFA") is None
    assert World().optics.bayer is None


def test_colours_are_what_the_user_says() -> None:
    world = World("683c")
    assert world.optics.bayer is None  # nobody knows until somebody says
    assert world.new(Kind.TEXT, "CCD_CFA", CFA_TYPE="rggb", CFA_OFFSET_X="1") is State.OK
    assert world.optics.bayer == (1, 0, "RGGB")
    for wrong in ({"CFA_TYPE": "RGB"}, {"CFA_TYPE": "XXXX"}, {"CFA_OFFSET_X": "2"}, {"CFA_OFFSET_Y": "x"}):
        assert world.new(Kind.TEXT, "CCD_CFA", **wrong) is State.ALERT
        assert world.optics.bayer == (1, 0, "RGGB")
    assert world.new(Kind.TEXT, "CCD_CFA", CFA_TYPE="") is State.OK
    assert world.optics.bayer is None
