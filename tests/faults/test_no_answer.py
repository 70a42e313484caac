# SPDX-License-Identifier: LGPL-2.1-or-later
"""A camera that is on the USB and does not answer: what the user is told, and that it is waited for as ever."""

from __future__ import annotations

import pytest

from tests.faults.cells import AWAY, prepare
from tests.faults.rig import Rig
from usbproto.simulator.flash import Target

REMEDIES = ("Unplug it", "power the camera off and on", "qsi-firmware recover")
LONGEST = 255  # characters of a message that every client takes


def into_loader(rig: Rig) -> None:
    """What an update that was cut short leaves: nothing that is whole, so the loader runs."""
    with rig.timeline.lock:
        rig.camera.hardware.flash.regions[Target.FIRMWARE].erase()
        rig.camera.power_off()
        rig.camera.power_on()


@pytest.mark.parametrize("loader", [False, True], ids=["hangs", "in its loader"])
def test_connecting_says_what_to_try(rig: Rig, loader: bool) -> None:
    if loader:
        into_loader(rig)
        rig.timeline_pause(10)
        assert rig.camera.firmware.loader.active
    else:
        rig.camera.faults.arm("hang")
    assert rig.connect() == "Alert"
    said = rig.client.said("CONNECTION")[-1]
    assert "did not answer" in said and all(remedy in said for remedy in REMEDIES), said
    assert len(said) <= LONGEST
    # An order to end an exposure is the last thing that it was told: nothing is tried on it.
    heard = {
        facts["code"]
        for name, facts in rig.happened
        if name in ("command", "answer", "ignored") and "code" in facts
    }
    assert heard <= {0x4B, 0x42, 0x44}
    if not loader:
        rig.cure()
        rig.timeline_pause(10)
        prepare(rig)


def test_a_lost_camera_that_comes_back_in_its_loader_is_waited_for_and_told_once(rig: Rig) -> None:
    prepare(rig)
    client = rig.client
    into_loader(rig)
    client.wait(lambda: client.state("CONNECTION") == "Alert", "the loss is told")
    rig.timeline_pause(3 * AWAY)
    assert client.state("CONNECTION") == "Alert"
    told = [message for message in client.said("CONNECTION") if "qsi-firmware recover" in message]
    assert len(told) == 1, client.said("CONNECTION")
    with rig.timeline.lock:  # it was recovered
        rig.camera.hardware.flash.regions[Target.FIRMWARE].version = "06.03.05"
        rig.camera.power_off()
        rig.camera.power_on()
    client.wait(lambda: client.state("CONNECTION") == "Ok", "it is used again", AWAY)
