# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands of `qsi-firmware` say and refuse; and that nothing else is sent than may be."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qsi_tools.firmware import backups, cli
from qsi_tools.firmware.access import holders
from qsi_tools.firmware.commands import Options
from qsi_tools.firmware.dialects.openloader import OpenLoader
from qsi_tools.firmware.errors import Exit, JournalError
from qsi_tools.firmware.image import Target
from qsi_tools.firmware.journal import Journal, Step
from qsi_tools.firmware.screen import Progress, Screen
from qsi_tools.firmware.signals import held_off

from tests.tools.firmware_bench import LOADER_CODES, NEW, Bench
from tests.tools.firmware_files import foreign_hex, hex_file, zipped
from usbproto import packets as p

ROOT = Path(__file__).parents[2]
HARMLESS = {p.INIT.code, p.GET_DEVICE_STATE.code, p.GET_EEPROM.code}
HARMLESS |= {p.GET_DEVICE_DETAILS.code, p.GET_TEMPERATURE.code}
FORBIDDEN = {0x21, 0x22, 0x61, 0x64}


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, getattr(request, "param", "683wsg"))
    yield made
    made.close()


@pytest.fixture
def ready(bench: Bench) -> Bench:
    bench.back_up()
    bench.sent.clear()
    return bench


def every_command(bench: Bench, **options: Any) -> Iterator[tuple[str, int]]:
    for target in Target:
        file = bench.new_file(target)
        for command in ("check", "plan", "update", "verify"):
            more = {"confirm": bench.camera.serial, **options}
            yield command, bench.run(command, file, target=target, **more)
        yield "recover", bench.run("recover", file, target=target, confirm=bench.camera.serial)
    for command in ("list", "info", "backup"):
        yield command, bench.run(command)


# --- a camera that does not speak the dialect ---


@pytest.mark.parametrize("bench", ["583wsg", "683wsg", "690i"], indirect=True)
@pytest.mark.parametrize("fault", ["no-loader", "blank-eeprom"])
def test_a_real_camera_is_only_asked_what_is_documented(ready: Bench, fault: str) -> None:
    """Whatever is said on the command line."""
    ready.camera.faults.arm(fault)
    before = {place: bytes(r.data) for place, r in ready.camera.hardware.flash.regions.items()}
    options = {"allow_downgrade": True, "enter_bootloader": True}
    for command, status in every_command(ready, **options):
        expected = Exit.REFUSED if command in ("plan", "update", "verify") else Exit.DONE
        if command != "check":
            assert status == expected, (command, ready.err)
    assert ready.codes() <= HARMLESS
    for packet in ready.sent:
        assert len(packet) == 2 + packet[1]
        if packet[0] == p.GET_EEPROM.code:
            assert int.from_bytes(packet[2:]) < backups.SIZE
    assert not [facts for name, facts in ready.happened if name in ("ignored", "loader")]
    assert {place: bytes(r.data) for place, r in ready.camera.hardware.flash.regions.items()} == before
    assert ready.works()


def test_the_refusal_is_plain(ready: Bench) -> None:
    ready.camera.faults.arm("no-loader")
    assert ready.update(enter_bootloader=True) == Exit.REFUSED
    assert "speaks no language that this program knows" in ready.err
    assert "goes on working" in ready.err
    assert ready.entry() is None


def test_hardware_that_speaks_it_needs_the_option(ready: Bench) -> None:
    ready.camera.faults.arm("like-hardware")
    assert ready.update() == Exit.REFUSED
    assert "--enter-bootloader" in ready.err
    assert ready.codes() <= HARMLESS
    assert ready.update(enter_bootloader=True) == Exit.DONE
    assert "WARNING: this is not a simulated camera" in ready.err
    assert ready.region(Target.FIRMWARE).version == NEW[Target.FIRMWARE]


def test_the_option_must_be_typed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["update", "file.hex", "--enter-boot"])
    assert ended.value.code == Exit.USAGE
    assert "--enter-boot" in capsys.readouterr().err


