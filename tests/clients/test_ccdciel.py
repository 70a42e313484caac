# SPDX-License-Identifier: LGPL-2.1-or-later
"""What CCDciel needs of a camera (C1 to C10), and the traps that all clients share (1 to 13).

| trap | held by |
|---|---|
| 1 (order), 2 (one end), 4 (pulses) | test_p1_*, test_k8_*, test_p12_*, test_p13_*, and every replayed session |
| 5 (.fits), 6 (temperatures), 9 (mask) | test_p9_*, test_k9_*, test_k10_*, test_p2_*, test_k2_* |
| 8 (aborts) | test_c3_* |
| 12 (several clients) | test_two_clients.py |
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.clients.bench import SMALL, Witness, bench, number
from tests.clients.conftest import Bench
from tests.support.indi import eventually, values
from tests.support.rig import Server, Sim, opened


def test_c1_config_process_is_there_before_connecting(unconnected: tuple[Sim, Server]) -> None:
    """A driver without it is given up after a minute."""
    with Witness(unconnected[1].address) as client:
        assert {"CONFIG_LOAD", "CONFIG_SAVE"} <= set(values(client.definition("CONFIG_PROCESS")))


def test_c2_the_frame_is_always_defined(tmp_path: Path) -> None:
    with bench(tmp_path, "604ws", speed=10) as (_, _, client):
        assert client.definition("CCD_FRAME").get("perm") in ("rw", "ro")


def test_c3_the_abort_switch_is_updated_only_by_an_abort(connected: Bench, client: Witness) -> None:
    """Any update of it ends its sequence, whoever caused it."""
    witness = connected[2]
    mark = witness.mark
    client.definitions()
    client.expose(20)
    client.answer(client.mark, "CCD_EXPOSURE", "Busy")
    client.take()  # in the place of the one that is running
    connected[0].camera.faults.arm("lost-image")
    client.answer(client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.05), "CCD_EXPOSURE", "Alert")
    client.take()
    client.answer(client.ask("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On"), "CONFIG_PROCESS")
    assert not witness.after(mark, "CCD_ABORT_EXPOSURE") and not client.after(0, "CCD_ABORT_EXPOSURE")
    client.answer(client.ask("Switch", "CCD_ABORT_EXPOSURE", ABORT="On"), "CCD_ABORT_EXPOSURE", "Ok")
    client.take()
    assert len(client.after(0, "CCD_ABORT_EXPOSURE")) == 1


def test_c4_frame_and_binning_are_answered_at_once_even_while_exposing(client: Witness) -> None:
    """It waits 5 s, then goes on with the old ones."""
    exposure = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.5)
    client.put("Number", "CCD_BINNING", HOR_BIN=2, VER_BIN=2)
    client.put("Number", "CCD_FRAME", **{**SMALL, "WIDTH": 100})
    assert [m.get("state") for m in client.after(exposure, "CCD_EXPOSURE") if m.get("state") != "Busy"] == []
    assert client.answer(exposure, "CCD_EXPOSURE").get("state") == "Ok"
    assert opened(client.blobs[-1])[1].shape == (SMALL["HEIGHT"], SMALL["WIDTH"])  # as it began


def test_c5_a_jammed_wheel_ends_in_alert_with_the_real_place(tmp_path: Path) -> None:
    """It waits two minutes."""
    with bench(tmp_path, speed=10) as (sim, _, client):
        sim.camera.faults.arm("wheel-jam")
        mark = client.ask("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3)
        answer = client.answer(mark, "FILTER_SLOT")
        assert answer.get("state") == "Alert" and answer.get("message")
        assert client.when(answer) - client.arrivals[mark][0] < 120


def test_c6_a_second_getproperties_defines_again_without_side_effects(client: Witness, sim: Sim) -> None:
    """Its refresh."""
    client.put("Number", "CCD_BINNING", HOR_BIN=3, VER_BIN=3)
    first = client.definitions()
    mark = client.mark
    second = client.definitions()
    assert [m.get("name") for m in first] == [m.get("name") for m in second]
    again = {m.get("name"): values(m) for m in second}
    assert {float(value) for value in again["CCD_BINNING"].values()} == {3}
    assert not client.after(mark, tag="del")
    assert [sim.count(event) for event in ("expose", "filter", "relay", "settings")] == [0, 0, 0, 0]


def test_c7_zero_and_busy_while_reading_out(client: Witness) -> None:
    """Shown as downloading."""
    mark, _ = client.take(0.1)
    assert ("Busy", 0.0) in [(m.get("state"), number(m)) for m in client.after(mark, "CCD_EXPOSURE")]


def test_c8_the_cooler_switch_can_be_read(client: Witness) -> None:
    assert client.definition("CCD_COOLER").get("perm") == "rw"


def test_c9_nothing_is_alert_in_a_night_without_trouble(connected: Bench, client: Witness) -> None:
    """Alert aborts."""
    mark = connected[2].mark
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=1)
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=2)
    for frame_type in ("FRAME_BIAS", "FRAME_DARK", "FRAME_FLAT", "FRAME_LIGHT"):
        client.put("Switch", "CCD_FRAME_TYPE", **{frame_type: "On"})
        client.take()
    client.put("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
    client.put("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
    client.ask("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=5)
    client.expose(20)
    client.answer(client.ask("Switch", "CCD_ABORT_EXPOSURE", ABORT="On"), "CCD_EXPOSURE", "Idle")
    client.temperatures(client.mark, 2)
    assert not [ET.tostring(m) for m in connected[2].after(mark) if m.get("state") == "Alert"]


def test_c10_a_local_picture_is_told_and_may_be_taken_away(client: Witness) -> None:
    """It reads the file and deletes it."""
    client.put("Text", "UPLOAD_SETTINGS", UPLOAD_DIR="_HOME_/ram", UPLOAD_PREFIX="ccdciel_tmp")
    client.put("Switch", "UPLOAD_MODE", UPLOAD_LOCAL="On")
    for _ in range(2):
        mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.05)
        path = Path(values(client.answer(mark, "CCD_FILE_PATH", "Ok"))["FILE_PATH"])
        assert path.name == "ccdciel_tmp.fits"
        assert opened(path.read_bytes())[1].shape == (SMALL["HEIGHT"], SMALL["WIDTH"])
        path.unlink()
    client.put("Switch", "UPLOAD_MODE", UPLOAD_CLIENT="On")


# --- traps that all of them share ---


def test_trap_1_connection_driver_info_then_the_rest(client: Witness) -> None:
    names = [m.get("name") for m in client.definitions()]
    assert names[:2] == ["CONNECTION", "DRIVER_INFO"]
    assert len(names) == len(set(names))


def test_trap_2_every_exposure_has_one_end(client: Witness) -> None:
    mark = client.mark
    client.take()
    client.expose(20)
    client.answer(client.mark, "CCD_EXPOSURE", "Busy")
    abort = client.ask("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.answer(abort, "CCD_EXPOSURE", "Idle")
    client.take()
    ends = [
        (m.get("state"), number(m)) for m in client.after(mark, "CCD_EXPOSURE") if m.get("state") != "Busy"
    ]
    assert ends == [("Ok", 0), ("Idle", 0), ("Ok", 0)]


def test_trap_3_the_frame_is_unbinned_whatever_the_binning(client: Witness) -> None:
    mark = client.mark
    client.put("Number", "CCD_BINNING", HOR_BIN=4, VER_BIN=4)
    assert not client.after(mark, "CCD_FRAME")
    assert {n: float(v) for n, v in values(client.definition("CCD_FRAME")).items()} == SMALL
    client.put("Number", "CCD_FRAME", X=8, Y=8, WIDTH=402, HEIGHT=203)
    assert {n: float(v) for n, v in client.latest("CCD_FRAME").items()} == {
        "X": 8,
        "Y": 8,
        "WIDTH": 402,
        "HEIGHT": 203,
    }
    assert client.shape() == (50, 100)


def test_trap_7_switch_vectors_always_tell_all_elements_in_order(connected: Bench, client: Witness) -> None:
    order = {m.get("name"): list(values(m)) for m in client.definitions()}
    # Everything that the witness has seen since the beginning.
    updates = [m for m in connected[2].after(0) if m.tag == "setSwitchVector" and m.get("name") in order]
    assert updates
    for update in updates:
        assert list(values(update)) == order[update.get("name")]


def test_trap_8_no_unasked_aborts(client: Witness) -> None:
    client.take()
    assert not client.after(0, "CCD_ABORT_EXPOSURE")


def test_trap_10_only_the_header_is_write_only(client: Witness) -> None:
    """Clients that honour permissions show nothing of what is wo."""
    write_only = {m.get("name") for m in client.definitions() if m.get("perm") == "wo"}
    assert write_only <= {"CCD_FRAME_RESET", "FITS_HEADER"}


def test_trap_11_getproperties_during_an_exposure_tells_what_is_so_now(client: Witness, sim: Sim) -> None:
    mark = client.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=2)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    eventually(lambda: len(client.after(mark, "CCD_EXPOSURE")) >= 3, "it counts down")
    definition = client.definition("CCD_EXPOSURE")
    assert definition.get("state") == "Busy" and 0 < number(definition) < 2
    assert client.answer(mark, "CCD_EXPOSURE").get("state") == "Ok"


def test_trap_13_floats_for_integers_are_rounded(client: Witness) -> None:
    client.put("Number", "CCD_FRAME", X="1.0", Y="0.9999999999", WIDTH="128.0000000000001", HEIGHT=" 6.4e1 ")
    assert {n: float(v) for n, v in client.latest("CCD_FRAME").items()} == {
        "X": 1,
        "Y": 1,
        "WIDTH": 128,
        "HEIGHT": 64,
    }
    client.put("Number", "CCD_BINNING", HOR_BIN="2.0000000000000004", VER_BIN="2.0")
    client.put("Number", "FILTER_SLOT", FILTER_SLOT_VALUE="3.0000000001")
    assert number(client.definition("FILTER_SLOT")) == 3
    assert client.shape() == (32, 64)
