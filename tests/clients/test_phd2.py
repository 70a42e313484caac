# SPDX-License-Identifier: LGPL-2.1-or-later
"""What PHD2 needs of a camera, demand by demand (P1 to P20).

The whole course of guiding is replayed in test_replay.py. Elsewhere as well:

| demand | also held by |
|---|---|
| P1, P2, P4 | tests/end_to_end: test_first_definitions, test_nothing_is_defined_before_connect_and_all_of_it_in_one_burst |
| P8 | tests/end_to_end/test_exposure.py: test_life_cycle, test_abort_* |
| P11 | the camera's own time is beyond a driver; docs/howto-phd2.md says what to choose |
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.clients.bench import GUIDE, LASTING, SMALL, Witness, bench, number
from tests.clients.conftest import Bench
from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, Server, Sim, opened

NS, WE = GUIDE


def pulse(client: Witness, north: int = 0, south: int = 0) -> int:
    return client.ask("Number", NS, TIMED_GUIDE_N=north, TIMED_GUIDE_S=south)


def test_p1_connection_is_defined_before_driver_info(unconnected: tuple[Sim, Server]) -> None:
    """It connects when it sees DRIVER_INFO, by the CONNECTION that it must know by then."""
    with Witness(unconnected[1].address) as client:
        assert [m.get("name") for m in client.definitions()][:2] == ["CONNECTION", "DRIVER_INFO"]


def test_p2_the_guider_bit_is_in_the_first_definition(unconnected: tuple[Sim, Server]) -> None:
    """Updates of DRIVER_INFO are not looked at."""
    with Witness(unconnected[1].address) as client:
        assert int(values(client.definition("DRIVER_INFO"))["DRIVER_INTERFACE"]) & 4


def test_p3_connect_is_on_only_when_the_camera_is_usable(unconnected: tuple[Sim, Server]) -> None:
    """The state is not looked at, only the switch."""
    with Witness(unconnected[1].address) as client:
        mark = client.connect()
        for update in client.after(mark, "CONNECTION"):
            on = update.get("state") == "Ok"
            assert values(update) == {"CONNECT": "On" if on else "Off", "DISCONNECT": "Off" if on else "On"}
        assert client.course(mark, "CONNECTION") == ["Busy", "Ok"]
        client.disconnect()


def test_p4_everything_is_defined_in_one_burst_after_connect(unconnected: tuple[Sim, Server]) -> None:
    """Capture begins at once, and a missing CCD_EXPOSURE ends it."""
    with Witness(unconnected[1].address) as client:
        mark = client.connect()
        told = [m for _, m in client.arrivals[mark:]]
        ok = next(m for m in client.after(mark, "CONNECTION") if m.get("state") == "Ok")
        burst = []
        for message in told[told.index(ok) + 1 :]:
            if not message.tag.startswith("def"):
                break
            burst.append(message.get("name"))
        assert set(LASTING) <= set(burst)
        assert client.when(ok) - client.arrivals[mark][0] < 30
        client.disconnect()


def test_p5_all_elements_are_there_and_final_in_the_definition(unconnected: tuple[Sim, Server]) -> None:
    """They are used without a look whether they exist."""
    elements = {
        "CCD_INFO": "CCD_MAX_X CCD_MAX_Y CCD_PIXEL_SIZE CCD_PIXEL_SIZE_X CCD_PIXEL_SIZE_Y CCD_BITSPERPIXEL",
        "CCD_BINNING": "HOR_BIN VER_BIN",
        "CCD_FRAME": "X Y WIDTH HEIGHT",
        NS: "TIMED_GUIDE_N TIMED_GUIDE_S",
        WE: "TIMED_GUIDE_W TIMED_GUIDE_E",
    }
    with Witness(unconnected[1].address) as client:
        mark = client.connect()
        client.temperatures(mark, 2)
        for vector, names in elements.items():
            (definition,) = client.after(mark, vector, "def")
            assert list(values(definition)) == names.split()
            assert not client.after(mark, vector)  # nothing had to be put right afterwards
        (info,) = client.after(mark, "CCD_INFO", "def")
        assert [float(value) for value in values(info).values()] == [3326, 2504, 5.4, 5.4, 5.4, 16]
        client.disconnect()


def test_p6_the_largest_binning_is_the_real_one_and_symmetric(client: Witness) -> None:
    """All up to the maximum are offered to the user."""
    highest = {int(float(element.attrib["max"])) for element in client.definition("CCD_BINNING")}
    assert len(highest) == 1
    (most,) = highest
    for binning in range(1, most + 1):
        client.put("Number", "CCD_BINNING", HOR_BIN=binning, VER_BIN=binning)
    assert client.shape() == (SMALL["HEIGHT"] // most, SMALL["WIDTH"] // most)
    mark = client.ask("Number", "CCD_BINNING", HOR_BIN=most + 1, VER_BIN=most + 1)
    assert client.answer(mark, "CCD_BINNING").get("state") == "Alert"


@pytest.mark.parametrize("binning", [2, 3])
def test_p7_binning_and_frame_at_once_give_exactly_the_size(client: Witness, binning: int) -> None:
    """A full frame is floor(max / bin) * bin; a picture of another size is read outside of its memory."""
    width, height = 3326 // binning * binning, 2504 // binning * binning
    client.new("Number", "CCD_BINNING", HOR_BIN=binning, VER_BIN=binning)
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=width, HEIGHT=height)
    assert client.shape() == (height // binning, width // binning)
    client.new("Number", "CCD_FRAME", X=31 * binning, Y=17 * binning, WIDTH=31 * binning, HEIGHT=31 * binning)
    assert client.shape() == (31, 31)


def test_p8_the_exposure_leaves_busy_after_frame_abort_and_failure(client: Witness, sim: Sim) -> None:
    """It polls while Busy, and disconnects when that takes too long."""
    client.take()
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=20)
    client.answer(mark, "CCD_EXPOSURE", "Busy")
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Idle"
    sim.camera.faults.arm("lost-image")
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.1)
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Alert"
    client.take()


def test_p9_the_picture_is_ccd1_in_plain_fits(client: Witness) -> None:
    """Both names CCD1, format exactly .fits, size the length; compression is off unless somebody asks."""
    mark, file = client.take()
    ((blob,),) = client.after(mark, "CCD1", "setBLOB")
    assert (blob.get("name"), blob.get("format"), blob.get("size")) == ("CCD1", ".fits", str(len(file)))
    header, pixels = opened(file)
    assert (header["NAXIS"], header["BITPIX"], pixels.dtype.name) == (2, 16, "uint16")
    assert values(client.definition("CCD_COMPRESSION"))["INDI_ENABLED"] == "Off"


def test_p10_a_hiccup_on_the_usb_costs_no_picture(client: Witness, sim: Sim) -> None:
    """It waits 15 s for a picture that does not come, and does not look at Alert."""
    for hiccup in ("wrong-echo", "duplicate-answer", "garbage-before"):
        sim.camera.faults.arm(f"{hiccup}@exposure_end")
        client.take()


def test_p11_the_driver_adds_little_to_readout_and_transfer(client: Witness) -> None:
    """15 s after the exposure the picture must be there; this camera reads in no time, so this is our part."""
    client.put("Number", "CCD_FRAME", X=0, Y=0, WIDTH=3326, HEIGHT=2504)
    mark, _ = client.take()
    (blob,) = client.after(mark, "CCD1", "setBLOB")
    assert client.when(blob) - client.when(client.after(mark, "CCD_EXPOSURE")[0]) < 15


def test_p12_a_pulse_is_busy_at_once_and_over_once_when_it_has_ended(tmp_path: Path) -> None:
    """An end that comes early exposes a moving star; a second one is taken for the end of the next pulse."""
    with bench(tmp_path) as (sim, _, client):
        asked = time.monotonic()
        mark = pulse(client, north=300)
        assert client.answer(mark, NS).get("state") == "Idle"
        (start,), (end,) = sim.times("relay"), sim.times("relay_end")
        assert end - start >= 0.28
        busy, over = client.after(mark, NS)
        assert busy.get("state") == "Busy"
        assert client.when(over) - asked >= 0.28
        client.temperatures(client.mark, 2)
        assert len(client.after(mark, NS)) == 2
        # The camera leaves in mid-pulse.
        mark = pulse(client, south=5000)
        eventually(lambda: sim.count("relay") == 2, "the relay closes")
        sim.camera.device.unplug()
        assert client.answer(mark, NS).get("state") == "Alert"


@pytest.mark.parametrize("value", ["60001", "-5", "nan", "soon"])
def test_p12_a_bad_pulse_is_answered_at_once(client: Witness, sim: Sim, value: str) -> None:
    """It waits for an update without a limit."""
    mark = client.ask("Number", NS, TIMED_GUIDE_N=value, TIMED_GUIDE_S=0)
    answer = client.answer(mark, NS)
    assert answer.get("state") == "Alert" and "0..50000" in answer.get("message", "")
    assert sim.count("relay") == 0


def test_p12_a_pulse_without_a_camera_is_answered(unconnected: tuple[Sim, Server]) -> None:
    """There is no vector that could be updated; then there must be a message."""
    with Witness(unconnected[1].address) as client:
        client.definitions()
        mark = pulse(client, north=100)
        eventually(
            lambda: [m for m in client.after(mark, tag="message") if NS in m.get("message", "")], "a message"
        )


def test_p13_no_guide_vector_is_updated_unasked(client: Witness) -> None:
    """A Busy that nobody asked for blocks the next pulse."""
    mark = pulse(client, north=20)
    client.answer(mark, NS)
    client.take()
    client.send(f"<getProperties version='1.7' device='{DEVICE}'/>")
    client.temperatures(client.mark, 2)
    assert [m.get("state") for m in client.after(mark, NS)] == ["Busy", "Idle"]
    assert not client.after(mark, WE)


def test_p14_pulses_start_and_end_during_exposure_and_readout(client: Witness, sim: Sim) -> None:
    """It guides with another camera while this one exposes."""
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=4)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    assert client.answer(pulse(client, north=100), NS).get("state") == "Idle"
    assert not sim.count("exposure_end")
    imager = sim.camera.firmware.imager
    usual, imager.readout = imager.readout, 1.0 * 10  # s of the camera's fast time
    try:
        eventually(lambda: sim.count("exposure_end"), "the readout begins")
        assert client.answer(pulse(client, south=100), NS).get("state") == "Idle"
        assert not sim.count("idle")
    finally:
        imager.readout = usual
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Ok"
    assert client.course(mark, "CCD_EXPOSURE") == ["Busy", "Ok"]


def test_p15_nothing_lasting_is_deleted_or_defined_again(client: Witness) -> None:
    """It keeps pointers, and does not notice deletions."""
    mark = client.mark
    for vector, on, off in (
        ("UPLOAD_MODE", "UPLOAD_BOTH", "UPLOAD_CLIENT"),
        ("CCD_COMPRESSION", "INDI_ENABLED", "INDI_DISABLED"),
        ("CCD_TRANSFER_FORMAT", "FORMAT_NATIVE", "FORMAT_FITS"),
        ("WCS_CONTROL", "WCS_ENABLE", "WCS_DISABLE"),
        ("GUIDER_DEVICE", "ENABLE", "DISABLE"),
        ("CCD_ROLE", "ROLE_GUIDER", "ROLE_MAIN"),
        ("READOUT_QUALITY", "QUALITY_LOW", "QUALITY_HIGH"),
    ):
        for switch in (on, off):
            client.answer(client.ask("Switch", vector, **{switch: "On"}), vector, "Ok", "Idle")
    client.put("Number", "CCD_BINNING", HOR_BIN=4, VER_BIN=4)
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3)
    client.take()
    touched = [m.get("name") for m in client.after(mark, tag="d")]
    assert not set(touched) & set(LASTING)
    assert set(touched) == {"CCD_FILE_PATH", "CCD_ROTATION"}


def test_p16_connection_is_told_before_the_deletions(unconnected: tuple[Sim, Server]) -> None:
    with Witness(unconnected[1].address) as client:
        client.connect()
        mark = client.disconnect()
        told = [
            m
            for m in client.after(mark, tag="")
            if m.tag == "delProperty" or (m.get("name") == "CONNECTION" and m.get("state") != "Busy")
        ]
        assert (told[0].get("name"), values(told[0])["CONNECT"]) == ("CONNECTION", "Off")


def test_p17_no_video_stream_is_defined(client: Witness) -> None:
    """The first picture that is late would make it try streaming, for good."""
    assert not [m.get("name") for m in client.definitions() if "STREAM" in m.attrib["name"]]


def test_p18_a_mono_camera_has_no_colour_mask(client: Witness) -> None:
    assert "CCD_CFA" not in [m.get("name") for m in client.definitions()]


def test_p19_and_p20_light_and_client_again_after_a_connect(unconnected: tuple[Sim, Server]) -> None:
    """It sets neither: after another program's dark, guide frames would be dark; after Local, none would come."""
    with Witness(unconnected[1].address) as client:
        client.connect()
        client.put("Switch", "CCD_FRAME_TYPE", FRAME_DARK="On")
        warned = client.put("Switch", "UPLOAD_MODE", UPLOAD_LOCAL="On")
        assert "guiding programs get none" in warned.get("message", "")
        client.put("Switch", "CCD_COMPRESSION", INDI_ENABLED="On")
        client.put("Switch", "CCD_TRANSFER_FORMAT", FORMAT_NATIVE="On")
        client.disconnect()
        client.connect()
        assert values(client.definition("CCD_FRAME_TYPE"))["FRAME_LIGHT"] == "On"
        assert values(client.definition("UPLOAD_MODE"))["UPLOAD_CLIENT"] == "On"
        assert values(client.definition("CCD_COMPRESSION"))["INDI_DISABLED"] == "On"
        assert values(client.definition("CCD_TRANSFER_FORMAT"))["FORMAT_FITS"] == "On"
        client.disconnect()


