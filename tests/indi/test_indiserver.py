# SPDX-License-Identifier: LGPL-2.1-or-later
"""The layer under a real indiserver, driven by INDI's own tools and by raw clients."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.wire.messages import Kind
from indi_qsi.wire.writer import new_vector
from tests.indi.layer_driver import pattern
from tests.indi.layer_server import DRIVER, IndiServer, indiserver
from tests.support.indi import PATIENCE, ROOT, Client, elements, eventually, values

pytestmark = pytest.mark.skipif(shutil.which("indiserver") is None, reason="indiserver is not installed")

SIZE = 8_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndiServer]:
    with indiserver(tmp_path_factory.mktemp("indi")) as running:
        running.set("Layer.CONNECTION.CONNECT=On")
        running.wait('"Layer.CONNECTION._STATE"==1 && "Layer.CONNECTION.CONNECT"==1')
        yield running


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_definitions_reach_a_tool_with_all_characters(server: IndiServer) -> None:
    assert server.get("Layer.VERSION.V") == "1.0"
    assert server.get("Layer.VERSION._STATE") == "Idle"
    assert server.get("Layer.LIGHT.L") == "Busy"


def test_number_is_set_and_range_is_kept(server: IndiServer) -> None:
    server.set("Layer.LEVEL.A=-2.25")
    server.wait('"Layer.LEVEL._STATE"==1 && "Layer.LEVEL.A"==-2.25')
    server.set("Layer.LEVEL.A=11")
    server.wait('"Layer.LEVEL._STATE"==3 && "Layer.LEVEL.A"==-2.25')
    server.set("Layer.LEVEL.A;B=1;-0:30")
    server.wait('"Layer.LEVEL._STATE"==3 && "Layer.LEVEL.A"==-2.25')
    server.set("Layer.LEVEL.A;B=1;1:30")
    server.wait('"Layer.LEVEL._STATE"==1 && "Layer.LEVEL.B"==1.5')


def test_text_survives_the_round_trip(server: IndiServer) -> None:
    server.set("Layer.NOTE.TEXT=Hα filter")
    eventually(lambda: server.get("Layer.NOTE.TEXT") == "Hα filter", "the new text")
    # The tool of 1.9.9 escapes twice, so the special characters come from a client of our own.
    text = "Hα <&> 'quoted' \"twice\""
    with Client(f"127.0.0.1:{server.port}") as client:
        client.send("<getProperties version='1.7' device='Layer'/>")
        client.wait_for("defTextVector", name="NOTE")
        client.send(new_vector(Kind.TEXT, "Layer", "NOTE", [("TEXT", text)]))
        assert values(client.wait_for("setTextVector", name="NOTE"))["TEXT"] == text
    assert server.get("Layer.NOTE.TEXT") == text


def test_failing_handler_gives_alert_and_the_driver_lives(server: IndiServer) -> None:
    server.set("Layer.ACTION.FAIL=On")
    server.wait('"Layer.ACTION._STATE"==3')
    assert "as asked for" in server.log.read_text()


def test_prints_do_not_reach_the_server_as_xml(server: IndiServer) -> None:
    server.set("Layer.ACTION.PRINT=On")
    server.wait('"Layer.ACTION._STATE"==1')
    eventually(lambda: "<stray/>" in server.log.read_text(), "the print is in the log")
    server.set("Layer.LEVEL.A=3")
    server.wait('"Layer.LEVEL.A"==3')


def test_snooping_brings_definition_and_updates(server: IndiServer) -> None:
    server.set("Layer.LEVEL.A=7")
    eventually(lambda: "'A': '7.0'" in server.get("Layer.SNOOPED.LAST"), "the snooped value")


def test_frame_reaches_indi_getprop(server: IndiServer, tmp_path: Path) -> None:
    assert "attached: True" in server.log.read_text()
    command = ["indi_getprop", "-p", str(server.port), "-t", "30", "Layer.FRAME.DATA"]
    with (
        Client(f"127.0.0.1:{server.port}") as witness,
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as getter,
    ):
        witness.send("<getProperties version='1.7'/><enableBLOB device='Layer'>Also</enableBLOB>")
        witness.wait_for("defBLOBVector")
        written = tmp_path / "Layer.FRAME.DATA.fits"

        def ask_again() -> bool:
            # The tool does not tell when it listens, so it is asked for frames until it has one.
            frames = len(witness.blobs)
            witness.send(
                f"<newNumberVector device='Layer' name='TAKE'><oneNumber name='SIZE'>{SIZE}"
                "</oneNumber></newNumberVector>"
            )
            eventually(lambda: len(witness.blobs) > frames, "a frame")
            return getter.poll() is not None

        eventually(ask_again, "indi_getprop has a frame")
        assert getter.returncode == 0
        data = written.read_bytes()
        assert any(data == pattern(SIZE, seed) for seed in range(256))


def ends(client: Client) -> list[str]:
    """The names of the frames and of the final states, in the order of arrival."""
    return [m.attrib["name"] for m in client.messages if m.tag == "setBLOBVector" or is_end(m)]


def is_end(message: ET.Element) -> bool:
    return message.tag == "setNumberVector" and message.get("name") == "TAKE" and message.get("state") == "Ok"


@pytest.mark.parametrize("mode", ["attached", "inline"])
def test_frames_reach_tcp_and_unix_clients_byte_for_byte(tmp_path: Path, mode: str) -> None:
    with indiserver(tmp_path, INDI_QSI_BLOB=mode) as server:
        assert f"attached: {mode == 'attached'}" in server.log.read_text()
        with Client(f"127.0.0.1:{server.port}") as tcp, Client("@" + server.path) as unix:
            for client in (tcp, unix):
                client.send("<getProperties version='1.7'/><enableBLOB device='Layer'>Also</enableBLOB>")
                client.wait_for("defLightVector")
            tcp.send(
                "<newSwitchVector device='Layer' name='CONNECTION'><oneSwitch name='CONNECT'>On"
                "</oneSwitch></newSwitchVector>"
            )
            for client in (tcp, unix):
                client.wait_for("defBLOBVector", name="FRAME")
            for number in range(1, 4):
                tcp.send(
                    f"<newNumberVector device='Layer' name='TAKE'><oneNumber name='SIZE'>{SIZE + number}"
                    "</oneNumber></newNumberVector>"
                )
                for client in (tcp, unix):
                    eventually(lambda c=client, n=number: len(c.blobs) == n, f"frame {number}")
                    assert client.blobs[-1] == pattern(SIZE + number, number)
            # Ok comes after the frame, on both.
            for client in (tcp, unix):
                eventually(lambda c=client: ends(c) == ["FRAME", "TAKE"] * 3, "three frames and their Ok")
            # Nothing stays behind in the driver: no memory, no descriptor.
            fds = Path(f"/proc/{server.driver_pid}/fd")
            eventually(lambda: not any("memfd" in str(fd.readlink()) for fd in fds.iterdir()), "all freed")
        assert "no answer" not in server.log.read_text()


def test_update_storm_is_complete_and_in_order(server: IndiServer) -> None:
    with Client(f"127.0.0.1:{server.port}") as client:
        client.send("<getProperties version='1.7' device='Layer'/>")
        client.wait_for("defBLOBVector")
        client.clear()
        wanted = [f"{n / 100}" for n in range(500)]
        head, tail = "<newNumberVector device='Layer' name='LEVEL'>", "</newNumberVector>"
        client.send("".join(f"{head}<oneNumber name='A'>{n}</oneNumber>{tail}" for n in wanted))

        def got() -> list[str | None]:
            updates = [m for m in client.messages if m.get("name") == "LEVEL" and m.tag.startswith("set")]
            return [values(m)["A"] for m in updates]

        eventually(lambda: len(got()) >= 500, "all updates")
        assert got() == wanted


def test_the_driver_ends_when_the_server_is_killed(tmp_path: Path) -> None:
    with indiserver(tmp_path) as server:
        pid = server.driver_pid
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(PATIENCE)
        eventually(lambda: not alive(pid) or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z", "end")


def run_driver_on_pipes(data: bytes) -> tuple[bytes, bytes]:
    result = subprocess.run(
        [sys.executable, str(DRIVER)],
        input=data,
        capture_output=True,
        timeout=PATIENCE * 2,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0
    return result.stdout, result.stderr


def test_on_pipes_a_broken_message_costs_no_good_one() -> None:
    process = subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        process.stdin.write(
            b"<getProperties version='1.7'/>garbage <newTextVector device='Layer' <<"
            b"<newSwitchVector device='Layer' name='CONNECTION'>"
            b"<oneSwitch name='CONNECT'>On</oneSwitch></newSwitchVector>"
            b"<newNumberVector device='Layer' name='TAKE'><oneNumber name='SIZE'>300000</oneNumber>"
            b"</newNumberVector>"
        )
        process.stdin.flush()
        output = b""
        while b"</setBLOBVector>" not in output:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, "the driver ended"
            output += piece
        process.stdin.close()
        output += process.stdout.read()
    assert process.returncode == 0
    tags = [element.tag for element in elements(output)]
    assert tags.count("setBLOBVector") == 1
    assert "defBLOBVector" in tags


def test_end_of_input_ends_the_driver_once() -> None:
    output, log = run_driver_on_pipes(b"")
    assert log.count(b"closed once") == 1
    assert {element.tag for element in elements(output)} <= {"getProperties"}


def test_a_closed_output_ends_the_driver_once() -> None:
    process = subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with process:
        os.read(process.stdout.fileno(), 10)  # the request to snoop: the driver is up
        process.stdout.close()
        process.stdin.write(b"<getProperties version='1.7'/>")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read().count(b"closed once") == 1
