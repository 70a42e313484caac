# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bad cable: one transfer in 50 fails, and one in 5,000 while pixels are on their way, for 200 exposures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.faults.clock import Clock
from tests.faults.rig import Rig

EXPOSURES = 200
# Pixels, such that 200 frames have some 20,000 transfers of 16 KiB.
FRAME = (1000, 800)
# As asked for; and with every tenth image hit, and bytes lost with each transfer.
ERRORS = ("transfer-errors:50,5000", "transfer-errors:50,1000,EIO,lose=1,taken=1")


@pytest.fixture(params=ERRORS)
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Clock():
        rig = Rig(tmp_path, "683wsg", (request.param,), rate=None)
        yield rig
        rig.close()


def test_only_frames_that_met_an_error_are_lost(rig: Rig) -> None:
    """Every frame is right or ends in Alert, and only a failed transfer is a reason for that."""
    client = rig.client
    assert rig.connect() == "Ok", client.last_words()
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    client.forget()
    ended = {"Ok": 0, "Alert": 0}
    in_pixels = 0
    for _ in range(EXPOSURES):
        frames, happened = len(client.frames), len(rig.happened)
        state = rig.expose(0.1)
        ended[state] += 1
        errors = [facts for name, facts in rig.happened[happened:] if name == "transfer_error"]
        if state == "Ok":  # also where a transfer failed that brought nothing, or only the head of an answer
            assert len(client.frames) == frames + 1
            np.testing.assert_array_equal(client.frames.pop()[1], rig.picture())
        else:
            assert errors, f"lost without an error: {client.last_words()}"
            in_pixels += any(facts["pixels"] for facts in errors)
            assert len(client.frames) == frames
    assert sum(ended.values()) == EXPOSURES and ended["Ok"] > EXPOSURES / 2, ended
    assert in_pixels, "no image was hit: the test shows nothing of them"
    assert not [update for update in client.updates if update.get("name") == "CONNECTION"]
    assert not [text for text in client.said() if "left the USB" in text]
