# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many exposures with everything that can happen in between: none is lost, and nothing piles up.

`python -m tests.soak --exposures 2000` is the long run, `test_soak.py` a short one. The whole chain is real:
simulated camera, USB/IP, `indi-qsi serve`, clients. Chance is seeded.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from indi_qsi.links.sharedmemory import PIECES_KEPT
from tests.support.indi import eventually
from tests.support.rig import IndiClient, Sim, opened, stand_alone
from tests.support.workbench import Observer, Update

SPEED = 20.0  # of the simulated camera
READOUT = 0.4  # its seconds
SHORTEST, STEP, STEPS = 0.03, 0.001, 150  # s; each exposure is told from the ones around it by its duration
WARM_UP = 0.2  # of the run; until then libraries are loaded and pools filled
SAMPLES = 30  # of memory, descriptors and threads, spread over the run
ENDS = frozenset({"Ok", "Alert", "Idle"})
MOST_SLOW = 4  # clients that do not read, at a time
# Bytes. What the pools of the C library come to when threads come and go; a single kept frame is 130 kB.
GROWTH = 12 << 20
# The memory that is kept for the next frames: each piece has a descriptor, and one that its mapping holds.
KEPT_FRAMES = 2 * PIECES_KEPT


@dataclass(frozen=True)
class Sample:
    """What the driver's process has at rest: bytes, descriptors without those of frames, threads."""

    memory: int
    descriptors: int
    threads: int
    frames: int = 0  # descriptors of frame memory


