# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connecting as Ekos does it, the configuration that it loads then, and coming back."""

from __future__ import annotations

import pytest

from tests.ekos.ekos import Ekos
from tests.ekos.observatory import Camera, Observatory
from tests.ekos.sequence import Job
from tests.ekos.test_ekos_capture import compare
from tests.support.indi import values

pytestmark = pytest.mark.ekos

# What connecting must not do: it neither takes pictures nor moves anything, and leaves the cooler alone.
ACTS = {"expose", "abort", "filter", "relay", "temperature", "error"}


def test_loading_the_configuration_at_connect_is_harmless(place: Observatory) -> None:
    messages = place.connecting
    (request,) = [m for m in messages if m.tag == "newSwitchVector" and m.get("name") == "CONFIG_PROCESS"]
    assert values(request)["CONFIG_LOAD"] == "On"
    updates = [m for m in messages if m.tag.startswith("set")]
    states = {
        name: {m.attrib["state"] for m in updates if m.get("name") == name}
        for name in ("CONNECTION", "CONFIG_PROCESS", "CCD_FRAME", "CCD_BINNING")
    }
    assert states["CONNECTION"] == {"Busy", "Ok"}
    assert states["CCD_FRAME"] == states["CCD_BINNING"] == {"Ok"}
    assert states["CONFIG_PROCESS"] == {"Busy", "Ok"}
    assert not [m.attrib for m in updates if m.get("state") == "Alert"]
    assert ACTS.isdisjoint(happening["e"] for happening in place.happened)

    # Ekos asks for full resolution, whatever the configuration says.
    job = Job()
    compare(place.ekos.run(job), place.camera, job)


def test_disconnecting_and_connecting_again(ekos: Ekos, camera: Camera) -> None:
    job = Job()
    for _ in range(2):
        ekos.disconnect()
        ekos.connect()
        compare(ekos.run(job), camera, job)


def test_stopping_and_starting_the_profile(ekos: Ekos, camera: Camera) -> None:
    ekos.stop()
    ekos.start()
    job = Job()
    compare(ekos.run(job), camera, job)


def test_ekos_misses_nothing(ekos: Ekos) -> None:
    """It warns when a property is missing that it expects of every camera."""
    ekos.run(Job(frame=(0, 0, 64, 64)))
    complaints = {line for line in ekos.log.splitlines() if "Please update driver" in line}
    assert not complaints
