# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tools' INDI client: messages however they are cut, what comes of them, and the small pictures of watch."""

from __future__ import annotations

import base64
import itertools
import os
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsi_tools.indi import model, reader
from qsi_tools.indi.client import Client, ServerGone, parse_address
from qsi_tools.indi.model import Blob, Model, Note
from qsi_tools.indi.reader import BadStream, Reader
from qsi_tools.watch.history import SPAN, History, draw
from qsi_tools.watch.state import Pulses, snapshot

from indi_qsi.wire.messages import Kind, State
from tests.support.indi import PATIENCE, free_port

PICTURE = bytes(range(256)) * 3
STREAM = f"""
<defNumberVector device="Cam" name="CCD_EXPOSURE" label="Expose" state="Idle" perm="rw">
<defNumber name="CCD_EXPOSURE_VALUE" label="s" format="%5.2f" min="0.1" max="3600" step="1"> 1:30 </defNumber>
</defNumberVector>
<defSwitchVector device="Cam" name="CONNECTION" state="Ok" perm="rw" rule="OneOfMany">
<defSwitch name="CONNECT">On</defSwitch><defSwitch name="DISCONNECT">Off</defSwitch></defSwitchVector>
<defBLOBVector device="Cam" name="CCD1" state="Idle" perm="ro"><defBLOB name="CCD1"/></defBLOBVector>
<setNumberVector device="Cam" name="CCD_EXPOSURE" state="Alert" message="caf&#233; &lt;closed&gt;">
<oneNumber name="CCD_EXPOSURE_VALUE">0</oneNumber><oneNumber name="OTHER">5</oneNumber></setNumberVector>
<setNumberVector device="Other" name="X" state="Ok"/>
<setBLOBVector device="Cam" name="CCD1" state="Ok"><oneBLOB name="CCD1" size="{len(PICTURE)}" format=".fits">
{base64.encodebytes(PICTURE).decode()}</oneBLOB></setBLOBVector>
<message device="Cam" message="hello"/><delProperty device="Cam" name="CONNECTION"/>
""".encode()


def fed(pieces: list[bytes]) -> tuple[Model, list[Note], list[Blob]]:
    model, notes, blobs = Model(lambda size: b"a" * size), [], []
    model.on_note.append(notes.append)
    model.on_blob.append(blobs.append)
    stream = Reader()
    for piece in pieces:
        for message in stream.feed(piece):
            model.take(message)
    return model, notes, blobs


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_the_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    model, notes, blobs = fed([STREAM[start:end] for start, end in itertools.pairwise(edges)])
    exposure = model.vector("Cam", "CCD_EXPOSURE")
    assert exposure is not None
    assert (exposure.kind, exposure.label, exposure.state) == (Kind.NUMBER, "Expose", State.ALERT)
    assert exposure.limits == {"CCD_EXPOSURE_VALUE": (0.1, 3600)} and exposure.updates == 1
    assert exposure.values == {"CCD_EXPOSURE_VALUE": "0"} and exposure.message == "café <closed>"
    assert notes == [Note("Cam", "café <closed>"), Note("Cam", "hello")]
    assert blobs == [Blob("Cam", "CCD1", "CCD1", ".fits", PICTURE)]
    assert set(model.devices) == {"Cam"} and set(model.devices["Cam"]) == {"CCD_EXPOSURE", "CCD1"}


def blob(content: str, attributes: str) -> bytes:
    return (
        '<defBLOBVector device="C" name="B" state="Idle" perm="ro"><defBLOB name="B"/></defBLOBVector>'
        f'<setBLOBVector device="C" name="B" state="Ok"><oneBLOB name="B" {attributes}>{content}</oneBLOB></setBLOBVector>'
    ).encode()


def test_pictures_attached_and_deflated() -> None:
    assert fed([blob("", 'size="4" format=".fits" attached="true"')])[2][0].data == b"aaaa"
    packed = base64.b64encode(zlib.compress(PICTURE)).decode()
    (unpacked,) = fed([blob(packed, f'size="{len(PICTURE)}" format=".fits.z"')])[2]
    assert (unpacked.format, unpacked.data) == (".fits", PICTURE)


def test_what_is_packed_may_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_MESSAGE", 1000)
    for content, whole in ((bytes(1000), True), (bytes(1001), False)):
        packed = base64.b64encode(zlib.compress(content)).decode()
        _, notes, blobs = fed([blob(packed, 'size="1000" format=".fits.z"')])
        assert [one.data for one in blobs] == ([content] if whole else [])
        assert whole or "too large" in notes[0].text
    cut = base64.b64encode(zlib.compress(PICTURE)[:-5]).decode()
    assert fed([blob(cut, 'size="9" format=".fits.z"')])[2] == []


def shared(content: bytes) -> int:
    """A descriptor as a server attaches it."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Client, socket.socket]]:
    """A client, and the other end of its unix socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with Client(str(tmp_path / "socket")) as client:
            server = listener.accept()[0]
            with server:
                yield client, server


