# SPDX-License-Identifier: LGPL-2.1-or-later
"""PIXEL_MASK: what it takes, what it does to a picture, and how long it holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from indi_qsi.device.mask import MAX_FILE, MAX_PIXELS, check_points, parse_points, read_points
from tests.support.indi import values
from tests.support.workbench import Observer, Update, connected
from usbproto.errors import BadArgument
from usbproto.frames import Array

SENSOR = Array(3326, 2504, 9, 9, False, False)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("", []),
        ("1,2", [(1, 2)]),
        (" 1,2  30,4\t0,0 ", [(1, 2), (30, 4), (0, 0)]),
        ("1, 2 3 ,4", [(1, 2), (3, 4)]),
    ],
)
def test_points(text: str, points: list[tuple[int, int]]) -> None:
    assert parse_points(text) == points


@pytest.mark.parametrize(
    "text", ["1", "1,2,3", "a,b", "-1,2", "1.5,2", "1;2", "1 2", "٣,٤", "1234567,1", ","]
)
def test_bad_points(text: str) -> None:
    with pytest.raises(BadArgument, match="12,34"):
        parse_points(text)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bad pixels"
    path.write_text("# hot\n1 2\n\n 30\t4 # warm\r\n5,6\n")
    assert read_points(str(path)) == [(1, 2), (30, 4), (5, 6)]


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1 2\nroot:secret\n")
    with pytest.raises(BadArgument, match="line 2") as caught:
        read_points(str(path))
    assert "secret" not in str(caught.value)  # it goes to clients, who may not be allowed to read it
    path.write_bytes(b"1 2\n" * (MAX_FILE // 4 + 1))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for bad, why in (
        (path, "larger"),
        (tmp_path, "directory"),
        (tmp_path / "none", "No such"),
        (pipe, "not a plain file"),
    ):
        with pytest.raises(BadArgument, match=why):
            read_points(str(bad))
    with pytest.raises(BadArgument):
        read_points("nul\0")


def test_the_sensor_is_the_limit() -> None:
    assert list(check_points([(0, 0), (3325, 2503), (0, 0)], SENSOR)) == [(0, 0), (3325, 2503)]
    for point in ((3326, 0), (0, 2504)):
        with pytest.raises(BadArgument, match=r"x 0\.\.3325, y 0\.\.2503"):
            list(check_points([point], SENSOR))
    with pytest.raises(BadArgument, match=str(MAX_PIXELS)):
        list(check_points([(n % 3000, n // 3000) for n in range(MAX_PIXELS + 1)], SENSOR))


def ask(client: Observer, **elements: str) -> Update:
    before = len(client.updates("PIXEL_MASK"))
    client.new("Text", "PIXEL_MASK", **elements)
    return client.until("PIXEL_MASK", "Ok", "Alert", after=before)[-1]


def test_masked_pictures(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.write_text("101 81\n")
    with connected(tmp_path) as (sim, _, client):
        answer = ask(client, PIXELS="100,80 3000,2000", FILE=str(more))
        assert answer.state == "Ok" and "3 pixels" in answer.message
        client.new("Number", "CCD_FRAME", X=90, Y=70, WIDTH=60, HEIGHT=40)
        client.expose(0.1)
        pixels = client.picture()[1]
        truth = sim.picture()
        frame = sim.camera.firmware.imager.frame
        assert frame is not None
        changed = {(int(x), int(y)) for y, x in np.argwhere(pixels != truth)}
        assert changed == {(10, 10), (11, 11)}
        adjusted = frame.zero_level + int(truth[0, 0]) - int(frame.pixels[0, 0])
        assert pixels[10, 10] == pixels[11, 11] == adjusted

        client.new("Number", "CCD_BINNING", HOR_BIN=2, VER_BIN=2)
        client.expose(0.1)
        pixels = client.picture(2)[1]
        assert {(int(x), int(y)) for y, x in np.argwhere(pixels != sim.picture())} == {(5, 5)}

        for bad, why in (("9999,1", "x 0..3325"), ("1;2", "12,34"), ("1,1 " * 1010, "4000")):
            answer = ask(client, PIXELS=bad)
            assert answer.state == "Alert" and why in answer.message
            assert answer.values["PIXELS"] == "100,80 3000,2000"
        answer = ask(client, FILE=str(tmp_path / "none"))
        assert answer.state == "Alert" and "No such file" in answer.message

    more.unlink()
    with connected(tmp_path) as (sim, _, client):  # kept, but the file is gone
        assert "No such file" in client.until("PIXEL_MASK", "Alert")[-1].message
        assert values(client.definition("PIXEL_MASK"))["PIXELS"] == "100,80 3000,2000"
        assert ask(client, FILE="").state == "Ok"
        client.new("Number", "CCD_FRAME", X=90, Y=70, WIDTH=60, HEIGHT=40)
        client.expose(0.1)
        assert np.count_nonzero(client.picture()[1] != sim.picture()) == 1
        assert "0 pixels" in ask(client, PIXELS="").message
        client.expose(0.1)
        np.testing.assert_array_equal(client.picture(2)[1], sim.picture())
