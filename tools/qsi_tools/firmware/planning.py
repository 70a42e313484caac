# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would be done, or why it would not. Pure: facts of camera and file in, a plan out.

Every rule is one function below that returns why it forbids the update, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.image import Image, Target, version_number


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for. `backup` names the backup that was found, `interrupted`: a journal is open."""

    image: Image
    target: Target
    allow_downgrade: bool = False
    enter_bootloader: bool = False
    backup: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Without `refusals` it may be carried out."""

    steps: tuple[str, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]


Rule = Callable[[Facts, Wish], str | None]


def plan(facts: Facts, wish: Wish) -> Plan:
    """All that speaks against it at once, so that nobody has to come back for each."""
    refusals = tuple(reason for rule in RULES if (reason := rule(facts, wish)) is not None)
    return Plan(_steps(facts, wish), refusals, _notes(facts, wish))


def _known_model(facts: Facts, wish: Wish) -> str | None:
    if facts.base_type:
        return None
    return "the camera does not say which model it is, so nobody can say which file is for it"


def _known_serial(facts: Facts, wish: Wish) -> str | None:
    if facts.serial:
        return None
    return "the camera tells no serial number, so nobody can be sure that it is the right one"


def _right_model(facts: Facts, wish: Wish) -> str | None:
    if not facts.base_type or wish.image.base_type == facts.base_type:
        return None
    return f"the file is for the {wish.image.base_type}, this camera is a {facts.model}"


def _right_part(facts: Facts, wish: Wish) -> str | None:
    if wish.image.target is wish.target:
        return None
    if wish.image.target is Target.CORE:
        return "the file is a core for the FPGA, not firmware: say --core if that is what you want"
    return "the file is firmware, not a core: leave --core out if that is what you want"


def _has_part(facts: Facts, wish: Wish) -> str | None:
    if wish.target is Target.CORE and facts.series == "500":
        return "cameras of the 500 Series have no core that could be updated"
    return None


def _no_downgrade(facts: Facts, wish: Wish) -> str | None:
    now, new = version_number(facts.version(wish.target)), version_number(wish.image.version)
    if wish.allow_downgrade or facts.in_loader or facts.mark is None:
        return None
    if now is None:
        return "the camera does not say which version it has: say --allow-downgrade to write all the same"
    if new is not None and new < now:
        return (
            f"the file has version {wish.image.version}, the camera {facts.version(wish.target)}: "
            "say --allow-downgrade to go back"
        )
    return None


def _backed_up(facts: Facts, wish: Wish) -> str | None:
    if wish.backup is not None or facts.in_loader:
        return None
    return "there is no backup of this camera as it is now: run `qsi-firmware backup` first"


def _not_interrupted(facts: Facts, wish: Wish) -> str | None:
    if facts.in_loader or wish.interrupted:
        return "an earlier update was not finished: run `qsi-firmware recover`"
    return None


def _idle(facts: Facts, wish: Wish) -> str | None:
    if facts.idle or facts.in_loader:
        return None
    return "the camera is at work (exposing, reading out or moving its wheel): wait until it is done"


def _not_cooling(facts: Facts, wish: Wish) -> str | None:
    if not facts.cooling:
        return None
    return "the cooler is on, and the restart would switch it off at once: let the CCD warm up first"


def _supply(facts: Facts, wish: Wish) -> str | None:
    return facts.supply or None


def _speaks(facts: Facts, wish: Wish) -> str | None:
    if facts.mark is not None:
        return None
    return (
        "the camera's loader speaks no language that this program knows (the bootloader of QSI cameras is "
        "unpublished). Nothing can be written to it from here; it was only asked harmless questions and goes "
        "on working"
    )


def _deliberate(facts: Facts, wish: Wish) -> str | None:
    if facts.mark is None or facts.mark.simulated or facts.in_loader or wish.enter_bootloader:
        return None
    return (
        "this is not a simulated camera: its bootloader is started only if you say --enter-bootloader. "
        "If the update goes wrong, the camera may have to go back to whoever can repair it"
    )


RULES: tuple[Rule, ...] = (
    _known_model,
    _known_serial,
    _right_model,
    _right_part,
    _has_part,
    _no_downgrade,
    _backed_up,
    _not_interrupted,
    _idle,
    _not_cooling,
    _supply,
    _speaks,
    _deliberate,
)


def _steps(facts: Facts, wish: Wish) -> tuple[str, ...]:
    part, size = wish.target.value, len(wish.image.data)
    return (
        "ask for the serial number, to be sure that it is the right camera",
        "start the loader (nothing is erased), and ask it who it is",
        f"erase the {part} {facts.version(wish.target) or '(unknown version)'}",
        f"write the {part} {wish.image.version}, {size} bytes",
        "read it back and compare",
        "have the camera check it",
        "restart the camera and read its version again",
    )


def _notes(facts: Facts, wish: Wish) -> tuple[str, ...]:
    notes = []
    if wish.backup is not None:
        notes.append(f"backup: {wish.backup}")
    if facts.version(wish.target) == wish.image.version:
        notes.append(f"the camera has version {wish.image.version} already")
    if facts.mark is not None and not facts.mark.simulated and wish.enter_bootloader:
        notes.append(
            "WARNING: this is not a simulated camera. Its bootloader will be started. If the update goes "
            "wrong, the camera may have to go back to whoever can repair it"
        )
    return tuple(notes)