@dataclass
class Report:
    requested: int = 0
    delivered: int = 0
    reported: int = 0  # ended without a picture, and said so
    happened: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        first, last = self.thirds()
        happened = ", ".join(f"{count} {name}" for name, count in sorted(self.happened.items()))
        return [
            f"{self.requested} exposures in {self.seconds:.0f} s: {self.delivered} delivered, "
            f"{self.reported} reported as ended without a picture",
            f"with {happened}",
            f"memory {first / 2**20:.1f} MB at first, {last / 2**20:.1f} MB at the end; "
            f"descriptors {self._range('descriptors')}, threads {self._range('threads')}",
        ]

    def thirds(self) -> tuple[float, float]:
        """Memory in the first and in the last third of the samples: medians, bytes."""
        memory = [sample.memory for sample in self.samples]
        third = max(1, len(memory) // 3)
        return statistics.median(memory[:third]), statistics.median(memory[-third:])

    def _range(self, name: str) -> str:
        values = [getattr(sample, name) for sample in self.samples]
        return f"{min(values)} to {max(values)}"

    def check(self) -> None:
        assert self.delivered + self.reported == self.requested
        first, last = self.thirds()
        assert last - first < GROWTH, f"memory grew from {first} to {last}"
        for name in ("descriptors", "threads"):
            values = [getattr(sample, name) for sample in self.samples]
            assert max(values) == min(values), f"{name}: {values}"
        assert max(sample.frames for sample in self.samples) <= KEPT_FRAMES


class Soak:
    """One run. `say` is told what happens in between."""

    def __init__(self, folder: Path, exposures: int, seed: int, say: Callable[[str], None] = lambda _: None):
        self._folder = folder
        self._exposures = exposures
        self._chance = random.Random(seed)
        self._say = say
        self._slow: list[IndiClient] = []
        self.report = Report()

    def run(self) -> Report:
        start = time.monotonic()
        with Sim(self._folder, speed=SPEED, readout=READOUT) as sim:
            with stand_alone(self._folder, sim.environ) as server, Observer(server.address) as client:
                self._sim, self._server, self._client = sim, server, client
                client.connect_camera()
                client.small_frame()
                try:
                    self._all()
                finally:
                    for slow in self._slow:
                        slow.close()
                assert "Traceback" not in server.log, server.log
        self.report.seconds = time.monotonic() - start
        return self.report

    def _all(self) -> None:
        warm = round(WARM_UP * self._exposures)
        every = max(1, (self._exposures - warm) // SAMPLES)
        for number in range(self._exposures):
            self._one(number)
            if number >= warm and (number - warm) % every == 0:
                self._sample()
        self._say(f"{self._exposures} exposures")

    def _one(self, number: int) -> None:
        client = self._client
        client.clear()
        client.blobs.clear()
        duration = round(SHORTEST + STEP * (number % STEPS), 4)
        what = self._chance.choices(list(_ACTIONS), [weight for weight, _ in _ACTIONS.values()])[0]
        self.report.requested += 1
        self.report.happened[what] += 1
        client.expose(duration)
        _ACTIONS[what][1](self, duration)
        ends = eventually(self._ends, f"exposure {number} ({what}) ends")
        if ends[0].state == "Ok":
            (data,) = client.blobs
            assert opened(data)[0]["EXPTIME"] == duration, f"exposure {number} ({what}) got another picture"
            self.report.delivered += 1
        else:
            assert not client.blobs, f"exposure {number} ({what}) ended as {ends[0].state} and was delivered"
            assert ends[0].state == "Idle" or ends[0].message, (
                f"exposure {number} ({what}) ended without a word"
            )
            self.report.reported += 1
        # An abort that comes too late says once more that nothing is exposed.
        allowed = 2 if what == "aborts" else 1
        assert len(self._ends()) <= allowed, f"exposure {number} ({what}) ended twice: {self._ends()}"
        if number % 100 == 99:
            self._say(f"{number + 1} exposures: {self.report.delivered} delivered")

    def _ends(self) -> list[Update]:
        return [update for update in self._client.updates("CCD_EXPOSURE") if update.state in ENDS]

    def _state(self, vector: str) -> str:
        updates = self._client.updates(vector)
        return updates[-1].state if updates else ""

    def _sample(self) -> None:
        """When nothing is under way: slow clients gone, camera connected."""
        for slow in self._slow:
            slow.close()
        self._slow.clear()
        process = Path(f"/proc/{self._server.process.pid}")

        def settled() -> Sample | None:
            before = _look(process)
            time.sleep(0.05)
            after = _look(process)
            alike = (before.descriptors, before.threads) == (after.descriptors, after.threads)
            known = self.report.samples[-1] if self.report.samples else after
            same = (after.descriptors, after.threads) == (known.descriptors, known.threads)
            return after if alike and same else None

        self.report.samples.append(eventually(settled, f"things settle; they are {_look(process)}"))

    # --- what can happen during an exposure ---

    def _nothing(self, duration: float) -> None:
        pass

    def _abort(self, duration: float) -> None:
        time.sleep(self._chance.uniform(0, duration + 0.1))
        self._client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
        self._client.wait_for("setSwitchVector", name="CCD_ABORT_EXPOSURE")

    def _guide(self, duration: float) -> None:
        direction = self._chance.choice(("N", "S"))
        pulse = {"TIMED_GUIDE_N": 0, "TIMED_GUIDE_S": 0} | {f"TIMED_GUIDE_{direction}": 50}
        self._client.new("Number", "TELESCOPE_TIMED_GUIDE_NS", **pulse)
        eventually(lambda: self._state("TELESCOPE_TIMED_GUIDE_NS") in ENDS, "the pulse ends")

    def _filter(self, duration: float) -> None:
        self._client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=self._chance.randint(1, 5))
        eventually(lambda: self._state("FILTER_SLOT") in ENDS, "the wheel stops")

    def _unplug(self, duration: float) -> None:
        time.sleep(self._chance.uniform(0, duration + 0.1))
        device = self._sim.camera.device
        device.unplug()
        # It is not missed before it is asked something.
        eventually(lambda: "Alert" in self._states_of_connection(), "the loss is noticed")
        device.replug()
        eventually(lambda: self._states_of_connection()[-1:] == ["Ok"], "the camera is back")

    def _reconnect(self, duration: float) -> None:
        time.sleep(self._chance.uniform(0, duration))
        self._client.new("Switch", "CONNECTION", DISCONNECT="On")
        eventually(lambda: "Idle" in self._states_of_connection(), "it is disconnected")
        eventually(self._ends, "the exposure has ended")
        self._client.new("Switch", "CONNECTION", CONNECT="On")
        eventually(lambda: self._states_of_connection()[-1:] == ["Ok"], "it is connected")
        self._client.wait_for("defNumberVector", name="CCD_FRAME")
        ends = self._ends()
        self._client.small_frame()
        assert self._ends()[: len(ends)] == ends

    def _slow_client(self, duration: float) -> None:
        """One that wants frames and reads nothing; the oldest of them goes."""
        slow = IndiClient(self._server.address, reading=False)
        slow.send("<getProperties version='1.7'/><enableBLOB device='QSI CCD'>Also</enableBLOB>")
        self._slow.append(slow)
        if len(self._slow) > MOST_SLOW:
            self._slow.pop(0).close()

    def _states_of_connection(self) -> list[str]:
        return [update.state for update in self._client.updates("CONNECTION")]


# What happens, how often (of 100), and what is done.
_ACTIONS: dict[str, tuple[int, Callable[[Soak, float], None]]] = {
    "undisturbed": (50, Soak._nothing),
    "aborts": (15, Soak._abort),
    "guide pulses": (12, Soak._guide),
    "filter moves": (10, Soak._filter),
    "unplugs": (4, Soak._unplug),
    "reconnects": (3, Soak._reconnect),
    "clients that do not read": (6, Soak._slow_client),
}


def _look(process: Path) -> Sample:
    status = (process / "status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    targets = [_target(link) for link in (process / "fd").iterdir()]
    frames = sum(target.startswith("/memfd:frame") for target in targets)
    return Sample(
        memory=int(facts["VmRSS"].split()[0]) * 1024,
        descriptors=len(targets) - frames,
        threads=int(facts["Threads"]),
        frames=frames,
    )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""
