# SPDX-License-Identifier: LGPL-2.1-or-later
"""An evening with a strange camera, from connecting to disconnecting, through the whole driver.

All of it must work, whatever is strange.
"""

from __future__ import annotations

import numpy as np

from tests.faults.rig import FRAME, Rig

SET_POINT = 15.0  # degC: soon reached
PULSE = 300  # ms
EXPOSURE = 0.5  # s; above the shortest one of a camera whose probe for the finer unit failed


def live(rig: Rig, tries: int = 1) -> frozenset[str]:
    """Connect, two frames, abort, filter, cooler, guide pulse, reconnect, frame; returns the properties'
    names.

    A frame may be lost when a transfer fails, so it may take as many `tries`.
    """
    client = rig.client
    assert rig.connect() == "Ok", client.last_words()
    there = frozenset(client.vectors)
    _frame(rig, tries)
    _frame(rig, tries)
    _abort(rig)
    _frame(rig, tries)
    if "FILTER_SLOT" in there:
        client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3)
        assert client.settled("FILTER_SLOT") == "Ok", client.last_words()
        assert rig.camera.hardware.wheel.position == 2
    _cool(rig)
    _guide(rig)
    assert rig.disconnect() == "Idle", client.last_words()
    assert rig.connect() == "Ok", client.last_words()
    _frame(rig, tries)
    assert rig.disconnect() == "Idle", client.last_words()
    client.wait(lambda: not client.busy(), f"nothing is busy; {client.busy()} are")
    return there


def _frame(rig: Rig, tries: int) -> None:
    """An exposure, and its frame is the sensor's; one that was lost ended in Alert."""
    client, before = rig.client, len(rig.client.frames)
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    states = [rig.expose(EXPOSURE)]
    while states[-1] == "Alert" and len(states) < tries:
        assert len(client.frames) == before, "a frame that failed was sent"
        states.append(rig.expose(EXPOSURE))
    assert states[-1] == "Ok", client.last_words()
    assert len(client.frames) == before + 1
    np.testing.assert_array_equal(client.frames[-1][1], rig.picture())


def _abort(rig: Rig) -> None:
    client, begun = rig.client, rig.count("exposure_start")
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=60)
    client.wait(lambda: rig.count("exposure_start") > begun, "the exposure begins")
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert client.settled("CCD_EXPOSURE") == "Idle"
    assert client.settled("CCD_ABORT_EXPOSURE") == "Ok"


def _cool(rig: Rig) -> None:
    client = rig.client
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=SET_POINT)
    client.wait(lambda: client.state("CCD_TEMPERATURE") == "Ok", "the CCD is at its set point")
    assert client.state("CCD_COOLER") == "Ok"
    assert rig.camera.hardware.cooler.on and rig.camera.hardware.cooler.set_point == SET_POINT


def _guide(rig: Rig) -> None:
    client, before = rig.client, rig.count("relay")
    client.new("Number", "TELESCOPE_TIMED_GUIDE_WE", TIMED_GUIDE_W=PULSE, TIMED_GUIDE_E=0)
    assert client.settled("TELESCOPE_TIMED_GUIDE_WE") in ("Ok", "Idle"), client.last_words()
    assert rig.count("relay") == before + 1
    rig.timeline_pause(PULSE / 1000)  # the camera's clock is not the driver's
    assert not rig.relay()
