# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the temperatures were: a header tells the one at mid-exposure, which is over when it is written."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbproto.thermometer import Temperatures

INTERVAL = 1.0  # s between samples; the temperature of a piece of silicon on a cold finger is not faster
# The middle of the longest exposure of any model (4 h) is two hours ago when its picture is there.
SAMPLES = 7200
# A sample that is further away from a moment says nothing about it: the camera was silent, or away. There is
# none for 20 s during the longest transfer.
FRESH = 60.0  # s


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` s on the monotonic clock; degC; `power` per cent, None where it is unknown.

    `set_point` is None while the cooler is off.
    """

    at: float
    ccd: float
    power: float | None
    set_point: float | None


class TemperatureHistory:
    """Filled by the thread that measures, asked by any other."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._lock = threading.Lock()

    def add(self, at: float, measured: Temperatures, set_point: float | None) -> None:
        """Keeps what was measured at `at`; of samples that come too fast, the first."""
        with self._lock:
            if not self._samples or at - self._samples[-1].at >= INTERVAL:
                self._samples.append(Sample(at, measured.ccd, measured.power, set_point))

    def clear(self) -> None:
        """Forgets everything: it will be another camera."""
        with self._lock:
            self._samples.clear()

    def at(self, when: float) -> Sample | None:
        """What it was then, between the samples in proportion; None without any within `FRESH`."""
        with self._lock:
            samples = [sample for sample in self._samples if abs(sample.at - when) <= FRESH]
        before = [sample for sample in samples if sample.at <= when]
        after = samples[len(before) :]
        if not (before and after):
            return before[-1] if before else after[0] if after else None
        one, other = before[-1], after[0]
        share = (when - one.at) / (other.at - one.at)
        return Sample(
            when,
            one.ccd + share * (other.ccd - one.ccd),
            _between(one.power, other.power, share),
            one.set_point,
        )


def _between(one: float | None, other: float | None, share: float) -> float | None:
    return None if one is None or other is None else one + share * (other - one)
