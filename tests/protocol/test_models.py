# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names on the price list, from the feature bytes of the EEPROM (section 3.8)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from usbproto.models import FeatureBytes, marketing_model

NONE, STANDARD = 2, 3
# A 683ws without a class, to be changed.
USUAL = FeatureBytes(
    family=4,
    sensor=5,
    colour_mask=NONE,
    filter_wheel=STANDARD,
    shutter=STANDARD,
    sensor_class=1,
    microlens=NONE,
)
UNKNOWN = (0, 1, 255)  # not implemented, not specified, not initialised

# Sensor type -> number, RS name, what a body without wheel and shutter is called.
SENSORS = {
    2: ("04", "RS0.4", "x"),  # KAF-0402
    3: ("16", "RS1.6", "x"),  # KAF-1603
    4: ("32", "RS3.2", "x"),  # KAF-3200
    5: ("83", "RS8.3", "x"),  # KAF-8300
    6: ("20", "RS2.0", "i"),  # KAI-2020
    7: ("40", "RS4.0", "i"),  # KAI-04022
    8: ("28", "RS2.8", "x"),  # ICX674
    9: ("60", "RS6.0", "x"),  # ICX694
    10: ("90", "RS9.0", "x"),  # ICX814
}
FAMILIES = {2: "5", 4: "6", 6: "7"}
RS = 5


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_sensor_in_every_body(family: int, sensor: int) -> None:
    number, _, bare = SENSORS[sensor]
    bodies = {(False, False): bare, (False, True): "s", (True, False): "w", (True, True): "ws"}
    colours = {NONE: "", 3: "c", 4: "c", 0: "", 1: "", 255: ""}
    for (wheel, shutter), colour in itertools.product(bodies, colours):
        found = replace(
            USUAL,
            family=family,
            sensor=sensor,
            colour_mask=colour,
            filter_wheel=STANDARD if wheel else NONE,
            shutter=STANDARD if shutter else NONE,
        )
        expected = FAMILIES[family] + number + colours[colour] + bodies[wheel, shutter]
        assert marketing_model(found) == expected


@pytest.mark.parametrize("sensor", SENSORS)
def test_rs_cameras_are_called_by_their_pixels(sensor: int) -> None:
    """Colour and body are no part of that name."""
    for colour, part in itertools.product((NONE, 3, 255), (NONE, STANDARD, 255)):
        found = replace(USUAL, family=RS, sensor=sensor, colour_mask=colour, filter_wheel=part, shutter=part)
        assert marketing_model(found) == SENSORS[sensor][1]


@pytest.mark.parametrize(
    ("grade", "microlens", "ending"),
    [
        (3, NONE, "-1"),
        (4, NONE, "-2"),
        (5, NONE, "-E"),
        (3, STANDARD, "-M1"),
        (4, STANDARD, "-M2"),
        (5, STANDARD, "-ME"),
        *((3, unknown, "-1") for unknown in UNKNOWN),
        # Without a class there is no ending, whatever the microlens.
        *((unknown, microlens, "") for unknown in (*UNKNOWN, 2, 6, 200) for microlens in (NONE, STANDARD)),
    ],
)
@pytest.mark.parametrize(("family", "name"), [(4, "683ws"), (RS, "RS8.3")])
def test_classes_and_microlenses(family: int, name: str, grade: int, microlens: int, ending: str) -> None:
    found = replace(USUAL, family=family, sensor_class=grade, microlens=microlens)
    assert marketing_model(found) == name + ending


@pytest.mark.parametrize("value", [*UNKNOWN, 11, 100])
def test_without_a_sensor_or_a_family_there_is_no_name(value: int) -> None:
    assert marketing_model(replace(USUAL, sensor=value)) is None
    assert marketing_model(replace(USUAL, family=RS, sensor=value)) is None
    assert marketing_model(replace(USUAL, family=value)) is None


@pytest.mark.parametrize("value", UNKNOWN)
def test_a_part_that_is_not_known_is_not_there(value: int) -> None:
    assert marketing_model(replace(USUAL, filter_wheel=value)) == "683s"
    assert marketing_model(replace(USUAL, shutter=value)) == "683w"
    assert marketing_model(replace(USUAL, filter_wheel=value, shutter=value)) == "683x"
