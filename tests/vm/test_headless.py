# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of a headless Raspberry Pi, from the installation to the removal, with a real kernel, udev and systemd.

A virtual machine, its package, and a simulated camera on this machine, which the guest's kernel takes by USB/IP for
a device on a cable. The tests are one story: each begins where the one before it has ended. What is typed on the Pi
is read from docs/raspberry-pi.md.
"""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.packaging.test_files import MAX_EXPOSURE
from tests.recording.captures import exchanges
from tests.support.indi import free_port
from tests.support.rig import ROOT, Sim, opened
from tests.vm import page
from tests.vm.desk import Desk
from tests.vm.guest import USER, Guest, architecture, missing_programs
from tests.vm.image import image

# The longest steps are boots, of which an emulated arm64 on a busy machine takes minutes.
pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

UNIT = "indi-qsi"
STATE = "/var/lib/indi-qsi"
# All files but those that come and go by themselves.
FILES = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log"
    " -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg"
    f" -o -path /root -o -path /home/{USER} \\) -prune -o -not -name '*-' -print | sort"
)
# Another machine at a cable of its own, whose WireGuard lacks only the key of the Pi.
DESK_IN_A_NAMESPACE = """
ip netns add desk
ip link add cable type veth peer name cable netns desk
ip address add 192.168.77.1/24 dev cable
ip link set cable up
ip -n desk address add 192.168.77.2/24 dev cable
ip -n desk link set cable up
ip -n desk link add wg0 type wireguard
ip -n desk address add 10.77.0.2/24 dev wg0
ip -n desk link set wg0 up
(umask 077 && wg genkey >~/desk.key)
"""
# The bus of the camera as Linux shows it to any capture program.
CAPTURE = """
modprobe usbmon
bus=$(readlink -f /dev/qsi/00683001 | sed 's|.*/usb/0*\\([0-9]*\\)/.*|\\1|')
systemd-run --unit=capture tcpdump -Z root -U -i usbmon$bus -w /tmp/bus.pcap
"""
# A small frame under an indiserver of the user's own, from connecting to disconnecting.
SESSION = """
indiserver -v indi_qsi_ccd >indiserver.log 2>&1 & trap 'kill %1; wait' EXIT
for _ in $(seq 60); do indi_getprop -1 -t 2 'QSI CCD.DRIVER_INFO.DRIVER_EXEC' && break; sleep 1; done
until_true() { indi_eval -t 120 -w "$1" || { cat indiserver.log; exit 1; }; }
indi_setprop 'QSI CCD.CONNECTION.CONNECT=On'
until_true '"QSI CCD.CONNECTION._STATE"==1 && "QSI CCD.CONNECTION.CONNECT"==1'
indi_setprop 'QSI CCD.CCD_FRAME.X;Y;WIDTH;HEIGHT=0;0;160;100'
until_true '"QSI CCD.CCD_FRAME.WIDTH"==160 && "QSI CCD.CCD_FRAME._STATE"==1'
indi_setprop 'QSI CCD.CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.5'
until_true '"QSI CCD.CCD_EXPOSURE._STATE"==1'
indi_setprop 'QSI CCD.CONNECTION.DISCONNECT=On'
until_true '"QSI CCD.CONNECTION._STATE"==0 && "QSI CCD.CONNECTION.DISCONNECT"==1'
"""


@dataclass
class Observatory:
    pi: Guest
    desk: Desk
    sim: Sim

    def follow(self, name: str) -> str:
        """Does on the Pi what the page says, as its user; what it prints."""
        return self.pi.ask(page.commands(name), USER)

    def plug_in(self) -> None:
        port = int(self.sim.server.addresses[-1].rpartition(":")[2])
        self.pi.plug_in(port)

    def service(self, what: str) -> str:
        return self.pi.ask(f"systemctl show --property={what} --value {UNIT}")

    def wait_status(self, pattern: str) -> None:
        self.pi.wait(
            f"systemctl show --property=StatusText --value {UNIT} | grep -E '{pattern}'", f"status {pattern}"
        )

    def takes_a_right_picture(self) -> None:
        """All pixels as the sensor had them."""
        header, pixels = opened(self.desk.picture(0.5))
        assert pixels.shape == (2504, 3326)
        np.testing.assert_array_equal(pixels, self.sim.picture())
        assert pixels.std() > 5
        assert header["EXPTIME"] == 0.5


@pytest.fixture(scope="module")
def package() -> Path:
    subprocess.run([ROOT / "tools" / "build-deb"], stdin=subprocess.DEVNULL, check=True, timeout=900)
    return max((ROOT / "dist").glob("*.deb"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    if missing := missing_programs(architecture()):
        pytest.fail(f"not installed: {', '.join(missing)}; 'tools/test vm' installs them")
    folder = tmp_path_factory.mktemp("vm")
    port = free_port()
    pi = Guest(architecture(), image(architecture()), folder, forward=port, port=7624)
    desk = Desk(port)
    with Sim(folder, listen=["127.0.0.1:0"]) as sim:
        try:
            yield Observatory(pi, desk, sim)
        finally:
            desk.close()
            pi.close()


@pytest.fixture(scope="module")
def files_before(place: Observatory) -> set[str]:
    return set(place.pi.ask(FILES).splitlines())


def test_a_pi_boots_without_a_failed_unit(place: Observatory) -> None:
    place.pi.boot()


def test_the_package_installs_by_one_command_and_starts_nothing(
    place: Observatory, files_before: set[str], package: Path
) -> None:
    assert not [name for name in files_before if "qsi" in name]
    place.pi.put(package, f"/home/{USER}/{package.name}")
    place.follow("install")
    assert place.pi.run(f"systemctl is-enabled {UNIT}", ok=(1,)).output == "disabled\n"
    assert place.service("ActiveState") == "inactive"


def test_plugging_in_gives_rights_and_starts_nothing(place: Observatory) -> None:
    place.plug_in()
    place.pi.wait("test -e /dev/qsi/00683001 && udevadm settle", "the rule makes its link")
    seen = place.follow("plug")
    assert "ID 0403:eb49" in seen and "00683001 -> ../bus/usb/" in seen
    node = place.pi.ask("readlink -f /dev/qsi/00683001")
    assert place.pi.ask(f"stat -c '%a %U %G %F' {node}") == "660 root plugdev character special file"
    facts = place.pi.ask(f"udevadm info --query=all --name={node}").splitlines()
    assert {"E: ID_MM_DEVICE_IGNORE=1", "E: MTP_NO_PROBE=1", "E: QSI_CAMERA=1"} <= set(facts)
    tags = next(line for line in facts if line.startswith("E: TAGS="))
    assert ":uaccess:" in tags
    device = "/sys" + next(line[3:] for line in facts if line.startswith("P: "))
    assert place.pi.ask(f"cat {device}/power/control") == "on"
    assert place.pi.run(f"readlink {device}/*:*/driver", ok=(1,)).output == "", "a kernel driver has taken it"
    assert place.service("ActiveState") == "inactive"


def test_a_user_of_the_group_uses_it_without_the_service(place: Observatory) -> None:
    """Under an indiserver of his own, as INDI Web Manager or Ekos start it."""
    place.pi.run(
        "indiserver -v indi_qsi_ccd >indiserver.log 2>&1 & trap 'kill %1; wait' EXIT\n"
        "for _ in $(seq 60); do indi_getprop -1 -t 2 'QSI CCD.DRIVER_INFO.DRIVER_EXEC' && break; sleep 1; done\n"
        "indi_setprop 'QSI CCD.CONNECTION.CONNECT=On'\n"
        """indi_eval -t 120 -w '"QSI CCD.CONNECTION._STATE"==1 && "QSI CCD.CONNECTION.CONNECT"==1' """
        "|| { cat indiserver.log; exit 1; }",
        USER,
    )


def test_a_capture_of_the_bus_has_what_the_driver_recorded(place: Observatory) -> None:
    """What qsi-replay makes of the kernel's own capture is compared with what the driver noted of the same session."""
    place.pi.run(CAPTURE)
    place.pi.wait("journalctl -u capture | grep -q 'listening on'", "tcpdump listens")
    place.pi.run(f"export INDI_QSI_RECORD=~/session.jsonl\n{SESSION}", USER)
    place.pi.run("systemctl stop capture && chmod a+r /tmp/bus.pcap")
    summary = place.pi.run("qsi-replay import /tmp/bus.pcap -o ~/imported.jsonl", USER).output
    assert "600 Series (0403:eb49), serial 00600001" in summary, summary
    session, imported = (
        [json.loads(line) for line in place.pi.ask(f"cat ~/{name}.jsonl", USER).splitlines()]
        for name in ("session", "imported")
    )
    assert exchanges(imported) == exchanges(session), summary
    assert [line["length"] for line in imported if "sha256" in line] == [2 * 160 * 100]


