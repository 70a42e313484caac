# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connecting and what can be in its way; leaving; the end of the driver."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.support.indi import PATIENCE, eventually, values
from tests.support.rig import (
    DEVICE,
    IndiClient,
    Process,
    Sim,
    stand_alone,
    under_indiserver,
)


def refusal(client: IndiClient) -> str:
    client.send("<getProperties version='1.7'/>")
    client.wait_for("defSwitchVector", name="CONNECTION")
    client.new("Switch", "CONNECTION", CONNECT="On")
    answer = client.wait_for("setSwitchVector", name="CONNECTION", state="Alert")
    assert values(answer) == {"CONNECT": "Off", "DISCONNECT": "On"}
    return answer.attrib["message"]


def test_no_camera_no_permission_and_busy_are_told_apart(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        device = sim.camera.device
        with IndiClient(server.address) as client:
            device.deny_open(errno.EACCES)
            message = refusal(client)
            assert "may not be opened" in message and "udev" in message
            client.clear()
            device.deny_open(errno.EBUSY)
            message = refusal(client)
            assert "in use by another program" in message and "End the other program" in message
            client.clear()
            device.deny_open(None)
            device.unplug()
            message = refusal(client)
            assert "No QSI camera" in message and "lsusb" in message
            client.clear()
            device.replug()
            client.connect_camera()


def test_a_camera_that_is_switched_off_is_no_camera(tmp_path: Path) -> None:
    with Sim(tmp_path, starting=True) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            # It was switched on this moment and listens in 6 s: asked again, it answers.
            client.connect_camera()


def test_two_drivers_on_one_camera(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        second.mkdir()
        with stand_alone(first, sim.environ) as one, stand_alone(second, sim.environ) as other:
            with IndiClient(one.address) as client, IndiClient(other.address) as late:
                client.connect_camera()
                assert "in use by another program" in refusal(late)


def test_nothing_is_defined_before_connect_and_all_of_it_in_one_burst(tmp_path: Path) -> None:
    with Sim(tmp_path, "583wsg") as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.wait_for("defSwitchVector", name="CCD_COOLER")
            order = [
                (m.tag[:3], m.attrib["name"], m.get("state"))
                for m in list(client.messages)
                if "name" in m.attrib
            ]
            ready = order.index(("set", "CONNECTION", "Ok"))
            assert not any(name.startswith("CCD") for _, name, _ in order[:ready])
            info = values(client.wait_for("defNumberVector", name="CCD_INFO"))
            assert {name: float(value) for name, value in info.items()} == {
                "CCD_MAX_X": 3326,
                "CCD_MAX_Y": 2504,
                "CCD_PIXEL_SIZE": 5.4,
                "CCD_PIXEL_SIZE_X": 5.4,
                "CCD_PIXEL_SIZE_Y": 5.4,
                "CCD_BITSPERPIXEL": 16,
            }
            exposure = client.wait_for("defNumberVector", name="CCD_EXPOSURE")[0]
            assert (float(exposure.attrib["min"]), float(exposure.attrib["max"])) == (0.03, 14400)
            binning = client.wait_for("defNumberVector", name="CCD_BINNING")
            assert [float(element.attrib["max"]) for element in binning] == [8, 8]
            for frame in client.wait_for("defNumberVector", name="CCD_FRAME"):
                assert float(frame.attrib["min"]) < float(frame.attrib["max"])

            client.clear()
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            eventually(lambda: sum(m.tag == "delProperty" for m in client.messages) >= 8, "all is deleted")
            tags = [m.tag for m in client.messages if m.get("state") != "Busy"]
            assert tags[0] == "setSwitchVector"  # CONNECTION first


def test_what_an_old_camera_never_answers_is_not_asked_for_ever(tmp_path: Path) -> None:
    """A 583 leaves three questions unanswered, a second each. That may be an accident, so three connects must
    agree; then it is remembered, even by a new process."""
    with Sim(tmp_path, "583wsg") as sim:
        for silent in (3, 3, 3, 0):
            sim.happened.clear()
            with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
                client.connect_camera()
            assert sim.count("ignored") == silent


def test_what_is_at_rest_goes_without_a_last_word(tmp_path: Path) -> None:
    """KStars keeps what it was told for its own thread, and may look at it when the property is gone."""
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(0.1)
            client.picture()
            client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Ok")
            client.clear()
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            client.wait_for("delProperty", name="PIXEL_MASK")
            told = list(client.messages)
            gone = {m.attrib["name"] for m in told if m.tag == "delProperty"}
            idle = next(
                n for n, m in enumerate(told) if (m.get("name"), m.get("state")) == ("CONNECTION", "Idle")
            )
            assert len(gone) > 30
            assert not [m.attrib["name"] for m in told[idle:] if "set" in m.tag and m.get("name") in gone]


def test_disconnect_in_mid_exposure_ends_both(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(30)
            eventually(lambda: sim.count("exposure_start"), "the shutter opens")
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Alert")
            eventually(lambda: sim.count("exposure_end"), "the shutter closes")
            client.clear()
            client.connect_camera()
            client.expose(0.1)
            client.picture()


def test_unplugging_in_mid_exposure_is_told_at_once_and_heals(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_BINNING", HOR_BIN=4, VER_BIN=4)
            client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
            client.wait_for("setSwitchVector", name="CCD_COOLER", state="Ok")
            client.expose(30)
            eventually(
                lambda: any("Exposing" in values(m).values() for m in list(client.messages)), "it exposes"
            )
            sim.camera.device.unplug()
            gone = client.wait_for("setSwitchVector", name="CONNECTION", state="Alert")
            assert values(gone)["CONNECT"] == "Off"
            assert "left the USB" in gone.attrib["message"]
            failed = client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Alert")
            assert "exposing" in failed.attrib["message"]
            # Its properties stay, and say what is the matter.
            client.clear()
            client.expose(0.1)
            refused = client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Alert")
            assert "away" in refused.attrib["message"]

            client.clear()
            sim.camera.device.replug()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Ok")
            assert not any(m.tag == "delProperty" for m in client.messages)
            client.expose(0.1)
            assert client.picture()[1].shape == (626, 831)  # still binned


def test_a_power_cut_heals_and_cooling_goes_on(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
            client.new("Switch", "Fan", Quiet="On")
            client.wait_for("setSwitchVector", name="Fan", state="Ok")
            client.wait_for("setSwitchVector", name="CCD_COOLER", state="Ok")
            sim.camera.power_off()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Alert")
            client.clear()
            sim.happened.clear()
            sim.camera.power_on()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Ok")
            again = eventually(lambda: [h for h in sim.happened if h["e"] == "temperature"], "set point")
            assert again[-1]["on"] and again[-1]["set_point"] == -5
            settings = [happening for happening in sim.happened if happening["e"] == "settings"]
            assert settings[-1]["fan"] in (1, "QUIET")


def test_a_lost_camera_is_given_up_when_the_user_disconnects(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            sim.camera.device.unplug()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Alert")
            client.clear()
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")
            eventually(
                lambda: any(m.get("name") == "CCD1" and m.tag == "delProperty" for m in client.messages),
                "the vectors go",
            )
            sim.camera.device.replug()
            client.clear()
            client.connect_camera()


def test_two_cameras_have_names_of_their_own_that_stay(tmp_path: Path) -> None:
    with Sim(tmp_path, "683wsg", more=("583wsg",)) as sim:
        for _ in range(2):  # the second time with a memory
            with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
                client.send("<getProperties version='1.7'/>")
                first = client.wait_for("defSwitchVector", name="CONNECTION", device=DEVICE)
                others = eventually(
                    lambda: [m for m in list(client.messages) if m.get("device", DEVICE) != DEVICE],
                    "the other camera",
                )
                assert first is not None
                assert others[0].attrib["device"] == f"{DEVICE} 00683001"


def driver_pid(server: Process) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_driver_ends_with_its_server_and_stops_the_exposure(tmp_path: Path, number: int) -> None:
    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        pid = driver_pid(server)
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(30)
            eventually(lambda: sim.count("exposure_start"), "the shutter opens")
        server.process.send_signal(number)
        server.process.wait(PATIENCE)
        eventually(lambda: gone(pid), "the driver ends")
        eventually(lambda: sim.count("exposure_end"), "the exposure ends")


def test_stand_alone_ends_cleanly_on_interrupt(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(30)
            eventually(lambda: sim.count("exposure_start"), "the shutter opens")
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(PATIENCE) == 0
        eventually(lambda: sim.count("exposure_end"), "the exposure ends")
        assert "Traceback" not in server.log


def test_the_device_takes_the_name_that_the_launcher_gives(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        config = tmp_path / "main.xml"
        environ = {**sim.environ, "INDIDEV": "QSI Main", "INDICONFIG": str(config)}
        with under_indiserver(tmp_path, environ) as server, IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            client.wait_for("defSwitchVector", name="CONNECTION", device="QSI Main")
            client.send(
                "<newNumberVector device='QSI Main' name='POLLING_PERIOD'>"
                "<oneNumber name='PERIOD_MS'>750</oneNumber></newNumberVector>"
                "<newSwitchVector device='QSI Main' name='CONFIG_PROCESS'>"
                "<oneSwitch name='CONFIG_SAVE'>On</oneSwitch></newSwitchVector>"
            )
            client.wait_for("setSwitchVector", name="CONFIG_PROCESS", state="Ok")
    assert "750" in config.read_text()
    assert DEVICE not in config.read_text()


def test_settings_survive_a_restart(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_BINNING", HOR_BIN=3, VER_BIN=3)
            client.new("Number", "CCD_FRAME", X=10, Y=20, WIDTH=300, HEIGHT=200)
            client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
            client.wait_for("setSwitchVector", name="CONFIG_PROCESS", state="Ok")
        with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
            client.wait_for("setSwitchVector", name="CONFIG_PROCESS", state="Ok")
            frame = values(client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok"))
            assert [float(value) for value in frame.values()] == [10, 20, 300, 200]
            client.expose(0.1)
            assert client.picture()[1].shape == (66, 100)
