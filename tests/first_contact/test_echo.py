# SPDX-License-Identifier: LGPL-2.1-or-later
"""A camera whose default settings no list names gets them back, until a client chooses something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.clock import Clock
from tests.faults.rig import FRAME, Rig

LISTED = ("fan", "gain", "shutter_priority", "anti_blooming", "flush")


def last(one: Rig) -> dict[str, Any]:
    """The settings that the camera was sent last."""
    sent = [facts for name, facts in one.happened if name == "settings"][-1]
    return {name: int(sent[name]) for name in LISTED}


def test_what_was_reported_is_sent_back(tmp_path: Path) -> None:
    with Clock():
        one = Rig(tmp_path, "640wsg", ("odd-defaults:9",))
        try:
            client = one.client
            assert one.connect() == "Ok"
            client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
            reported = dict.fromkeys(LISTED, 9)
            assert last(one) == reported
            assert one.expose() == "Ok" and last(one) == reported
            one.choose("Fan", "Quiet")
            assert last(one) == reported | {"fan": 1}  # only what was chosen
            one.choose("Gain", "Low")
            assert one.expose() == "Ok"
            assert last(one) == reported | {"fan": 1, "gain": 1}
            one.choose("CCD_ROLE", "ROLE_GUIDER")  # for which nothing is kept
            assert last(one) == reported
        finally:
            one.close()