def test_the_service_is_enabled_by_one_command_and_takes_the_camera(place: Observatory) -> None:
    assert "Active: active (running)" in place.follow("enable")
    place.wait_status("^QSI 683wsg 00683001: .*idle$")
    assert place.pi.ask(f"systemctl is-enabled {UNIT}") == "enabled"
    assert "Started indi-qsi.service" in place.follow("journal")
    exposure = f"systemd-analyze security --no-pager --threshold={MAX_EXPOSURE * 10:.0f} {UNIT}"
    assert place.pi.run(exposure).status == 0


def test_no_memory_of_the_running_driver_is_writable_and_executable(place: Observatory) -> None:
    pid = place.service("MainPID")
    assert place.service("MemoryDenyWriteExecute") == "yes"
    assert place.pi.ask(f"grep -c libusb /proc/{pid}/maps") != "0"
    assert place.pi.run(f"grep -E '^[^ ]+ .?wx' /proc/{pid}/maps", ok=(1,)).output == ""
    assert place.pi.ask(f"grep Seccomp: /proc/{pid}/status").split() == ["Seccomp:", "2"]


def test_a_first_frame_on_the_pi(place: Observatory) -> None:
    said = place.follow("first frame")
    assert "QSI CCD.CONNECTION.CONNECT=On" in said
    assert int(said.splitlines()[-1].split()[4]) > 2 * 2504 * 3326


