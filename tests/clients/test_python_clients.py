# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two client libraries for Python drive every property, under Debian's indiserver."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from indi_qsi.propertydocs import REVEALING
from tests.clients.bench import SMALL, Witness
from tests.device.test_every_property import LASTING, NOT_SET, kind_of, other_values
from tests.support.indi import PATIENCE, values
from tests.support.rig import DEVICE, Server, Sim, under_indiserver

Step = tuple[str, dict[str, str], list[str]]
FINAL = ["Idle", "Ok", "Alert"]
# They go on changing by themselves, so two clients need not have seen the same value last.
LIVELY = {*LASTING, "CCD_EXPOSURE", "TELESCOPE_TIMED_GUIDE_NS", "TELESCOPE_TIMED_GUIDE_WE"}
LIBRARIES = {"drive_pyindi.py": "PyIndi", "drive_indipyclient.py": "indipyclient"}
LAST_OF_A_BURST = ("DEBUG_LEVEL", "LOGGING_LEVEL", "CCD1", "FILTER_NAME")
# What a walk over all properties cannot set in any order.
BEFORE_CONNECTING: list[Step] = [
    ("SIMULATION", {"ENABLE": "On"}, FINAL),
    ("SIMULATION", {"DISABLE": "On"}, FINAL),
    ("CONNECTION", {"CONNECT": "On"}, FINAL),
]
BEFORE_ALL: list[Step] = [(vector, {switch: "On"}, FINAL) for vector, switch in REVEALING]
AFTER_ALL: list[Step] = [
    ("CCD_ROLE", {"ROLE_GUIDER": "On"}, FINAL),
    ("CCD_ROLE", {"ROLE_MAIN": "On"}, FINAL),
    ("CCD_BINNING", {"HOR_BIN": "1", "VER_BIN": "1"}, FINAL),
    ("CCD_FRAME", {name: str(value) for name, value in SMALL.items()}, FINAL),
    ("UPLOAD_MODE", {"UPLOAD_CLIENT": "On"}, FINAL),
    ("CCD_EXPOSURE", {"CCD_EXPOSURE_VALUE": "0.1"}, FINAL),
    ("CONFIG_PROCESS", {"CONFIG_SAVE": "On"}, FINAL),
    ("GUIDER_DEVICE", {"DISABLE": "On"}, FINAL),
    ("DEBUG", {"DISABLE": "On"}, FINAL),
    ("CONNECTION", {"DISCONNECT": "On"}, FINAL),
]


def drive(program: str, server: Server, plan: list[Step]) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """What the program tells of each step, and the values that it knows in the end."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), str(server.port), DEVICE],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        env=server.environ,
    )
    assert result.returncode == 0, (result, server.log)
    answers, values_at_end = json.loads(result.stdout)
    assert [answer[0] for answer in answers] == [step[0] for step in plan]
    assert not [answer for answer in answers if answer[1] == "Alert"]
    return answers, values_at_end


def everything(definitions: list[ET.Element]) -> list[Step]:
    """Every vector that a client may set, with all the valid requests of the walk."""
    plan: list[Step] = []
    for vector in definitions:
        name = vector.attrib["name"]
        if vector.get("perm") == "ro" or name in NOT_SET or kind_of(vector) in ("BLOB", "Light"):
            continue
        states = ["Busy", *FINAL] if name in LASTING else FINAL
        plan += [(name, wanted, states) for wanted in other_values(vector)]
    return plan


def same(one: object, other: str) -> bool:
    try:
        return math.isclose(float(str(one)), float(other), rel_tol=1e-6, abs_tol=1e-6)
    except ValueError:
        return one == other


@pytest.mark.parametrize("program", list(LIBRARIES))
@pytest.mark.parametrize("model", ["683wsg", "540cwsg"])
def test_a_client_library_drives_every_property(program: str, model: str, tmp_path: Path) -> None:
    pytest.importorskip(LIBRARIES[program], reason="has no wheel for this Python")
    with (
        Sim(tmp_path, model, speed=100.0, readout=0.05) as sim,
        under_indiserver(tmp_path, sim.environ) as server,
        Witness(server.address) as witness,
    ):
        # All of them: indiserver keeps account of what was asked for.
        witness.send("<getProperties version='1.7'/>")
        witness.definition("CONNECTION")
        drive(program, server, BEFORE_CONNECTING)
        drive(program, server, BEFORE_ALL)
        # Under indiserver everybody hears what anybody asks for, so "all definitions" has no end to wait for.
        for name in (*LAST_OF_A_BURST, *(vector for vector, _ in REVEALING)):
            witness.definition(name)
        definitions = list({d.attrib["name"]: d for d in witness.after(0, tag="def")}.values())
        plan = everything(definitions)
        assert len(plan) > 50
        mark = witness.mark
        _, believed = drive(program, server, plan)

        settable = {step[0] for step in (*BEFORE_CONNECTING, *BEFORE_ALL, *plan, *AFTER_ALL)}
        wanted = {d.attrib["name"] for d in definitions if d.get("perm") in ("rw", "wo")}
        assert wanted - settable == set()
        # What the library believes in the end is what the driver says.
        for name in {step[0] for step in plan} - LIVELY:
            told = values(witness.definition(name))
            assert {n: v for n, v in told.items() if not same(believed[name][n], v)} == {}, name
            assert witness.after(mark, name), name

        answers, _ = drive(program, server, AFTER_ALL)
        assert {name: size for name, _, size in answers}["CCD_EXPOSURE"] > 2 * SMALL["WIDTH"] * SMALL[
            "HEIGHT"
        ]
        assert sim.picture().shape == (SMALL["HEIGHT"], SMALL["WIDTH"])
