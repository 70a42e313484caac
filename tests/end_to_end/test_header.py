# SPDX-License-Identifier: LGPL-2.1-or-later
"""Headers of real pictures: of each frame type, of other INDI drivers' values, of what clients add."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indi_qsi.device.sky import to_j2000
from tests.support.indi import eventually, free_port, values
from tests.support.rig import DEVICE, IndiClient, Server, Sim, answers, stand_alone, under_indiserver

MOUNT, FOCUSER = "Telescope Simulator", "Focuser Simulator"
ROTATOR, WHEEL, METER = "Rotator Simulator", "Filter Simulator", "SQM Simulator"
OTHERS = ("telescope", "focus", "rotator", "wheel", "sqm")


@contextmanager
def observatory(directory: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Our driver beside INDI's simulators, all connected but ours."""
    port = free_port()
    command = ["indiserver", "-r", "0", "-p", str(port), "-u", str(directory / "indi.sock"), "indi_qsi_ccd"]
    server = Server(directory, [*command, *(f"indi_simulator_{name}" for name in OTHERS)], environ)
    server.port = port
    try:
        eventually(lambda: answers(port), "indiserver listens")
        server.tool("indi_eval", "-t", "20", "-w", f'"{DEVICE}.CONNECTION.CONNECT" >= 0')
        for device in (MOUNT, FOCUSER, ROTATOR, WHEEL, METER):
            server.tool("indi_eval", "-t", "20", "-w", f'"{device}.CONNECTION.CONNECT" >= 0')
            server.tool("indi_setprop", f"{device}.CONNECTION.CONNECT=On")
            server.tool("indi_eval", "-t", "20", "-w", f'"{device}.CONNECTION._STATE" == 1')
        yield server
    finally:
        server.close()


def small(client: IndiClient) -> None:
    client.new("Number", "CCD_FRAME", X=100, Y=100, WIDTH=64, HEIGHT=48)


def number(server: Server, what: str) -> float:
    return float(server.tool("indi_getprop", "-1", "-t", "15", what))


@pytest.mark.parametrize("model", ["583wsg", "683wsg"])
def test_each_frame_type(model: str, tmp_path: Path) -> None:
    with Sim(tmp_path, model) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            small(client)
            client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
            client.wait_for("setSwitchVector", name="CCD_COOLER", state="Ok")
            for number, (kind, seconds) in enumerate(
                [("LIGHT", 0.3), ("DARK", 0.3), ("FLAT", 0.05), ("BIAS", 0)], 1
            ):
                before = time.time()
                client.new("Switch", "CCD_FRAME_TYPE", **{f"FRAME_{kind}": "On"})
                client.expose(seconds)
                header, _ = client.picture(number)
                name = kind.capitalize()
                assert (header["FRAME"], header["IMAGETYP"]) == (name, f"{name} Frame")
                assert header["EXPTIME"] == pytest.approx(seconds)
                assert header.get("DARKTIME") == (header["EXPTIME"] if kind == "DARK" else None)
                assert header["SHUTTER"] == ("Open" if kind in ("LIGHT", "FLAT") else "Closed")
                assert (header["INSTRUME"], header["CAMMODEL"]) == (DEVICE, f"QSI {model}")
                assert header["CAMSER"]
                assert header["CAMFW"]
                assert header["DETECTOR"] == "KAF-8300"
                assert (header["XORGSUBF"], header["YORGSUBF"]) == (100, 100)
                assert 0.1 < header["EGAIN"] < 3
                assert -60 < header["CCD-TEMP"] < 60
                assert 0 <= header["COOLPOWR"] <= 100
                assert 0 < header["OVSCMEAN"] < 10000
                assert header["ZEROLVL"] == 200 or model.startswith("6")
                assert header["SATURATE"] == 64000
                times = [header[f"DATE-{what}"] for what in ("OBS", "AVG", "END")]
                assert not any(text.endswith("Z") for text in times)
                start, middle, end = (
                    datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in times
                )
                assert before - 0.01 < start <= middle <= end < time.time() + 0.01
                assert end - start == pytest.approx(seconds, abs=0.002)
                assert {"RA", "CRVAL1", "TELESCOP", "BAYERPAT", "CLOCKSTP", "PEDESTAL"}.isdisjoint(header)
            assert header["SET-TEMP"] == -5