def attach(server: socket.socket, data: bytes, content: bytes) -> None:
    descriptor = shared(content)
    socket.send_fds(server, [data], [descriptor])
    os.close(descriptor)


def test_the_memory_of_a_picture_that_nobody_knows_goes_with_it(pair: tuple[Client, socket.socket]) -> None:
    client, server = pair
    took: list[Blob] = []
    client.model.on_blob.append(took.append)
    picture = blob("", 'size="4" format=".fits" attached="true"')
    define, sent = picture.split(b"<setBLOBVector")
    attach(server, b"<setBLOBVector" + sent, b"lost")  # of a device that has just left
    attach(server, define + b"<setBLOBVector" + sent, b"kept")
    client.wait(lambda: took, PATIENCE, "the picture")
    assert [one.data for one in took] == [b"kept"]
    assert client.local


@pytest.mark.parametrize("size", [5, 10**15])
def test_a_memory_that_is_too_short_is_told(pair: tuple[Client, socket.socket], size: int) -> None:
    client, server = pair
    notes: list[Note] = []
    client.model.on_note.append(notes.append)
    attach(server, blob("", f'size="{size}" format=".fits" attached="true"'), b"four")
    client.wait(lambda: notes, PATIENCE, "the note")
    assert "too short" in notes[0].text


@pytest.mark.parametrize("server", ["pi..local", "127.0.0.1:{port}", "/nowhere/socket"])
def test_where_no_server_can_be(server: str) -> None:
    server = server.format(port=free_port())
    with pytest.raises(ServerGone, match=f"^No INDI server answers at {server}") as gone:
        Client(server)
    assert gone.value.reason and gone.value.reason in str(gone.value)


@pytest.mark.parametrize("content", ["not base64", "abc"])
def test_a_broken_picture_is_told_and_forgotten(content: str) -> None:
    _, notes, blobs = fed([blob(content, 'size="9" format=".fits.z"')])
    assert blobs == [] and "is broken" in notes[0].text


def test_how_much_of_a_picture_has_come() -> None:
    stream = Reader()
    data = blob(base64.b64encode(PICTURE).decode(), f'size="{len(PICTURE)}" format=".fits"')
    start = data.index(b"format") + 15
    stream.feed(data[: start + 400])
    done, size = stream.picture or (0, 0)
    assert size == len(PICTURE) and 250 < done <= 300
    stream.feed(data[start + 400 :])
    assert stream.picture is None


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n<html></body>", b"</indi>", b"<a><b></a>", b"\xff\xfe"]
)
def test_what_is_no_indi(data: bytes) -> None:
    with pytest.raises(BadStream):
        Reader().feed(data)


def test_an_endless_message_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_MESSAGE", 1000)
    stream = Reader()
    stream.feed(STREAM[:900])
    with pytest.raises(BadStream, match="more than 1000 bytes"):
        for _ in range(20):
            stream.feed(b"<message message='" + b"x" * 90)
            stream.feed(b"y" * 900)


def test_addresses() -> None:
    assert parse_address("pi") == ("pi", 7624)
    assert parse_address("pi:1") == ("pi", 1)
    assert parse_address("[::1]:8") == ("::1", 8) and parse_address("[::1]") == ("::1", 7624)
    assert parse_address("/tmp/socket") == "/tmp/socket"
    for text in ("", ":7624", "pi:x", "pi:70000", "pi:0"):
        with pytest.raises(ValueError, match="no address"):
            parse_address(text)


def test_a_camera_of_another_driver_has_a_phase() -> None:
    model, _, _ = fed([STREAM.replace(b'state="Alert"', b'state="Busy"').split(b"<delProperty")[0]])
    camera = snapshot(model, "Cam", Pulses())
    assert (camera.connected, camera.phase, camera.temperature, camera.filter) == (
        True,
        "reading out",
        None,
        "",
    )


def test_curves() -> None:
    lines = draw([(second, second / 10) for second in range(100)], 20, 4)
    assert [len(line) > 19 for line in lines] == [True] * 4
    assert lines[0][:10].strip() == "" and lines[0][19] == "█" and lines[0].endswith(" 10")
    assert "█" * 14 in lines[3] and lines[3].endswith(" 0")
    flat = draw([(0.0, -10.0), (50.0, -10.02)], 10, 4)
    assert flat[0].startswith(" " * 10) and flat[3].startswith("█" * 10)
    assert draw([], 5, 2) == [" " * 5] * 2


def test_histories_forget() -> None:
    history = History()
    for second in range(0, int(SPAN) + 600, 10):
        history.add(second, 1.0)
        history.add(second + 0.5, 2.0)
    assert history.minutes == pytest.approx(SPAN / 60)
    assert {value for _, value in history.samples} == {1.0}
