# SPDX-License-Identifier: LGPL-2.1-or-later
"""The udev rules: generated from the table of cameras, and set up by `indi-qsi setup-udev`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from indi_qsi import install, udevrules
from usbproto import models

RULES = Path(__file__).resolve().parents[2] / "udev" / "70-qsi.rules"


def verifies() -> bool:
    """Whether this machine's udevadm can verify rules: since systemd 254."""
    if shutil.which("udevadm") is None:
        return False
    result = subprocess.run(["udevadm", "verify", "--help"], capture_output=True, timeout=30)
    return result.returncode == 0


def test_the_file_is_what_the_generator_writes() -> None:
    assert RULES.read_text() == udevrules.rules(), "run: python -m indi_qsi.udevrules > udev/70-qsi.rules"


def test_the_rules_match_exactly_the_cameras_of_the_table() -> None:
    found = re.findall(r'ATTR\{idVendor\}=="(\w{4})", ATTR\{idProduct\}=="(\w{4})"', udevrules.rules())
    assert found == [(f"{models.VENDOR_ID:04x}", f"{series.product_id:04x}") for series in models.SERIES]
    assert found == [("0403", "eb48"), ("0403", "eb49")]


def test_the_rules_say_what_is_needed_and_start_nothing() -> None:
    rules = udevrules.rules()
    for part in (
        *('MODE="0660"', 'GROUP="plugdev"', 'TAG+="uaccess"'),
        *('ENV{ID_MM_DEVICE_IGNORE}="1"', 'ENV{MTP_NO_PROBE}="1"', 'ATTR{power/control}="on"'),
        'SYMLINK+="qsi/$attr{serial}"',
    ):
        assert rules.count(part) == 1, part
    for word in ("RUN", "SYSTEMD", "IMPORT", "PROGRAM"):
        assert word not in rules


def test_the_rules_come_before_those_that_act_on_their_tag() -> None:
    assert int(RULES.name.split("-")[0]) < 73
    assert int(udevrules.FILE_NAME.split("-")[0]) < 73


@pytest.mark.skipif(not verifies(), reason="udevadm verify is there since systemd 254")
def test_udev_finds_no_fault_with_the_rules() -> None:
    result = subprocess.run(["udevadm", "verify", str(RULES)], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr


class Machine:
    """Where `setup-udev` is tried: a folder for the rules, and the commands that were run."""

    def __init__(self, path: Path) -> None:
        self.folder = path / "rules.d"
        self.packaged = path / "packaged.rules"
        self.commands: list[tuple[str, ...]] = []
        self.told: list[str] = []
        self.failing = ""

    def run(self, command: tuple[str, ...]) -> None:
        self.commands.append(command)
        if command[0] == self.failing:
            raise FileNotFoundError(2, "No such file or directory", command[0])

    def set_up(self) -> int:
        return install.setup_udev(
            folder=self.folder, packaged=self.packaged, run=self.run, tell=self.told.append
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("grp.getgrnam", lambda name: None)
    monkeypatch.delenv("SUDO_USER", raising=False)
    return Machine(tmp_path)


def test_set_up_writes_the_rules_and_has_them_used(machine: Machine) -> None:
    assert machine.set_up() == 0
    path = machine.folder / udevrules.FILE_NAME
    assert path.read_text() == udevrules.rules()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [command[:2] for command in machine.commands] == [("udevadm", "control"), ("udevadm", "trigger")]
    assert f"Wrote {path}." in machine.told
    machine.told.clear()
    assert machine.set_up() == 0
    assert f"{path} is up to date." in machine.told


def test_set_up_makes_a_group_that_is_missing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("grp.getgrnam", missing)
    assert machine.set_up() == 0
    assert machine.commands[0] == ("groupadd", "--system", "plugdev")
    machine.failing = "groupadd"
    with pytest.raises(install.InstallError, match="plugdev could not be made"):
        machine.set_up()


def test_without_a_running_udev_the_rules_are_there_all_the_same(machine: Machine) -> None:
    machine.failing = "udevadm"
    assert machine.set_up() == 0
    assert (machine.folder / udevrules.FILE_NAME).exists()
    assert any("The rules hold from the next start" in text for text in machine.told)


def test_where_the_package_is_there_is_nothing_to_do(machine: Machine) -> None:
    machine.packaged.touch()
    assert machine.set_up() == 0
    assert not machine.commands and not machine.folder.exists()


def test_without_root_it_says_what_to_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/home/me/.local/bin/indi-qsi"])
    with pytest.raises(install.InstallError, match=r"sudo /home/me/.local/bin/indi-qsi setup-udev"):
        machine.set_up()
    assert not machine.commands and not machine.folder.exists()


def test_a_folder_that_cannot_be_written_is_told(machine: Machine) -> None:
    machine.folder.write_text("a file in its place")
    with pytest.raises(install.InstallError, match="could not be written"):
        machine.set_up()
