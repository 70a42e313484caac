# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each strangeness of a camera may cost: missing properties, and the log line that reports it."""

from __future__ import annotations

from dataclasses import dataclass

FEATURES = frozenset({"EXTERNAL_TRIGGER", "HIGH_SPEED_READOUT"})
BY_SENSOR = frozenset({"HOST_TIMED"})  # offered where the table of models says that the sensor is interline
BY_QUIRK = frozenset({"SHUTTER_PRIORITY"})  # withheld where it says that the camera reports it wrongly


@dataclass(frozen=True)
class Row:
    """`strange` as the simulator takes it. `line`: a pattern of the warning; None where nothing is odd.

    `missing`: properties that a camera may lack because of it, and `more` those that it may have. `series`:
    the one that it shows on, None for both. `pairs`: whether anything else may be strange at the same time.
    `large_reads`: it shows only where more than 16 KiB are read at a time.
    """

    strange: str
    line: str | None = None
    missing: frozenset[str] = frozenset()
    more: frozenset[str] = frozenset()
    series: str | None = None
    pairs: bool = True
    large_reads: bool = False

    @property
    def name(self) -> str:
        return self.strange.partition(":")[0]


ROWS = (
    Row("longer-answers", r"The answer to \w+ has 1 bytes more"),
    Row("longer-answers:7,0x00", r"The answer to \w+ has 7 bytes more"),
    Row("surplus-bytes", "stray bytes", missing=FEATURES),
    Row("eeprom-silent", "without the EEPROM's content"),
    Row("eeprom-refused", "without the EEPROM's content"),
    Row("can-abort-silent", "without CanAbortExposure"),
    Row("shutter-state-silent"),
    Row("set-point-refused", "the set point"),
    Row("pcb-refused", "without the board's temperature", series="600"),
    Row("alt-mode-refused"),
    Row("trigger-off-refused", "without switching the external trigger off", series="600"),
    Row("probe-late", missing=FEATURES),
    Row("probe-error", "continuing without", missing=FEATURES),
    Row("probe-echo", "continuing without", missing=FEATURES),
    Row("features-extra-byte", missing=FEATURES, series="600"),
    Row("features-status-outside", missing=FEATURES, series="600"),
    Row("features-none", missing=FEATURES, series="600"),
    Row("features-short", missing=FEATURES, series="600"),
    Row("features-ff", missing=FEATURES, series="600"),
    Row("slow-init"),
    Row("slow-init:20", "late answer", pairs=False),  # more than any camera was seen to need
    Row("wheel-answers-at-once"),
    Row("state-at-connect"),
    Row("state-at-connect:error,6"),
    Row("state-at-connect:flushing,30", "still busy"),
    Row("late-busy"),
    Row("slow-abort"),
    Row("slow-abort:8"),
    Row("fragile-readout"),
    Row("power-while-off"),
    Row("odd-first-readings", "implausible reading"),
    Row("odd-defaults", "which no list names"),
    Row("odd-feature-bytes"),
    Row("rs-600"),
    Row("unknown-model", "not in the table of models", missing=BY_SENSOR, more=BY_QUIRK),
    Row("transfer-errors", "A USB transfer failed"),
    Row("transfer-errors:23,0,EIO", "A USB transfer failed"),
    Row("transfer-errors:41,0,EPIPE", "A USB transfer failed"),
    Row("transfer-errors:61,0,EOVERFLOW,lose=1", "A USB transfer failed"),
    Row("full-speed", "64 bytes instead of 512", series="600"),
    Row("no-scatter-gather"),
    Row("no-memory", "usbfs_memory_mb", large_reads=True),
)
MODELS = ("583wsg", "683wsg", "640wsg", "799wsg")
UNKNOWN = "799wsg"  # a 683 that calls itself so
