# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes random sequences of steps from a seed, and makes a failing one shorter."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LENGTH = 6, 15  # steps that are not waits
FAULTY = 0.2  # of the sequences have a fault
SLOW_DISK = 0.1  # of the sequences have one
CLIENT_SHARE = 0.7  # of the requests are client 0's
TRIES = 60  # runs that shrinking may take

EVENTS = ("expose", "exposure_start", "exposure_end", "idle", "transfer", "filter", "relay", "waiting")
BAD_EXPOSURES = ("nan", "1e9", "-1")


class Draw:
    """Draws one sequence. Durations and pulse lengths do not repeat, so that each is known by its value."""

    def __init__(self, seed: int, model: str) -> None:
        self._random = random.Random(f"{model} {seed}")
        self._model = model
        self._durations = self._random.sample(range(3000, 12000), 40)
        self._pulses = self._random.sample(range(5, 80), 40)
        self._longs = 0

    def steps(self) -> list[str]:
        r = self._random
        kinds, weights = zip(*self._weights().items(), strict=True)
        clients = r.choice((1, 1, 2, 3))
        steps = [f"disk {r.uniform(0.05, 2.0):.2f}"] if r.random() < SLOW_DISK else []
        fault_at = r.randrange(1, LENGTH[0]) if r.random() < FAULTY else -1
        for number in range(r.randint(*LENGTH)):
            if number == fault_at:
                steps += self._fault()
            client = 0 if r.random() < CLIENT_SHARE else r.randrange(clients)
            step = r.choices(kinds, weights)[0]()
            steps.append(step if step == "trigger" else f"c{client} {step}")
            steps += self._gap()
        return steps

    def _gap(self) -> list[str]:
        r, kind = self._random, self._random.random()
        if kind < 0.5:
            return []
        if kind < 0.65:
            return [f"wait {r.uniform(0.0, 0.03):.4f}"]
        if kind < 0.78:
            return [f"wait {r.uniform(0.0, 0.5):.3f}"]
        if kind < 0.86:
            return [f"wait {r.uniform(0.3, 2.5):.2f}"]
        after = r.choice(("", f" {r.uniform(0.0, 0.2):.3f}"))
        return [f"until {r.choice(EVENTS)}{after}"]

    def _fault(self) -> list[str]:
        r = self._random
        kind = r.choice(("unplug", "power_off", "fail", "fail"))
        if kind == "fail":
            return ["fail"]
        end = {"unplug": "replug", "power_off": "power_on"}[kind]
        away = r.choice(([], [f"wait {r.uniform(0.0, 3.0):.2f}"], [self._some_request()]))
        return [kind, *away, end] if r.random() < 0.7 else [kind]

    def _some_request(self) -> str:
        kinds, weights = zip(*self._weights().items(), strict=True)
        step: str = self._random.choices(kinds, weights)[0]()
        return step if step == "trigger" else f"c0 {step}"

    def _weights(self) -> dict[Callable[[], str], float]:
        return {
            self._expose: 12.0,
            self._bad_exposure: 1.0,
            lambda: "CCD_ABORT_EXPOSURE.ABORT=On": 2.5,
            self._setting: 8.0,
            self._binning: 2.0,
            self._frame: 2.0,
            self._type: 1.5,
            self._shutter: 1.0,
            self._trigger_mode: 0.8,
            lambda: "trigger": 0.8,
            self._role: 1.0,
            self._temperature: 3.0,
            self._cooler: 1.0,
            self._slot: 2.5,
            self._name: 0.7,
            self._pulse: 3.5,
            self._timing: 0.7,
            self._mask: 0.7,
            self._upload: 1.0,
            self._connection: 0.5,
            self._malformed: 0.5,
        }

    def _one(self, vector: str, *elements: str) -> str:
        return f"{vector}.{self._random.choice(elements)}=On"

    def _expose(self) -> str:
        # Mostly short ones: most of what may go wrong is at their ends.
        seconds = self._durations.pop() / 10_000 * (3 if self._random.random() < 0.2 else 1)
        return f"CCD_EXPOSURE.CCD_EXPOSURE_VALUE={seconds:.4f}"

    def _bad_exposure(self) -> str:
        return f"CCD_EXPOSURE.CCD_EXPOSURE_VALUE={self._random.choice(BAD_EXPOSURES)}"

    def _setting(self) -> str:
        choices = [
            ("READOUT_QUALITY", "QUALITY_HIGH", "QUALITY_LOW"),
            ("CCD_FLUSH", "FLUSH_NONE", "FLUSH_NORMAL", "FLUSH_AGGRESSIVE"),
            ("Fan", "Off", "Quiet", "Full"),
            ("AUTO_ZERO", "INDI_ENABLED", "INDI_DISABLED"),
        ]
        if self._model == "683wsg":
            choices.append(("Gain", "High", "Low", "Auto"))
        else:
            choices.append(("SHUTTER_PRIORITY", "PRIORITY_MECHANICAL", "PRIORITY_ELECTRONIC"))
        return self._one(*self._random.choice(choices))

    def _binning(self) -> str:
        n = self._random.choice((1, 1, 2, 2, 3, 4, 99))
        return f"CCD_BINNING.HOR_BIN={n} VER_BIN={n}"

    def _frame(self) -> str:
        r = self._random
        if r.random() < 0.1:
            return "CCD_FRAME.X=40 Y=0 WIDTH=96 HEIGHT=64"
        return f"CCD_FRAME.X={r.randrange(40)} Y={r.randrange(30)} WIDTH={r.randint(8, 56)} HEIGHT={r.randint(8, 34)}"

    def _type(self) -> str:
        return self._one("CCD_FRAME_TYPE", "FRAME_LIGHT", "FRAME_BIAS", "FRAME_DARK", "FRAME_FLAT")

    def _shutter(self) -> str:
        return self._one("CCD_SHUTTER", "SHUTTER_ON", "SHUTTER_OFF", "SHUTTER_AUTO")

    def _trigger_mode(self) -> str:
        return self._one("EXTERNAL_TRIGGER", "TRIGGER_OFF", "TRIGGER_LONG_FALLING", "TRIGGER_LONG_RISING")

    def _role(self) -> str:
        return self._one("CCD_ROLE", "ROLE_MAIN", "ROLE_GUIDER")

    def _temperature(self) -> str:
        value = self._random.choice(("20", "15", "5", "-5", "-15", "999", "nan"))
        return f"CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE={value}"

    def _cooler(self) -> str:
        return self._one("CCD_COOLER", "COOLER_ON", "COOLER_OFF")

    def _slot(self) -> str:
        return f"FILTER_SLOT.FILTER_SLOT_VALUE={self._random.choice((1, 2, 3, 4, 5, 99))}"

    def _name(self) -> str:
        return f"FILTER_NAME.FILTER_SLOT_NAME_2={self._random.choice(('Ha', 'OIII', 'SII', ''))}"

    def _pulse(self) -> str:
        r = self._random
        vector, one, other = r.choice((("NS", "N", "S"), ("WE", "W", "E")))
        if r.random() < 0.5:
            one, other = other, one
        length = r.choice((0, 99999)) if r.random() < 0.2 else self._pulses.pop() * 10
        return f"TELESCOPE_TIMED_GUIDE_{vector}.TIMED_GUIDE_{one}={length} TIMED_GUIDE_{other}=0"

    def _timing(self) -> str:
        return self._one("LINK_TIMING", "TIMING_FAST", "TIMING_VENDOR")

    def _mask(self) -> str:
        return f"PIXEL_MASK.PIXELS='{self._random.choice(('3,4 5,6', '7,8', '', 'oops'))}' FILE="

    def _upload(self) -> str:
        if self._random.random() < 0.5:
            return f"UPLOAD_SETTINGS.UPLOAD_DIR=@/{self._random.choice('ab')} UPLOAD_PREFIX=P_XXX"
        return self._one("UPLOAD_MODE", "UPLOAD_CLIENT", "UPLOAD_LOCAL", "UPLOAD_BOTH")

    def _connection(self) -> str:
        return self._one("CONNECTION", "CONNECT", "DISCONNECT")

    def _malformed(self) -> str:
        return self._random.choice(
            (
                "READOUT_QUALITY.QUALITY_FASTEST=On",
                "READOUT_QUALITY.QUALITY_HIGH=Off QUALITY_LOW=Off",
                "CCD_FRAME_TYPE.FRAME_LIGHT=On FRAME_DARK=On",
            )
        )


def make(seed: int, model: str) -> list[str]:
    """The sequence of a seed."""
    return Draw(seed, model).steps()


def shrink(steps: Sequence[str], fails: Callable[[Sequence[str]], bool], tries: int = TRIES) -> list[str]:
    """Drops steps while the rest still fails: halves first, single steps at last."""
    left, size = list(steps), max(1, len(steps) // 2)
    while size and tries:
        at = 0
        while at < len(left) and tries:
            shorter = left[:at] + left[at + size :]
            tries -= 1
            if shorter and fails(shorter):
                left = shorter
            else:
                at += size
        size //= 2
    return left
