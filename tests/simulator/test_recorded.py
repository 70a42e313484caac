# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packets of the vendor's library, as recorded, sent to the simulated camera.

Each row of the data: time (s), request, answer (empty: none came), bytes of data behind the answer. The answers
are those of another model of a camera: their lengths and meanings count, not their values.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulator.bench import bench
from usbproto import packets as p

DATA = Path(__file__).parent / "data"
# Their values are facts of a model, not of a moment.
SAME_VALUES = (
    "columns",
    "rows",
    "pixel_width",
    "pixel_height",
    "max_bin_x",
    "max_bin_y",
    "model_number",
    "serial",
)


@pytest.mark.parametrize("base", ["583", "683"])
def test_recorded(base: str) -> None:
    rows = json.loads((DATA / f"recorded_{base}.json").read_text())
    exchanges = [row for row in rows if isinstance(row, list)]
    assert len(exchanges) > 200
    with bench(f"{base}wsg", serial=f"0{base}0001", readout=0.2) as b:
        before = exchanges[0][0]
        for time, request, expected, data in exchanges:
            b.time.advance(time - before)
            before = time
            packet = bytes.fromhex(request)
            if packet[0] == p.TRANSFER_IMAGE.code:
                b.wait_idle()  # as the host did
            answer = b.exchange(packet, 1.0 if not expected else 20.0)
            length = len(expected) // 2
            assert len(answer) == length + data, request
            if not expected:
                continue
            command, _ = p.decode_request(packet)
            ours = p.decode_answer(command, answer[:length])
            theirs = p.decode_answer(command, bytes.fromhex(expected))
            assert type(ours) is type(theirs)
            if isinstance(ours, p.DeviceDetails):
                for name in SAME_VALUES:
                    assert getattr(ours, name) == getattr(theirs, name), name
            elif isinstance(ours, p.CcdSpecs):
                assert (
                    ours.max_adu,
                    ours.full_well_hundreds,
                    ours.min_exposure_units,
                    ours.max_exposure,
                ) == (
                    theirs.max_adu,
                    theirs.full_well_hundreds,
                    theirs.min_exposure_units,
                    theirs.max_exposure,
                )
            elif isinstance(ours, p.Features | p.SetPoint | p.Flag):
                assert ours == theirs
        silent = [facts["code"] for facts in b.events("ignored")]
        assert silent == [int(row[1][:2], 16) for row in exchanges if not row[2]]