def test_the_simulators_are_snooped(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, observatory(tmp_path, sim.environ) as server:
        server.tool("indi_setprop", f"{MOUNT}.GEOGRAPHIC_COORD.LAT;LONG;ELEV=48;348.5;500")
        server.tool("indi_setprop", f"{MOUNT}.TELESCOPE_TRACK_STATE.TRACK_ON=On")
        server.tool("indi_setprop", f"{FOCUSER}.ABS_FOCUS_POSITION.FOCUS_ABSOLUTE_POSITION=49990")
        server.tool("indi_setprop", f"{WHEEL}.FILTER_SLOT.FILTER_SLOT_VALUE=4")
        server.tool("indi_eval", "-t", "20", "-w", f'"{FOCUSER}.ABS_FOCUS_POSITION._STATE" == 1')
        with IndiClient(server.address) as client:
            client.connect_camera()
            small(client)
            client.new(
                "Text",
                "ACTIVE_DEVICES",
                ACTIVE_TELESCOPE=MOUNT,
                ACTIVE_ROTATOR=ROTATOR,
                ACTIVE_FOCUSER=FOCUSER,
                ACTIVE_SKYQUALITY=METER,
                ACTIVE_FILTER=WHEEL,
            )
            client.wait_for("setTextVector", name="ACTIVE_DEVICES", state="Ok")
            client.new("Switch", "WCS_CONTROL", WCS_ENABLE="On")
            client.wait_for("defNumberVector", name="CCD_ROTATION")
            client.new("Number", "CCD_ROTATION", CCD_ROTATION_VALUE=10)
            client.new("Switch", "CCD_FRAME_TYPE", FRAME_LIGHT="On")

            def picture() -> bool:
                # The simulators answer when they do.
                client.expose(0.05)
                count = len(client.blobs) + 1
                nonlocal header
                header, _ = client.picture(count)
                return {"RA", "SITELAT", "FOCUSPOS", "ROTATANG", "MPSAS", "FOCALLEN", "PIERSIDE"} <= {*header}

            header, _ = None, None
            eventually(picture, "everything snooped is in a header")
            of_date = [number(server, f"{MOUNT}.EQUATORIAL_EOD_COORD.{name}") for name in ("RA", "DEC")]
            ra, dec = to_j2000(of_date[0], of_date[1], time.time())
            east = (header["RA"] - ra + 180) % 360 - 180
            # The simulated mount reads its position now and then, and is not quite still.
            assert math.hypot(east * math.cos(math.radians(dec)), header["DEC"] - dec) * 3600 < 60
            assert header["TELESCOP"] == MOUNT
            assert (header["SITELAT"], header["SITELONG"]) == (48, -11.5)
            assert header["OBJCTALT"] == pytest.approx(48, abs=1)  # it points to the pole
            assert header["AIRMASS"] == pytest.approx(1 / math.sin(math.radians(48)), abs=0.03)
            assert header["PIERSIDE"] in ("EAST", "WEST")
            assert header["FOCALLEN"] == number(server, f"{MOUNT}.TELESCOPE_INFO.TELESCOPE_FOCAL_LENGTH")
            assert header["APTDIA"] == number(server, f"{MOUNT}.TELESCOPE_INFO.TELESCOPE_APERTURE")
            assert header["FOCUSPOS"] == 49990
            assert header["FOCUSTEM"] == number(server, f"{FOCUSER}.FOCUS_TEMPERATURE.TEMPERATURE")
            assert header["ROTATANG"] == number(server, f"{ROTATOR}.ABS_ROTATOR_ANGLE.ANGLE")
            assert header["MPSAS"] == pytest.approx(
                number(server, f"{METER}.SKY_QUALITY.SKY_BRIGHTNESS"), abs=3
            )
            assert header["FILTER"] == server.get("FILTER_NAME.FILTER_SLOT_NAME_1") != "H_Alpha"  # ours wins
            assert header["CRVAL1"] == pytest.approx(header["RA"], abs=1e-5)
            assert header["CROTA1"] == 350

            # What goes away is not known any more.
            server.tool("indi_setprop", f"{MOUNT}.CONNECTION.DISCONNECT=On")

            def unknown() -> bool:
                client.expose(0.05)
                later, _ = client.picture(len(client.blobs) + 1)
                return {"RA", "SITELAT", "CRVAL1"}.isdisjoint(later) and "FOCUSPOS" in later

            eventually(unknown, "the mount's values are gone")


def test_names_of_other_devices_survive_a_restart(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        with under_indiserver(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            first = client.wait_for("defTextVector", name="ACTIVE_DEVICES")  # without a camera
            assert set(values(first).values()) == {""}
            client.new("Text", "ACTIVE_DEVICES", ACTIVE_TELESCOPE="EQMod's mount")
            client.wait_for("setTextVector", name="ACTIVE_DEVICES", state="Ok")
        with under_indiserver(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            again = client.wait_for("defTextVector", name="ACTIVE_DEVICES")
            assert values(again)["ACTIVE_TELESCOPE"] == "EQMod's mount"


def test_custom_keywords(tmp_path: Path) -> None:
    def keyword(client: IndiClient, name: str, value: str, comment: str = "") -> str:
        client.clear()
        client.new("Text", "FITS_HEADER", KEYWORD_NAME=name, KEYWORD_VALUE=value, KEYWORD_COMMENT=comment)
        eventually(lambda: client.states("FITS_HEADER"), "an answer")
        return client.states("FITS_HEADER")[-1]

    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            small(client)
            assert keyword(client, "Observer", "Ångström") == "Ok"
            assert keyword(client, "Object", "Barnard's Loop", "what it is") == "Ok"
            assert keyword(client, "TELESCOP", "Newton") == "Ok"
            assert keyword(client, "NOTE", "long " * 100) == "Ok"
            assert keyword(client, "", "", "a remark") == "Ok"
            for hostile in ("SIMPLE", "NAXIS1", "END", "EXPTIME", "DATE-OBS", "NINELETTERS"):
                assert keyword(client, hostile, "1") == "Alert"
            client.expose(0.05)
            header, _ = client.picture()
            assert (header["OBSERVER"], header["OBJECT"], header["TELESCOP"]) == (
                "Angstrom",
                "Barnard's Loop",
                "Newton",
            )
            assert header["NOTE"] == ("long " * 100).rstrip()
            assert list(header["COMMENT"]) == ["a remark", "Generated by INDI"]
            assert header["EXPTIME"] == 0.05
            assert keyword(client, "INDI_CLEAR", "") == "Ok"
            client.expose(0.05)
            header, _ = client.picture(2)
            assert {"OBSERVER", "OBJECT", "TELESCOP", "NOTE"}.isdisjoint(header)


def test_what_changes_during_an_exposure_is_told_as_it_began(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            small(client)
            client.new("Number", "SCOPE_INFO", FOCAL_LENGTH=500, APERTURE=100)
            client.new("Text", "FITS_HEADER", KEYWORD_NAME="OBJECT", KEYWORD_VALUE="first")
            client.expose(1.5)
            client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Busy")
            eventually(lambda: sim.count("exposure_start") == 1, "the shutter opens")
            time.sleep(0.3)  # the camera's answer is on its way
            client.new("Number", "SCOPE_INFO", FOCAL_LENGTH=1000, APERTURE=100)
            client.new("Text", "FITS_HEADER", KEYWORD_NAME="OBJECT", KEYWORD_VALUE="second")
            header, _ = client.picture()
            assert (header["OBJECT"], header["FOCALLEN"]) == ("first", 500)


def test_a_colour_camera_tells_its_pattern_when_it_was_told(tmp_path: Path) -> None:
    with Sim(tmp_path, "683cwsg") as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.wait_for("defTextVector", name="CCD_CFA")
            client.new("Text", "CCD_CFA", CFA_TYPE="GRBG")
            client.new("Number", "CCD_FRAME", X=101, Y=100, WIDTH=64, HEIGHT=48)
            client.expose(0.05)
            header, _ = client.picture()
            assert (header["BAYERPAT"], header["XBAYROFF"], header["YBAYROFF"]) == ("GRBG", 1, 0)
