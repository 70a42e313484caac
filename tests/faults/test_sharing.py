# SPDX-License-Identifier: LGPL-2.1-or-later
"""Others want the same camera: a program that grabs it for a while, as ModemManager does, and other drivers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.faults.cells import AWAY, prepare
from tests.faults.clock import Clock
from tests.faults.rig import Rig
from usbproto.simulator import descriptors
from usbproto.simulator.usbdevice import Handle
from usbproto.simulator.usbtransfer import UsbFailure


def grab(rig: Rig) -> Handle:
    """Another program has opened the camera and claimed its interface."""
    handle = rig.camera.device.open()
    handle.claim(0)
    return handle


def check_picture(rig: Rig) -> None:
    assert rig.expose() == "Ok", rig.client.last_words()
    np.testing.assert_array_equal(rig.client.frames[-1][1], rig.picture())


def test_a_grabbed_camera_cannot_be_connected_until_it_is_free(rig: Rig) -> None:
    other = grab(rig)
    assert rig.connect() == "Alert"
    said = rig.client.said("CONNECTION")[-1]
    assert "in use by another program" in said and "End the other program" in said
    other.close()
    prepare(rig)
    check_picture(rig)


def test_a_lost_camera_that_is_grabbed_first_comes_back_when_it_is_free(rig: Rig) -> None:
    prepare(rig)
    client = rig.client
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=30)
    client.wait(lambda: rig.count("exposure_start"), "the shutter opens")
    with rig.timeline.lock:  # faster than the driver, as udev is
        rig.camera.device.unplug()
        rig.camera.device.replug()
        other = grab(rig)
    client.wait(lambda: client.state("CONNECTION") == "Alert", "the loss is told")
    assert client.settled("CCD_EXPOSURE") == "Alert"
    rig.timeline_pause(40)
    assert client.state("CONNECTION") == "Alert"
    assert len([m for m in client.said("CONNECTION") if "in use by another program" in m]) == 1
    other.close()
    client.wait(lambda: client.state("CONNECTION") == "Ok", "it is used again", AWAY)
    assert client.value("FILTER_NAME", "FILTER_SLOT_NAME_2") == "Hydrogen"
    check_picture(rig)


def test_nobody_takes_a_camera_that_is_in_use(rig: Rig) -> None:
    prepare(rig)
    with pytest.raises(UsbFailure, match="EBUSY"):
        grab(rig)
    check_picture(rig)


def test_the_user_ends_the_waiting(rig: Rig) -> None:
    prepare(rig)
    rig.camera.faults.arm("unplug")
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is told")
    assert rig.disconnect() == "Idle"
    rig.client.wait(lambda: "CCD1" not in rig.client.vectors, "the vectors go")
    rig.cure()
    rig.timeline_pause(60)
    assert rig.client.value("CONNECTION", "CONNECT") == "Off"  # it is not opened unasked
    prepare(rig)
    check_picture(rig)


def test_another_port_and_address_is_the_same_camera(rig: Rig) -> None:
    """The hub changes: the camera is found by its serial number, and another camera is not taken for it."""
    prepare(rig)
    client, device = rig.client, rig.camera.device
    strings = device._zero.strings
    rig.camera.faults.arm("unplug")
    client.wait(lambda: client.state("CONNECTION") == "Alert", "the loss is told")
    own = strings.copy()
    strings[descriptors.SERIAL] = "00999999"  # in its place is another one
    before = device.address
    device.replug()
    assert device.address != before
    rig.timeline_pause(40)
    assert client.state("CONNECTION") == "Alert"
    strings.update(own)
    client.wait(lambda: client.state("CONNECTION") == "Ok", "it is used again", AWAY)
    check_picture(rig)


def test_a_device_that_is_not_bound_waits_for_the_camera_that_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rig, "_opened", staticmethod(lambda device, serial: None))
    with Clock():
        rig = Rig(tmp_path)
        try:
            test_another_port_and_address_is_the_same_camera(rig)
            assert rig.device.source.serial is None
        finally:
            rig.close()


def test_simulation_cannot_be_switched_while_a_camera_is_waited_for(rig: Rig) -> None:
    prepare(rig)
    rig.camera.faults.arm("unplug")
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is reported")
    rig.client.new("Switch", "SIMULATION", ENABLE="On")
    assert rig.client.settled("SIMULATION") == "Alert"
    assert "Disconnect first" in rig.client.said("SIMULATION")[-1]
    assert not rig.device.source.simulate
    assert rig.disconnect() == "Idle"
    rig.choose("SIMULATION", "ENABLE")
    rig.choose("SIMULATION", "DISABLE")
    rig.cure()
    prepare(rig)
    check_picture(rig)
