# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs with filters."""

from __future__ import annotations

import pytest

from tests.ekos.ekos import Ekos
from tests.ekos.observatory import Camera
from tests.ekos.sequence import Job
from tests.ekos.test_ekos_capture import compare

pytestmark = pytest.mark.ekos


def filter_name(ekos: Ekos, slot: int) -> str:
    name = ekos.text("FILTER_NAME", f"FILTER_SLOT_NAME_{slot}")
    assert name not in ("", "Invalid"), f"KStars knows no filter {slot}"
    return name


def test_a_job_changes_the_filter(ekos: Ekos, camera: Camera) -> None:
    for slot in (3, 1):
        name = filter_name(ekos, slot)
        start = len(camera.happened)
        job = Job(filter=name)
        files = ekos.run(job)
        (header,) = compare(files, camera, job)
        assert header["FILTER"] == name
        assert ekos.number("FILTER_SLOT", "FILTER_SLOT_VALUE") == slot
        assert ekos.state("FILTER_SLOT") == "Ok"
        happened = [e for e in camera.since(start) if e["e"] in ("filter", "filter_end", "expose")]
        assert [e["e"] for e in happened] == ["filter", "filter_end", "expose"]
        assert happened[0]["position"] == slot - 1


def test_the_same_filter_again_does_not_move_the_wheel(ekos: Ekos, camera: Camera) -> None:
    job = Job(filter=filter_name(ekos, 2))
    ekos.run(job)
    start = len(camera.happened)
    compare(ekos.run(job), camera, job)
    assert not any(e["e"] == "filter" for e in camera.since(start))
