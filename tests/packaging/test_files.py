# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed beside the code says the same as the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from indi_qsi.device.device import EXECUTABLE, FACTORY_NAME
from indi_qsi.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = sorted(PROJECT["project"]["scripts"])
UNIT = ROOT / "systemd" / "indi-qsi.service"
# systemd's own scale: 0 nothing to find fault with, 10 everything allowed.
MAX_EXPOSURE = 2.5


def test_the_driver_file_is_what_launchers_read() -> None:
    root = ElementTree.parse(ROOT / "data" / "indi_qsi.xml").getroot()
    assert root.tag == "driversList"
    (group,) = root
    assert group.attrib == {"group": "CCDs"}
    (device,) = group
    assert device.attrib == {"label": FACTORY_NAME, "manufacturer": "QSI", "mdpd": "true"}
    driver, version = device
    # The Web Manager takes the text as it is: no white space around it.
    assert (driver.attrib, driver.text) == ({"name": FACTORY_NAME}, EXECUTABLE)
    # KStars reads it as a number.
    assert version.text == ".".join(VERSION.split(".")[:2])
    assert float(version.text) >= 0


def test_the_driver_is_found_by_the_name_of_its_process() -> None:
    assert EXECUTABLE in SCRIPTS
    assert EXECUTABLE.startswith("indi_") and len(EXECUTABLE) <= 15


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_program_has_a_manual_page_with_all_its_options(script: str) -> None:
    page = (ROOT / "man" / f"{script}.1").read_text().replace("\\-", "-")
    texts = [subprocess.run([PROGRAMS / script, "--help"], capture_output=True, text=True, timeout=60)]
    for command in re.findall(r"^    ([a-z-]+) ", texts[0].stdout, re.MULTILINE):
        assert command in page
        arguments = [PROGRAMS / script, command, "--help"]
        texts.append(subprocess.run(arguments, capture_output=True, text=True, timeout=60))
    options = {option for text in texts for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.stdout)}
    assert [option for option in sorted(options) if option not in page] == []


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_manual_pages_are_well_formed(script: str) -> None:
    command = ["mandoc", "-T", "lint", "-W", "error", str(ROOT / "man" / f"{script}.1")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_the_package_has_the_version_of_the_code() -> None:
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"indi-qsi-py ({VERSION})")


def test_the_service_runs_only_options_that_there_are() -> None:
    command = re.search(r"^ExecStart=/usr/bin/indi-qsi (.*)$", UNIT.read_text(), re.MULTILINE)
    assert command is not None
    usage = subprocess.run(
        [PROGRAMS / "indi-qsi", "serve", "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    assert "127.0.0.1:7624" in command[1]
    for option in re.findall(r"--[a-z-]+", command[1]):
        assert option in usage


def test_the_unit_and_its_files_agree() -> None:
    unit = UNIT.read_text()
    users = (ROOT / "systemd" / "indi-qsi.sysusers").read_text()
    assert "User=indi-qsi\n" in unit and re.search(r"^u indi-qsi .* /var/lib/indi-qsi$", users, re.MULTILINE)
    assert "SupplementaryGroups=plugdev\n" in unit and "g plugdev" in users
    for link in ("indi-qsi-py.indi-qsi.service", "indi-qsi-py.sysusers"):
        assert (ROOT / "debian" / link).resolve().parent == ROOT / "systemd"


def can_judge_offline() -> bool:
    """`systemd-analyze security --offline` is there since systemd 250."""
    if shutil.which("systemd-analyze") is None:
        return False
    text = subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True, timeout=60).stdout
    return "--offline" in text


@pytest.mark.skipif(not can_judge_offline(), reason="systemd-analyze is not installed, or older than 250")
def test_the_unit_allows_little() -> None:
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(UNIT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr
