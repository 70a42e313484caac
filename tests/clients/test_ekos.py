# SPDX-License-Identifier: LGPL-2.1-or-later
"""What KStars/Ekos needs of a camera, demand by demand (K1 to K21).

Its capture sessions are replayed in test_replay.py; tests/ekos drives the real program. Elsewhere as well:

| demand | also held by |
|---|---|
| K4 | tests/end_to_end/test_exposure.py: test_frame_and_binning_in_either_order |
| K6 | tests/end_to_end/test_exposure.py: test_a_second_exposure_restarts_the_first, test_two_requests_at_once_* |
| K8 | tests/end_to_end/test_exposure.py: test_life_cycle |
| K21 | tests/end_to_end/test_connection.py: test_no_camera_no_permission_and_busy_are_told_apart |
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.clients.bench import GUIDE, SMALL, Witness, bench, number
from tests.clients.conftest import Bench
from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, Server, Sim, opened, stand_alone

ROOT = Path(__file__).parents[2]


def test_k1_the_launcher_names_the_device(tmp_path: Path) -> None:
    """INDIDEV; and the name in the driver's XML file begins as our device name does."""
    with stand_alone(tmp_path, {"INDI_QSI_USB": "sim:683s", "INDIDEV": "QSI at the pier"}) as server:
        with Witness(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            client.wait_for("defTextVector", name="DRIVER_INFO", device="QSI at the pier")
    for file in ROOT.glob("[!.]*/**/indi_qsi*.xml"):
        assert 'driver name="QSI' in file.read_text() or 'device label="QSI' in file.read_text()


@pytest.mark.parametrize(("model", "mask"), [("683wsg", 22), ("683s", 6)])
def test_k2_the_interface_mask_is_right_early(model: str, mask: int, tmp_path: Path) -> None:
    """22 at once; when the camera turns out to have less, an update says so."""
    with Sim(tmp_path, model) as sim, stand_alone(tmp_path, sim.environ) as server:
        with Witness(server.address) as client:
            client.connect()
            assert values(client.after(0, "DRIVER_INFO", "def")[0])["DRIVER_INTERFACE"] == "22"
            assert client.latest("DRIVER_INFO")["DRIVER_INTERFACE"] == str(mask)


def test_k3_loading_the_config_at_once_is_harmless_and_quick(tmp_path: Path) -> None:
    """It comes 10 ms after CONNECT, while the camera is being connected, and again after it."""
    with Sim(tmp_path, speed=10, readout=0.05) as sim, stand_alone(tmp_path, sim.environ) as server:
        with Witness(server.address) as client:
            client.connect()
            client.put("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
            client.disconnect()
            sim.happened.clear()
            mark = client.mark
            client.new("Switch", "CONNECTION", CONNECT="On")
            client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
            eventually(lambda: client.after(mark, "FILTER_NAME", "def"), "connected")
            for _ in range(2):
                load = client.ask("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
                assert client.answer(load, "CONFIG_PROCESS").get("state") == "Ok"
            client.temperatures(client.mark, 2)
            assert [sim.count(event) for event in ("filter", "expose", "relay")] == [0, 0, 0]
            states = {m.get("name"): m.get("state") for m in client.definitions()}
            assert not {"Busy", "Alert"} & set(states.values()), states


def test_k3_a_frame_of_another_sensor_is_cut_to_this_one(connected: Bench, client: Witness) -> None:
    """The config file belongs to the device name, and another camera may be on the cable."""
    client.put("Number", "CCD_FRAME", X=0, Y=0, WIDTH=3326, HEIGHT=2504)
    client.put("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
    file = connected[1].home / ".indi" / f"{DEVICE}_config.xml"
    saved = file.read_text()
    assert "3326" in saved and "2504" in saved
    file.write_text(saved.replace("3326", "4499").replace("2504", "3599"))
    try:
        client.put("Number", "CCD_FRAME", **SMALL)
        mark = client.ask("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
        client.answer(mark, "CONFIG_PROCESS")
        assert client.latest("CCD_FRAME") == {"X": "0.0", "Y": "0.0", "WIDTH": "3326.0", "HEIGHT": "2504.0"}
        assert client.course(mark, "CCD_FRAME") == ["Ok"]
    finally:
        file.unlink()


@pytest.mark.parametrize("order", [("frame", "binning"), ("binning", "frame")])
def test_k4_frame_and_binning_in_any_order_are_each_answered(client: Witness, order: tuple[str, str]) -> None:
    """Guide and Focus send the frame first, Capture the binning; what is odd in between is fitted later."""
    requests = {
        "frame": ("CCD_FRAME", {"X": 3323, "Y": 2501, "WIDTH": 3, "HEIGHT": 3}),
        "binning": ("CCD_BINNING", {"HOR_BIN": 3, "VER_BIN": 3}),
    }
    marks = [(vector, client.ask("Number", vector, **wanted)) for vector, wanted in map(requests.get, order)]  # type: ignore[misc]
    for vector, mark in marks:
        assert client.answer(mark, vector).get("state") == "Ok"
    assert client.shape() == (1, 1)


def test_k5_frame_limits_have_a_range(client: Witness) -> None:
    """Where min is not below max, the control is disabled."""
    limits = {
        e.attrib["name"]: (float(e.attrib["min"]), float(e.attrib["max"]))
        for e in client.definition("CCD_FRAME")
    }
    assert limits == {"X": (0, 3325), "Y": (0, 2503), "WIDTH": (1, 3326), "HEIGHT": (1, 2504)}


def test_k6_a_request_while_busy_restarts(client: Witness, sim: Sim) -> None:
    """Two requests may come in quick succession."""
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=20)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    for _ in range(3):
        client.expose(0.05)
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Ok"
    assert client.course(mark, "CCD_EXPOSURE") == ["Busy", "Ok"]
    assert len(client.blobs) == 1


def test_k7_a_failure_is_alert_and_brings_no_picture(client: Witness, sim: Sim) -> None:
    """An Alert with a picture after it doubles frames."""
    sim.camera.faults.arm("lost-image")
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.05)
    answer = client.answer(mark, "CCD_EXPOSURE")
    assert answer.get("state") == "Alert" and "failed" in answer.get("message", "")
    client.take()
    assert len(client.blobs) == 1
    assert client.course(mark, "CCD_EXPOSURE") == ["Busy", "Alert", "Busy", "Ok"]


def test_k8_countdown_then_picture_then_ok(client: Witness) -> None:
    mark, _ = client.take(1.2)
    told = [m for m in client.after(mark) if m.get("name") in ("CCD_EXPOSURE", "CCD1")]
    assert [(m.get("name"), m.get("state")) for m in told[-3:]] == [
        ("CCD_EXPOSURE", "Busy"),
        ("CCD1", "Ok"),
        ("CCD_EXPOSURE", "Ok"),
    ]
    counted = [number(m) for m in told if m.get("name") == "CCD_EXPOSURE"]
    assert counted == sorted(counted, reverse=True)
    assert any(0 < value < 0.5 for value in counted)


def test_k9_size_is_that_of_the_file(client: Witness) -> None:
    for frame in (SMALL, {**SMALL, "WIDTH": 101, "HEIGHT": 33}):
        client.put("Number", "CCD_FRAME", **frame)
        mark, file = client.take()
        ((blob,),) = client.after(mark, "CCD1", "setBLOB")
        assert int(blob.attrib["size"]) == len(file) and len(file) % 2880 == 0
        assert blob.get("format") == ".fits"


def test_k10_temperatures_keep_coming(tmp_path: Path) -> None:
    """The first update after a request is not looked at, and only updates count, not changes."""
    with bench(tmp_path, speed=200) as (_, _, client):
        mark = client.ask("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=10)
        assert (
            client.answer(mark, "CCD_TEMPERATURE", "Busy", "Ok") is client.after(mark, "CCD_TEMPERATURE")[0]
        )
        client.answer(mark, "CCD_TEMPERATURE", "Ok")
        updates = client.temperatures(client.mark, 2)
        assert [m.get("state") for m in updates] == ["Ok"] * len(updates)
        assert all(abs(number(m) - 10) <= 0.2 for m in updates)
        seen = {round(number(m) % 0.25, 4) for m in client.after(mark, "CCD_TEMPERATURE")}
        assert len(seen) > 1  # not in steps of a quarter of a degree


def test_k11_a_request_for_the_present_temperature_starts_the_cooler(client: Witness, sim: Sim) -> None:
    for _ in range(2):
        client.answer(client.ask("Switch", "CCD_COOLER", COOLER_OFF="On"), "CCD_COOLER", "Busy", "Idle")
    eventually(lambda: client.latest("CCD_COOLER")["COOLER_OFF"] == "On", "the cooler is off")
    now = number(client.temperatures(client.mark, 1)[-1])
    mark = client.ask("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=round(now, 2))
    client.temperatures(mark, 3)
    eventually(lambda: client.latest("CCD_COOLER")["COOLER_ON"] == "On", "the cooler is on")
    assert sim.happened[-1:] and any(h["e"] == "temperature" and h["on"] for h in sim.happened)


def test_k12_the_cooler_switch(client: Witness) -> None:
    """COOLER_ON is element 0; every update has both."""
    definition = client.definition("CCD_COOLER")
    assert definition.get("perm") == "rw"
    assert list(values(definition)) == ["COOLER_ON", "COOLER_OFF"]
    mark = client.ask("Switch", "CCD_COOLER", COOLER_ON="On")
    on = client.answer(mark, "CCD_COOLER", "Ok")
    assert values(on) == {"COOLER_ON": "On", "COOLER_OFF": "Off"}
    for _ in range(2):
        client.answer(client.ask("Switch", "CCD_COOLER", COOLER_OFF="On"), "CCD_COOLER", "Busy", "Idle")
    off = client.answer(mark, "CCD_COOLER", "Idle")
    assert values(off) == {"COOLER_ON": "Off", "COOLER_OFF": "On"}
    assert {tuple(values(m)) for m in client.after(mark, "CCD_COOLER")} == {("COOLER_ON", "COOLER_OFF")}


def test_k13_the_filter_slot(client: Witness, sim: Sim) -> None:
    """Real position in the definition; Busy with the old one; Ok with the new one; the same one is Ok."""
    definition = client.definition("FILTER_SLOT")
    assert definition.get("state") == "Ok"
    old = number(definition)
    new = 4 if old != 4 else 2
    mark = client.ask("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=new)
    assert number(client.answer(mark, "FILTER_SLOT", "Ok")) == new
    assert {(m.get("state"), number(m)) for m in client.after(mark, "FILTER_SLOT")} == {
        ("Busy", old),
        ("Ok", new),
    }
    assert client.after(mark, "FILTER_SLOT")[0].get("state") == "Busy"
    moves = sim.count("filter")
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=new)
    assert sim.count("filter") == moves == 1
    mark = client.ask("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=6)
    refused = client.answer(mark, "FILTER_SLOT")
    assert (refused.get("state"), number(refused)) == ("Alert", new) and "1..5" in refused.get("message", "")
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=new)  # and Ok again


@pytest.mark.parametrize(("model", "slots"), [("683wsg", 5), ("683wsg-8", 8)])
def test_k14_as_many_filter_names_as_slots(model: str, slots: int, tmp_path: Path) -> None:
    with bench(tmp_path, model, speed=10) as (_, _, client):
        assert float(client.definition("FILTER_SLOT")[0].attrib["max"]) == slots
        names = client.definition("FILTER_NAME")
        assert [e.attrib["name"] for e in names] == [f"FILTER_SLOT_NAME_{n + 1}" for n in range(slots)]
        # The whole vector at once.
        wanted = {f"FILTER_SLOT_NAME_{n + 1}": f"Filter no. {n}" for n in range(slots)}
        assert values(client.put("Text", "FILTER_NAME", **wanted)) == wanted


def test_k15_pulses_of_both_axes_in_one_packet(client: Witness) -> None:
    """Both are Busy at once, and it waits max(both) + 100 ms; the camera's relays take turns, axis by axis."""
    ns, we = GUIDE
    mark = client.mark
    client.send(
        f"<newNumberVector device='{DEVICE}' name='{we}'><oneNumber name='TIMED_GUIDE_W'>120</oneNumber>"
        f"<oneNumber name='TIMED_GUIDE_E'>0</oneNumber></newNumberVector>"
        f"<newNumberVector device='{DEVICE}' name='{ns}'><oneNumber name='TIMED_GUIDE_N'>120</oneNumber>"
        f"<oneNumber name='TIMED_GUIDE_S'>0</oneNumber></newNumberVector>"
    )
    ends = [client.when(client.answer(mark, vector)) for vector in GUIDE]
    told = [(m.get("name"), m.get("state")) for m in client.after(mark) if m.get("name") in GUIDE]
    assert told[:2] == [(we, "Busy"), (ns, "Busy")]
    assert sorted(told[2:]) == sorted([(we, "Idle"), (ns, "Idle")])
    assert max(ends) - min(ends) >= 0  # both ended, each once


def test_k16_order_and_labels_that_it_goes_by(client: Witness) -> None:
    modes = client.definition("UPLOAD_MODE")
    assert [(e.get("name"), e.get("label")) for e in modes] == [
        ("UPLOAD_CLIENT", "Client"),
        ("UPLOAD_LOCAL", "Local"),
        ("UPLOAD_BOTH", "Both"),
    ]
    formats = client.definition("CCD_TRANSFER_FORMAT")
    assert {e.get("name"): e.get("label") for e in formats} == {
        "FORMAT_FITS": "FITS",
        "FORMAT_NATIVE": "Native",
    }
    ramp = client.definition("CCD_TEMP_RAMP")
    assert [e.get("name") for e in ramp] == ["RAMP_SLOPE", "RAMP_THRESHOLD"]


def test_k17_no_number_is_called_gain_or_offset(client: Witness) -> None:
    for vector in client.definitions():
        if vector.tag == "defNumberVector":
            called = {text.lower() for e in vector for text in (e.get("name", ""), e.get("label", ""))}
            assert not called & {"gain", "offset"}, vector.get("name")


def test_k18_header_records_in_a_row(client: Witness) -> None:
    """What is sent at the start of a job."""
    records = {
        "OBJECT": "M 31",
        "OBSERVER": "Ann O'Nymous & friends",
        "TELESCOP": "EQ6-R",
        "SITELAT": "52.5",
        "FILTPOS": "3",
    }
    mark = client.mark
    for name, value in records.items():
        escaped = value.replace("&", "&amp;")
        client.new("Text", "FITS_HEADER", KEYWORD_NAME=name, KEYWORD_VALUE=escaped, KEYWORD_COMMENT="by Ekos")
    eventually(lambda: len(client.after(mark, "FITS_HEADER")) == len(records), "all are answered")
    assert [m.get("state") for m in client.after(mark, "FITS_HEADER")] == ["Ok"] * len(records)
    header, _ = opened(client.take()[1])
    assert {name: str(header[name]) for name in records} == records
    client.put("Text", "FITS_HEADER", KEYWORD_NAME="INDI_CLEAR")


def test_k19_and_k20_local_files_are_told_each_time(client: Witness) -> None:
    """The end of a local capture; and CCD1 stays as it is, since it is one connection."""
    mark = client.mark
    client.put("Text", "UPLOAD_SETTINGS", UPLOAD_DIR="_HOME_/pictures", UPLOAD_PREFIX="M31")
    client.put("Switch", "UPLOAD_MODE", UPLOAD_LOCAL="On")
    paths = []
    for _ in range(2):
        exposure = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.05)
        assert client.answer(exposure, "CCD_EXPOSURE").get("state") == "Ok"
        (path,) = client.after(exposure, "CCD_FILE_PATH")
        order = client.after(exposure)
        assert path.get("state") == "Ok"
        assert order.index(path) < order.index(client.answer(exposure, "CCD_EXPOSURE"))
        paths.append(Path(values(path)["FILE_PATH"]))
    assert all(path.exists() for path in paths) and len(set(paths)) == 2
    assert not client.blobs
    client.put("Switch", "UPLOAD_MODE", UPLOAD_CLIENT="On")
    client.take()
    assert not client.after(mark, "CCD1", "d")


def test_k21_a_failed_connect_is_told(unconnected: tuple[Sim, Server]) -> None:
    sim, server = unconnected
    with Witness(server.address) as client:
        client.definitions()
        sim.camera.device.deny_open(errno.EACCES)
        try:
            mark = client.ask("Switch", "CONNECTION", CONNECT="On")
            answer = client.answer(mark, "CONNECTION")
        finally:
            sim.camera.device.deny_open(None)
        assert values(answer) == {"CONNECT": "Off", "DISCONNECT": "On"}
        assert (answer.get("state"), bool(answer.get("message"))) == ("Alert", True)
        assert client.when(answer) - client.arrivals[mark][0] < 20


def test_the_shortest_exposure_that_is_offered_is_taken(client: Witness) -> None:
    """Ekos and others stop at the limit, and print it with a few digits."""
    shortest = float(client.definition("CCD_EXPOSURE")[0].attrib["min"])
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=f"{shortest:g}")
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Ok"