def test_recognising_reads_the_eeprom_and_nothing_else() -> None:
    asked: list[tuple[int, int]] = []

    def eeprom(address: int, count: int) -> bytes:
        asked.append((address, count))
        return b"\xff" * count

    assert OpenLoader().recognise(eeprom) is None
    assert all(at >= 0 and at + count <= backups.SIZE for at, count in asked)
    almost = b"QSILDR1" + b"SR" + b"\xff" * 8
    assert OpenLoader().recognise(lambda at, count: (bytes(0x200) + almost)[at : at + count]) is not None
    for wrong in (b"QSILDR2" + almost[7:], almost[:7] + b"XR" + almost[9:], almost[:8] + b"X" + almost[9:]):
        assert OpenLoader().recognise(lambda at, n, wrong=wrong: (bytes(0x200) + wrong)[at : at + n]) is None


def test_commands_of_loaders_are_made_in_dialects_only() -> None:
    makers = set()
    for path in (ROOT / "tools" / "qsi_tools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Command":
                makers.add(path.relative_to(ROOT / "tools" / "qsi_tools").as_posix())
    assert makers == {"firmware/dialects/openloader.py"}


@pytest.mark.parametrize("bench", ["583wsg", "683wsg"], indirect=True)
def test_what_is_sent_in_a_whole_update(ready: Bench) -> None:
    assert ready.update() == Exit.DONE
    assert ready.codes() <= HARMLESS | LOADER_CODES
    assert ready.codes() & FORBIDDEN == {0x21}
    first = next(n for n, packet in enumerate(ready.sent) if packet[0] in LOADER_CODES)
    mark = [packet for packet in ready.sent[:first] if packet[:2] == b"\x60\x02" and packet[2] == 0x02]
    assert len(mark) == 17  # asked before the knock


# --- rules ---


def no_backup(bench: Bench) -> None:
    for path in (bench.folder / "state" / "backups").iterdir():
        path.unlink()


def damaged_backup(bench: Bench) -> None:
    for path in (bench.folder / "state" / "backups").glob("*.bin"):
        path.write_bytes(path.read_bytes()[:-1])


def exposing(bench: Bench) -> None:
    request = p.StartExposureEx(1000, 0, 0, 0, 100, 100, 1, 1)
    with bench.time.lock:
        bench.camera.fifo.host_wrote(p.encode_request(p.START_EXPOSURE_EX, request))
    bench.time.advance(3.0)
    bench.camera.fifo.clear()


def cooling(bench: Bench) -> None:
    request = p.SetTemperature(True, False, -10.0)
    with bench.time.lock:
        bench.camera.fifo.host_wrote(p.encode_request(p.SET_TEMPERATURE, request))
    bench.time.advance(60.0)
    bench.camera.fifo.clear()


def weak_supply(bench: Bench) -> None:
    bench.camera.faults.arm("voltage:10.5")


def nothing(bench: Bench) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "file", "options", "words"),
    [
        (no_backup, {}, {}, "qsi-firmware backup"),
        (damaged_backup, {}, {}, "qsi-firmware backup"),
        (exposing, {}, {}, "at work"),
        (cooling, {}, {}, "cooler is on"),
        (weak_supply, {}, {}, "below 11 V"),
        (nothing, {"base": "583"}, {}, "for the 583, this camera is a 683wsg"),
        (nothing, {"version": "06.03.03"}, {}, "--allow-downgrade"),
        (nothing, {"kind": "C"}, {}, "say --core"),
        (nothing, {}, {"target": Target.CORE}, "leave --core out"),
        (nothing, {}, {"confirm": "00683002"}, "not this camera's serial number"),
        (nothing, {}, {"confirm": None}, "--confirm 00683001"),
        (nothing, {}, {"serial": "00683009"}, "attached: 00683001"),
    ],
)
def test_an_update_is_refused(
    ready: Bench, prepare: Callable[[Bench], None], file: dict[str, str], options: dict[str, Any], words: str
) -> None:
    prepare(ready)
    options = {"confirm": ready.camera.serial, **options}
    status = ready.run("update", hex_file(**{"version": "06.09.01", **file}), **options)
    assert status == (Exit.NO_ACCESS if "serial" in options else Exit.REFUSED)
    assert words in ready.err
    assert ready.codes() <= HARMLESS
    assert ready.entry() is None


def test_a_downgrade_may_be_asked_for(ready: Bench) -> None:
    old = hex_file(version="06.01.07")
    assert ready.run("update", old, allow_downgrade=True, confirm="00683001") == Exit.DONE
    assert ready.facts().firmware == "06.01.07"


