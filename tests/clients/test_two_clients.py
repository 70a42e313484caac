# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two clients on one camera: both see everything, and frames go to those who want them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.bench import SMALL, Witness, number
from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, Sim, opened, stand_alone, under_indiserver


@pytest.mark.parametrize("server_kind", [under_indiserver, stand_alone])
def test_two_clients_on_one_camera(server_kind, tmp_path: Path) -> None:
    with Sim(tmp_path, speed=10, readout=0.05) as sim, server_kind(tmp_path, sim.environ) as server:
        with (
            Witness(server.address) as one,
            Witness(server.address) as other,
            Witness(server.address) as blobs,
        ):
            other.send("<getProperties version='1.7'/>")
            other.wait_for("defTextVector", name="DRIVER_INFO")
            one.connect()
            # The one who did not connect is told all the same.
            assert values(other.answer(0, "CONNECTION", "Ok"))["CONNECT"] == "On"
            eventually(lambda: other.after(0, "CCD1", "def"), "the other one gets the definitions")
            blobs.send(
                f"<getProperties version='1.7'/><enableBLOB device='{DEVICE}' name='CCD1'>Only</enableBLOB>"
            )
            eventually(lambda: blobs.after(0, "CCD1", "def"), "definitions")
            one.put("Number", "CCD_FRAME", **SMALL)
            other.answer(0, "CCD_FRAME", "Ok")

            # One takes a picture: the other sees the states, but asked for no frames.
            seen = other.mark
            _, file = one.take()
            other.answer(seen, "CCD_EXPOSURE", "Ok")
            assert other.course(seen, "CCD_EXPOSURE") == ["Busy", "Ok"]
            eventually(lambda: blobs.blobs == [file], "the frame goes to the third")
            assert not other.blobs

            # The other wants frames too, and asks for one while one exposes: abort and restart.
            other.send(f"<enableBLOB device='{DEVICE}' name='CCD1'>Also</enableBLOB>")
            other.definition("CCD_BINNING")  # by then the server knows
            mark, seen, started = one.mark, other.mark, sim.count("exposure_start")
            one.expose(20)
            eventually(lambda: sim.count("exposure_start") > started, "the shutter opens")
            other.new("Number", "CCD_BINNING", HOR_BIN=2, VER_BIN=2)
            other.expose(0.05)
            for client, since in ((one, mark), (other, seen)):
                assert number(client.answer(since, "CCD_EXPOSURE")) == 0
                assert client.course(since, "CCD_EXPOSURE") == ["Busy", "Ok"]
                assert not client.after(since, "CCD_ABORT_EXPOSURE")
            eventually(lambda: len(one.blobs) == 2 and len(other.blobs) == 1, "each gets the one picture")
            assert one.blobs[-1] == other.blobs[-1]
            assert opened(one.blobs[-1])[1].shape == (SMALL["HEIGHT"] // 2, SMALL["WIDTH"] // 2)

            # One wants no more frames; the other still gets them.
            one.send(f"<enableBLOB device='{DEVICE}'>Never</enableBLOB>")
            one.definition("CCD_BINNING")
            other.take()
            assert len(one.blobs) == 2

            # One leaves in mid-exposure: the exposure is the camera's, not a client's.
            seen = other.mark
            one.expose(0.5)
            other.answer(seen, "CCD_EXPOSURE", "Busy")
            one.close()
            assert other.answer(seen, "CCD_EXPOSURE").get("state") == "Ok"
            assert len(other.blobs) == 3
