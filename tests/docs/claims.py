# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who runs which command of the documents. One line a claim.

    Given(PAGE, COMMAND)            what the page takes for running: started before its first block and kept to the
                                    end, otherwise as Serve; `environ` is set for all blocks
    Run(PAGE, FIRST LINE)           the block is run here, to its end; `ends` are the statuses that are right,
                                    `leaves` the files that it must leave, `replace` what a reader would fill in
    Serve(PAGE, FIRST LINE)         the block runs until its terminal is closed: it is started, and must come to
                                    serve; the blocks behind it run meanwhile, until the next Serve of the page.
                                    `camera`: a client can connect one; `says`: words of its output, for what is
                                    no INDI server
    Test(PAGE, FILE)                another test runs all blocks of the page
    Not(PAGE, COMMAND, REASON)      not run here; each command of such a block has its own line, or it is claimed
                                    by nobody

A block that nobody claims fails the suite, and so does a claim without a block.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    page: str
    first: str
    ends: tuple[int, ...] = (0,)
    leaves: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Serve:
    page: str
    first: str
    camera: bool = True
    says: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    page: str
    command: str
    camera: bool = True
    says: str = ""
    environ: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    __test__ = False  # pytest would take the name for one of its own

    page: str
    file: str


@dataclass(frozen=True, slots=True)
class Not:
    page: str
    command: str
    reason: str


README, SIMULATOR, DOCTOR = "README.md", "docs/simulator.md", "docs/doctor.md"
FIRST_CONTACT = "docs/first-contact.md"
PERFORMANCE, RECORDING, TOOLS = "docs/performance.md", "docs/recording.md", "docs/tools.md"

# A machine for tests is no observatory: no service, no clock, no rules. The doctor says so, and is right.
ANY_HEALTH = (0, 1, 2, 3)
IN_A_FRESH_SYSTEM = "needs Debian's package: tests/packaging/install-deb, by tools/check-fresh --deb"
ITSELF = "would run this test again; every run of the suite is one of it"

CLAIMS = (
    # --- README: from nothing to a picture ---
    Serve(README, "tools/run"),
    Not(README, "tools/test", ITSELF),
    Serve(README, "tools/run --model 683wsg"),
    Run(README, "D='QSI CCD'", leaves=("QSI CCD.CCD1.CCD1.fits",)),
    Run(README, "qsi-snap 2 -o 'M31_{filter}_{index}'    # takes a picture, saves it, and says how sharp the stars are",
        leaves=("M31_Red_001.fits",)),
    Serve(README, "indiserver .venv/bin/indi_qsi_ccd", camera=False),
    Not(README, "apt install ./indi-qsi-py_*.deb", IN_A_FRESH_SYSTEM),
    Not(README, "systemctl enable --now indi-qsi", "needs systemd; tests/packaging/test_service.py has the unit"),
    Serve(README, ".venv/bin/qsi-sim --model 683wsg --listen 127.0.0.1:3240 --events events.jsonl &"),
    # --- the simulated camera ---
    Serve(SIMULATOR, "qsi-sim --model 683wsg", says="listening on"),
    Serve(SIMULATOR, "qsi-sim --model 683wsg-8 --model 540cwsg --listen unix:/tmp/usb --control unix:/tmp/control \\",
          says="control on"),
    # --- qsi-doctor ---
    Given(DOCTOR, "tools/run --model 683wsg"),
    Run(DOCTOR, "qsi-doctor", ends=ANY_HEALTH),
    Run(DOCTOR, "qsi-doctor --quiet", ends=ANY_HEALTH),
    Run(DOCTOR, "qsi-doctor --no-camera --no-server", ends=ANY_HEALTH),
    Run(DOCTOR, "qsi-doctor --json >qsi-doctor.json || true", leaves=("qsi-doctor.json",)),
    Run(DOCTOR, "qsi-sim --listen 127.0.0.1:3240 --fault voltage:10.5 &"),
    # --- recordings; here nobody connects a camera, which the replay says ---
    Serve(RECORDING, "INDI_QSI_RECORD=night.jsonl indiserver indi_qsi_ccd", camera=False),
    Run(RECORDING, "qsi-replay play night.jsonl", ends=(2,)),
    Not(RECORDING, "sudo modprobe usbmon", "needs a kernel of its own: tests/vm/test_headless.py"),
    Not(RECORDING, "sudo tcpdump -i usbmon1 -w night.pcap", "needs usbmon: tests/vm/test_headless.py"),
    Run(RECORDING, "qsi-replay import night.pcap -o imported.jsonl", ends=(2,)),
    Run(RECORDING, "qsi-replay show night.jsonl"),
    # --- the first evening with a real camera, rehearsed with a strange one ---
    Not(FIRST_CONTACT, "echo 64 | sudo tee /sys/module/usbcore/parameters/usbfs_memory_mb", "changes the machine"),
    Serve(FIRST_CONTACT,
          "qsi-sim --listen 127.0.0.1:3240 --strange slow-init:6 --strange longer-answers:2 --strange late-busy &"),
    Run(FIRST_CONTACT, "qsi-snap 0.5", leaves=("QSI_CCD_light_001.fits",)),
    Run(FIRST_CONTACT, "ls ~/.indi/qsi-flight"),
    Run(FIRST_CONTACT, "qsi-doctor --json >qsi-doctor.json || true", leaves=("qsi-doctor.json",)),
    Serve(FIRST_CONTACT, "INDI_QSI_RECORD=first-night.jsonl indiserver indi_qsi_ccd", camera=False),
    # --- qsi-snap and qsi-watch ---
    Given(TOOLS, "tools/run --model 683wsg"),
    Not(TOOLS, "sudo apt install python3-photutils python3-scipy python3-matplotlib", "changes the machine"),
    Run(TOOLS, "qsi-snap 0.5                                   # one picture, QSI_CCD_light_001.fits",
        leaves=("QSI_CCD_light_001.fits", "QSI_CCD_light_001.png")),
    Run(TOOLS, "qsi-watch --once", leaves=("night.csv", "night.png")),
    Run(TOOLS, "qsi-snap 0.5 --json > result.json", leaves=("result.json",)),
    # --- performance: minutes of measurements that want the machine for themselves ---
    Not(PERFORMANCE, "tools/bench", "takes minutes; tests/test_speed.py holds the figures that must not get lost"),
    Not(PERFORMANCE, "tools/bench frames idle", "the same program"),
    Not(PERFORMANCE, "tools/bench --json figures.json --plot frame-time.png", "the same program"),
    # --- pages that other tests run from their first block to their last ---
    Test("docs/howto-scripts.md", "tests/clients/test_documents.py"),
    Test("docs/howto-phd2.md", "tests/clients/test_documents.py"),
    Test("docs/firmware.md", "tests/tools/test_firmware_usb.py"),
    Test("docs/properties.md", "tests/clients/test_documents.py"),
    # --- its blocks say themselves where they are run: in a virtual machine, by another test, by hand ---
    Test("docs/raspberry-pi.md", "tests/vm/test_page.py"),
)  # fmt: skip