def test_a_camera_without_a_serial_number_is_not_written(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an empty line would confirm it."""
    (found,) = ready.access.cameras()
    monkeypatch.setattr(ready.access, "cameras", lambda: [replace(found, serial="")])
    assert ready.update(confirm="") == Exit.REFUSED
    assert "tells no serial number" in ready.err
    ready.region(Target.FIRMWARE).erase()
    ready.power_off()
    ready.mend()
    assert ready.run("recover", confirm="") == Exit.REFUSED
    assert "is not this camera's serial number" in ready.err
    assert ready.codes() <= HARMLESS


def test_a_loader_that_was_not_started_is_sent_nothing(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal takes the beginning, and then the disk is full."""

    def full(journal: Journal, step: Step) -> None:
        raise JournalError("The journal cannot be written (No space left on device)")

    monkeypatch.setattr(Journal, "step", full)
    assert ready.update() == Exit.FAILED
    assert "No space left" in ready.err and "nothing was erased" in ready.err
    assert ready.codes() <= HARMLESS


@pytest.mark.parametrize("bench", ["583wsg"], indirect=True)
def test_a_500_has_no_core(ready: Bench) -> None:
    assert ready.update(Target.CORE) == Exit.REFUSED
    assert "500 Series have no core" in ready.err


def test_all_reasons_are_told_at_once(bench: Bench) -> None:
    assert bench.run("plan", hex_file(base="583", version="01.00.00")) == Exit.REFUSED
    assert bench.out.count("\n  - ") == 3


def test_the_backup_must_be_of_the_camera_as_it_is(ready: Bench) -> None:
    assert ready.update() == Exit.DONE
    assert ready.run("update", hex_file(version="07.00.00"), confirm="00683001") == Exit.REFUSED
    assert "qsi-firmware backup" in ready.err


@pytest.mark.parametrize("command", ["plan", "update", "verify", "recover"])
def test_a_bad_file_is_refused_before_the_camera_is_touched(ready: Bench, command: str) -> None:
    good = hex_file(version="06.09.01", size=40)
    cuts = [good[:at] for at in range(len(good)) if good[at - 1 : at] == b"\n"]
    flips = [good[:at] + bytes((good[at] ^ 1 << at % 8,)) + good[at + 1 :] for at in range(len(good))]
    for bad in [b"", good[:-1], *cuts, *flips]:
        assert ready.run(command, bad, confirm="00683001") == Exit.REFUSED
        assert "file.hex: " in ready.err
    assert ready.sent == []
    assert ready.run("plan", good) == Exit.DONE


FOREIGN = {
    "hex": foreign_hex(),
    "zip": zipped({"readme.txt": b"hello", "QSI683.HEX": foreign_hex()}),
    "zip with ours": zipped({"a.hex": hex_file(version="06.09.01"), "QSI683.HEX": foreign_hex()}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_the_vendors_is_told_and_not_used(ready: Bench, name: str) -> None:
    file = FOREIGN[name]
    for command in ("check", "plan"):
        assert ready.run(command, file) == Exit.REFUSED
        assert "sound as Intel HEX" in ready.out
        assert "113 bytes, at 00000000 to 00000063, 00010020 to 0001002C" in ready.out
        assert hashlib.sha256(foreign_hex()).hexdigest() in ready.out
        assert "says neither for which model nor which version it is" in ready.out
    assert "Nothing was done." in ready.out
    for command in ("update", "verify", "recover"):
        assert ready.run(command, file, confirm="00683001", json=True) == Exit.REFUSED
        assert "says neither for which model" in ready.err
        assert json.loads(ready.out)["status"] == Exit.REFUSED
    assert ready.sent == []
    assert ready.entry() is None


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_the_vendors_as_json(ready: Bench, name: str) -> None:
    assert ready.run("check", FOREIGN[name], json=True) == Exit.REFUSED
    told = json.loads(ready.out)
    assert (told["camera"], told["fits"], told["status"]) == (None, None, Exit.REFUSED)
    assert "neither for which model" in told["error"]
    (row,) = (row for row in told["files"] if row["model"] is None)
    assert row == {
        "name": "file.hex" if name == "hex" else "QSI683.HEX",
        **dict.fromkeys(("target", "model", "version")),
        "bytes": 113,
        "ranges": [[0, 0x63], [0x10020, 0x1002C]],
        "sha256": hashlib.sha256(foreign_hex()).hexdigest(),
    }
    assert ready.run("plan", FOREIGN[name], json=True) == Exit.REFUSED
    made = json.loads(ready.out)
    assert made["files"] == told["files"]
    assert made["refusals"] == [told["error"]] and made["steps"] == []


def test_what_is_wrong_in_a_file_of_the_vendors_is_told_with_its_line(ready: Bench) -> None:
    lines = foreign_hex().split(b"\r\n")
    wrong = {
        b"\r\n".join([lines[0], lines[1][:-1] + b"_", *lines[2:]]): "line 2: the line has something else",
        b"\r\n".join([lines[1], lines[0], *lines[2:]]): "line 2: address 00000000 overlaps",
        foreign_hex().lower(): "line 1: small letters",
        foreign_hex() + b"more": "stops in the middle",
    }
    for file, words in wrong.items():
        for command in ("check", "plan"):
            assert ready.run(command, file) == Exit.REFUSED
            assert words in ready.err and not ready.out
    assert ready.sent == []


def test_a_file_is_checked_though_the_camera_cannot_be_asked(ready: Bench) -> None:
    ready.camera.power_off()
    assert ready.run("check", ready.new_file(Target.FIRMWARE)) == Exit.DONE
    assert "did not answer" in ready.out and "SHA-256" in ready.out
    assert ready.run("check", ready.new_file(Target.FIRMWARE), serial="00683001") == Exit.FAILED


def test_a_file_that_cannot_be_read(ready: Bench) -> None:
    (ready.folder / "file.hex").mkdir()
    screen = io.StringIO()
    options = Options(state=ready.folder / "state", file=ready.folder / "file.hex")
    assert cli.run("check", ready.access, options, Screen(screen, screen)) == Exit.REFUSED
    assert screen.getvalue().endswith("file.hex: it cannot be read: Is a directory\n")


def test_an_image_that_is_too_large(ready: Bench) -> None:
    huge = hex_file(version="06.09.01", size=0x10001)
    assert ready.run("update", huge, confirm="00683001") == Exit.FAILED
    assert "there is room for 65536" in ready.err and "nothing was erased" in ready.err
    ready.time.advance(10.0)
    assert ready.works()
    assert ready.recover() == Exit.DONE and "the one from before" in ready.out


# --- what is shown ---


def test_list_info_and_check(ready: Bench) -> None:
    assert ready.run("list", json=True) == Exit.DONE
    (row,) = json.loads(ready.out)
    wanted = ("683wsg", "06.03.04", "00683001", "20110715", "10.00.00")
    assert tuple(row[name] for name in ("model", "firmware", "serial", "manufactured", "hardware")) == wanted
    assert ready.run("list") == Exit.DONE
    assert all(word in ready.out for word in wanted)
    assert ready.run("info") == Exit.DONE
    assert "simulated camera" in ready.out and "backups/00683001-" in ready.out
    both = zipped({"a.hex": hex_file(base="583"), "b.hex": hex_file(version="06.09.01")})
    assert ready.run("check", both, json=True) == Exit.DONE
    assert json.loads(ready.out)["fits"] == "b.hex"
    assert ready.run("check", hex_file(base="583")) == Exit.REFUSED
    ready.attached = False
    assert ready.run("check", both) == Exit.DONE
    assert "Not compared" in ready.out and ready.out.count("SHA-256") == 2
    assert ready.run("list") == Exit.NO_ACCESS


def test_plan_does_nothing(ready: Bench) -> None:
    assert ready.run("plan", ready.new_file(Target.FIRMWARE), json=True) == Exit.DONE
    made = json.loads(ready.out)
    assert made["refusals"] == [] and len(made["steps"]) == 7
    assert ready.codes() <= HARMLESS
    assert ready.entry() is None


def test_backup(bench: Bench) -> None:
    assert bench.run("backup", json=True) == Exit.DONE
    manifest = json.loads(bench.out)
    path = Path(manifest["manifest"])
    image = (path.parent / manifest["image"]).read_bytes()
    assert image == bytes(bench.camera.hardware.eeprom[:0x239])
    assert bench.run("backup", json=True) == Exit.DONE
    assert json.loads(bench.out)["manifest"] != str(path), "never overwritten"
    assert bench.run("backup", to=bench.folder / "state" / "journal-is-no-folder") == Exit.DONE
    (bench.folder / "file").write_text("")
    assert bench.run("backup", to=bench.folder / "file") == Exit.REFUSED


def test_verify(ready: Bench) -> None:
    assert ready.update() == Exit.DONE
    ready.back_up()
    assert ready.run("verify", ready.new_file(Target.FIRMWARE)) == Exit.DONE
    other = bytearray(ready.region(Target.FIRMWARE).data)
    other[100] ^= 1
    ready.region(Target.FIRMWARE).data[:] = other
    assert ready.run("verify", ready.new_file(Target.FIRMWARE)) == Exit.DIFFERENT
    assert "at address 00000064" in ready.err
    assert ready.works()


def test_flash_that_does_not_keep_what_is_written(ready: Bench) -> None:
    ready.camera.faults.arm("flash-wear:3")
    assert ready.update() == Exit.INCOMPLETE
    assert "differs from the file at address 00000000" in ready.err
    assert ready.recover() == Exit.DONE
    assert ready.works()


def test_a_camera_in_its_loader_without_a_journal(ready: Bench) -> None:
    ready.region(Target.FIRMWARE).erase()
    ready.power_off()
    ready.mend()
    assert ready.run("info") == Exit.DONE and "IT RUNS NOW" in ready.out
    assert ready.run("list") == Exit.DONE and "qsi-firmware recover" in ready.out
    assert ready.run("backup") == Exit.REFUSED
    assert ready.recover() == Exit.REFUSED
    assert "recover FILE" in ready.err
    core = ready.new_file(Target.CORE)
    assert ready.run("recover", core, target=Target.CORE, confirm="00683001") == Exit.REFUSED
    assert ready.run("recover", ready.new_file(Target.FIRMWARE), confirm="00683001") == Exit.DONE
    assert ready.works()


def test_the_light_tells(ready: Bench) -> None:
    assert ready.update() == Exit.DONE
    shown = [facts["shows"] for name, facts in ready.happened if name == "led"]
    fast, slow = shown.index("yellow flashing fast"), shown.index("yellow flashing slowly")
    assert fast < slow and shown[-1] == "green"


# --- parts ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_and_elsewhere() -> None:
    now = [0.0]
    progress = Progress("writing", 20_000, lambda: now[0])
    now[0] = 2.0
    assert progress.text(5_000) == "writing:  25 %, 2.5 kB/s, 0:06 left"
    assert re.fullmatch(r"writing +\[#{7}\.{23}\]  25 %, 2\.5 kB/s, 0:06 left", progress.bar(5_000))
    lines, terminal = io.StringIO(), Terminal()
    for out in (lines, terminal):
        screen = Screen(out, out)
        for done in range(0, 20_001, 100):
            screen.progress(progress, done)
    assert len(lines.getvalue().splitlines()) == 5 and "\r" not in lines.getvalue()
    assert terminal.getvalue().count("\n") == 1 and "\r" in terminal.getvalue()


def test_a_screen_that_is_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("Input/output error")

    screen = Screen(Gone(), Gone())
    screen.say("x")
    screen.result("x")
    screen.progress(Progress("x", 1), 1)


def test_signals_are_held_off() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with held_off(told.append) as came:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            os.kill(os.getpid(), number)
    assert came == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP]
    assert len(told) == 4 and "SIGHUP is held off" in told[2]
    assert signal.getsignal(signal.SIGTERM) is before


def test_who_holds_a_device(tmp_path: Path) -> None:
    node = tmp_path / "001" / "004"
    node.parent.mkdir()
    node.write_text("")
    script = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(node)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert any(f"({child.pid})" in text for text in holders("001:004", bus=tmp_path))
        child.communicate()
    assert holders("001:004", bus=tmp_path) == []


def test_a_journal_that_cannot_be_written_or_read(ready: Bench) -> None:
    journal = ready.folder / "state" / "00683001.journal.json"
    journal.write_text("{")
    assert ready.update() == Exit.REFUSED
    assert "cannot be read" in ready.err
    journal.unlink()
    (ready.folder / "state" / "00683001.image.bin.new").mkdir()
    assert ready.update() == Exit.REFUSED
    assert "journal cannot be written" in ready.err
    assert ready.codes() <= HARMLESS
