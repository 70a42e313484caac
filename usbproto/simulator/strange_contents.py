# SPDX-License-Identifier: LGPL-2.1-or-later
"""Strange contents: readings without sense, defaults and feature bytes that no list names, other models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from usbproto import packets as p
from usbproto.models import EEPROM_TEXT_BYTES, Address
from usbproto.packets import Command, Payload
from usbproto.simulator.answers import Answer
from usbproto.simulator.settings import LISTED, ODD_ANTI_BLOOMING
from usbproto.simulator.strange import Trait, strange

MOST_POWER = 655.35  # %, the largest number that the field holds
SENSELESS_TEMPERATURE = 327.67  # degC, likewise
ODD_READINGS = 2
# Values that no list of the notes names. 3 was seen on a 660.
ODD_DEFAULTS = {
    "fan": 7,
    "gain": 5,
    "shutter_priority": 6,
    "anti_blooming": ODD_ANTI_BLOOMING,
    "flush": 9,
}
ODD_FEATURE = 0x77
FEATURE_BYTES = (
    Address.SENSOR_CLASS,
    Address.MICROLENS,
    Address.COLOUR_MASK,
    Address.SENSOR_TYPE,
    Address.FILTER_WHEEL,
    Address.SHUTTER,
    Address.COOLING,
    Address.FAMILY,
)
FAMILY_RS_600 = 5  # wire protocol, section 3.8
UNKNOWN_MODEL = "799wsg"  # of no series that was ever made
LONGEST_MODEL = 32  # characters of the field in GetDeviceDetails

# --- readings ---


@strange("power-while-off", "the cooler power reads PERCENT (default 655.35) while the cooler is off")
def _power_while_off(trait: Trait) -> None:
    power = trait.arguments.number(MOST_POWER, low=0.0, high=MOST_POWER)
    cooler = trait.camera.hardware.cooler

    def change(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        reading = answer.payload
        if not cooler.on and isinstance(reading, p.Temperature | p.TemperatureEx):
            return replace(answer, payload=replace(reading, power=power))
        return answer

    trait.change(change)


@strange(
    "odd-first-readings",
    "the first COUNT (default 2) temperatures and powers after each Init are without sense",
)
def _odd_first_readings(trait: Trait) -> None:
    count = trait.arguments.count(ODD_READINGS, low=1)
    left = count

    def change(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        nonlocal left
        reading = answer.payload
        if command is p.INIT:
            left = count
        elif left and isinstance(reading, p.Temperature | p.TemperatureEx):
            left -= 1
            return replace(answer, payload=replace(reading, ccd=SENSELESS_TEMPERATURE, power=MOST_POWER))
        return answer

    trait.change(change)


# --- settings ---


@strange("odd-defaults", "the default settings have values that no list names (VALUE, default: various)")
def _odd_defaults(trait: Trait) -> None:
    settings, arguments = trait.camera.firmware.settings, trait.arguments
    values: dict[str, Any] = {name: arguments.byte(ODD_DEFAULTS[name]) for name in LISTED}
    before = settings.defaults
    settings.defaults = replace(before, **values)
    trait.undo(lambda: setattr(settings, "defaults", before))


# --- models ---


@strange(
    "odd-feature-bytes", "the feature bytes in the EEPROM are all VALUE (default 0x77), which no list names"
)
def _odd_feature_bytes(trait: Trait) -> None:
    value = trait.arguments.byte(ODD_FEATURE)
    trait.show_eeprom(dict.fromkeys(FEATURE_BYTES, value))


@strange("rs-600", "the EEPROM says that the camera belongs to the family RS 600")
def _rs_600(trait: Trait) -> None:
    trait.show_eeprom({Address.FAMILY: FAMILY_RS_600})


@strange(
    "unknown-model", "details and EEPROM have the model number NAME (default 799wsg), which no table knows"
)
def _unknown_model(trait: Trait) -> None:
    name = trait.arguments.word(UNKNOWN_MODEL)
    if not (name.isascii() and name.isprintable() and len(name) <= LONGEST_MODEL):
        raise ValueError(f"a model number has at most {LONGEST_MODEL} ASCII characters")

    def change(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        details = answer.payload
        if isinstance(details, p.DeviceDetails):
            return replace(answer, payload=replace(details, model_number=name))
        return answer

    trait.change(change)
    text = name.encode()[:EEPROM_TEXT_BYTES].ljust(EEPROM_TEXT_BYTES, b"\0")
    trait.show_eeprom({Address.MODEL + offset: byte for offset, byte in enumerate(text)})