def test_nobody_else_is_let_in_before_it_is_said_so(place: Observatory) -> None:
    assert place.pi.ask("ss -Hltn 'sport = 7624' | awk '{print $4}'") == "127.0.0.1:7624"
    assert not place.desk.answered()


def test_a_desk_comes_in_by_wireguard_and_nobody_else(place: Observatory) -> None:
    key = place.follow("wireguard key").splitlines()[-1]
    place.pi.run(DESK_IN_A_NAMESPACE)
    commands = page.commands("wireguard up").replace("DESK", place.pi.ask("wg pubkey <~/desk.key"))
    place.pi.run(commands, USER)
    place.pi.run(
        f"ip netns exec desk wg set wg0 private-key ~/desk.key peer {key}"
        " endpoint 192.168.77.1:51820 allowed-ips 10.77.0.1/32"
    )
    place.follow("wireguard open")
    in_namespace = "ip netns exec desk {}"
    asks = "indi_getprop -1 -t 10 -h 10.77.0.1 'QSI CCD.DRIVER_INFO.DRIVER_EXEC'"
    place.pi.wait(in_namespace.format(asks), "the desk gets an answer")
    knocks = "timeout 5 bash -c '</dev/tcp/192.168.77.1/7624'"
    assert place.pi.run(in_namespace.format(knocks), ok=(124,)).output == ""  # it is not even refused
    assert not place.desk.answered()
    place.pi.run("systemctl disable --now wg-quick@wg0; rm -r /etc/wireguard/*; ip netns delete desk")


def test_the_networks_example_lets_the_desk_in(place: Observatory) -> None:
    place.follow("open")
    place.desk.connected()
    place.pi.run("echo 10.0.2.15 telescope.local >>/etc/hosts")  # for once the Pi plays the desk as well
    assert "QSI CCD.CONNECTION.CONNECT=On" in place.follow("desk")
    place.takes_a_right_picture()


def test_a_camera_that_leaves_in_mid_exposure_comes_back(place: Observatory) -> None:
    place.desk.begin(600)
    place.pi.pull_out()
    place.desk.wait("CCD_EXPOSURE._STATE==3")
    place.wait_status("^waiting for the camera 00683001 to come back$")
    pid = place.service("MainPID")
    place.plug_in()
    place.desk.connected()
    assert place.service("MainPID") == pid
    place.takes_a_right_picture()


def test_a_killed_driver_is_started_again(place: Observatory) -> None:
    pid = place.service("MainPID")
    place.desk.begin(600)
    place.pi.run(f"kill -9 {pid}")
    place.pi.wait(
        f'test "$(systemctl show --property=NRestarts --value {UNIT})" = 1', "systemd starts it again"
    )
    place.wait_status("^QSI 683wsg 00683001: .*idle$")
    assert place.service("MainPID") not in (pid, "0")
    place.desk.connected()
    place.takes_a_right_picture()


def test_a_power_cut_takes_no_saved_picture_and_needs_no_hand(place: Observatory) -> None:
    place.desk.set("UPLOAD_MODE.UPLOAD_LOCAL=On")
    place.desk.wait("UPLOAD_MODE.UPLOAD_LOCAL==1")
    place.desk.set("CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.1")
    place.desk.wait("CCD_FILE_PATH._STATE==1")
    path = place.desk.get("CCD_FILE_PATH.FILE_PATH")
    saved = place.sim.picture()
    place.desk.begin(600)
    place.pi.cut_power()

    place.pi.boot()
    place.wait_status("^Waiting for a camera$")
    pixels = place.pi.ask(
        f"cd {STATE} && python3 -c 'import sys, zlib; from astropy.io import fits; "
        f'print(zlib.crc32(fits.getdata(sys.argv[1]).astype(">u2").tobytes()))\' {path}'
    )
    assert int(pixels) == zlib.crc32(saved.astype(">u2").tobytes())


def test_the_service_of_the_start_takes_the_camera_when_it_arrives(place: Observatory) -> None:
    assert place.service("NRestarts") == "0"
    place.plug_in()
    place.wait_status("^QSI 683wsg 00683001: .*idle$")
    place.desk.connected()
    place.takes_a_right_picture()


def test_removal_leaves_nothing_but_the_pictures(place: Observatory, files_before: set[str]) -> None:
    place.follow("remove")
    assert place.pi.run(f"systemctl is-active {UNIT}", ok=(3, 4)).output == "inactive\n"
    assert place.pi.ask(f"ls {STATE}/*.fits")
    place.follow("purge")
    new = set(place.pi.ask(FILES).splitlines()) - files_before
    left = {name for name in new if "qsi" in name or not name.startswith("/var/lib/systemd/")}
    (picture,) = (name for name in left if name.endswith(".fits"))
    assert left == {STATE, picture}
    assert place.pi.ask(f"stat -c %U {picture}") == "root"
    assert place.pi.run("getent passwd indi-qsi", ok=(2,)).output == ""