def test_on_camera_and_guider_device_are_one_port(connected: Bench, client: Witness) -> None:
    """A second device for imaging cameras: PHD2 takes a mount only if it is no camera. The port is one."""
    client.put("Switch", "GUIDER_DEVICE", ENABLE="On")
    guider = f"{DEVICE} Guider"
    info = eventually(lambda: client.after(0, "DRIVER_INFO", "def", guider), "the guider's DRIVER_INFO")[0]
    order = [m.get("name") for m in client.after(0, tag="def", device=guider)]
    assert order[:2] == ["CONNECTION", "DRIVER_INFO"]
    assert values(info)["DRIVER_INTERFACE"] == "4"
    mark = client.mark
    client.send(
        f"<newSwitchVector device='{guider}' name='CONNECTION'><oneSwitch name='CONNECT'>On</oneSwitch></newSwitchVector>"
    )
    assert client.answer(mark, "CONNECTION", device=guider).get("state") == "Ok"
    eventually(lambda: client.after(mark, WE, "def", guider), "the guide vectors")
    for _ in range(3):
        mark = client.mark
        client.send(
            f"<newNumberVector device='{guider}' name='{WE}'><oneNumber name='TIMED_GUIDE_W'>50</oneNumber>"
            "<oneNumber name='TIMED_GUIDE_E'>0</oneNumber></newNumberVector>"
        )
        answer = client.answer(mark, WE, device=guider)
        # A simulated camera that a busy machine held up for a second: the pulse was dropped, as it has to be.
        if "could not be sent within" not in answer.get("message", ""):
            break
    assert answer.get("state") == "Idle"
    assert [m.get("state") for m in client.after(mark, WE, device=guider)] == ["Busy", "Idle"]
    assert not client.after(mark, WE)  # whoever asked is answered, nobody else
    client.put("Switch", "GUIDER_DEVICE", DISABLE="On")
    assert number(client.definition(WE)) == 0
