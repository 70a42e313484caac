# SPDX-License-Identifier: LGPL-2.1-or-later
"""A camera that an interrupted update left behind: find out what is in it, and make it whole."""

from __future__ import annotations

from qsi_tools.firmware import update
from qsi_tools.firmware.access import Session
from qsi_tools.firmware.dialect import Loader
from qsi_tools.firmware.errors import Differs, PlanRefused
from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.image import Image, Target
from qsi_tools.firmware.journal import Journal, Step
from qsi_tools.firmware.screen import Screen


def damaged_parts(session: Session) -> tuple[Loader, list[Target]]:
    """What the loader finds not whole. Harmless."""
    loader = update.identify(session.link, session.dialect, session.facts)
    return loader, [target for target, region in loader.regions.items() if not region.valid]


def choose_image(target: Target, base_type: str, given: Image | None, kept: Image | None) -> Image:
    """What to write: the file that was given, else the journal's copy. Raises `PlanRefused`."""
    for image in (given, kept):
        if image is not None and (image.target, image.base_type) == (target, base_type):
            return image
    option = " --core" if target is Target.CORE else ""
    raise PlanRefused(
        f"The {target.value} is not whole, and there is no file to write",
        f"Run: qsi-firmware recover FILE, with a file that `qsi-firmware check FILE{option}` finds right",
    )


def recover(session: Session, given: Image | None, journal: Journal, screen: Screen) -> Facts:
    """The camera runs afterwards. Raises any `QsiError`; then it can be tried again."""
    facts = session.facts
    loader, damaged = damaged_parts(session)
    kept = journal.image()
    images = [choose_image(target, facts.base_type, given, kept) for target in damaged]
    for image in images:
        before = journal.entry
        old = before.old_version if before is not None and before.target == image.target.value else ""
        journal.begin(image, facts.serial, facts.model, old, Step.WRITE)
        update.load(session.link, session.dialect, loader, image, journal, screen)
    if images:
        journal.step(Step.RESTART)
    update.restart(session.link, session.dialect, screen)
    with session.access.restarted(facts.serial) as running:
        after = running.facts
    for image in images:
        if after.version(image.target) != image.version:
            raise Differs(
                f"The camera says that its {image.target.value} is "
                f"{after.version(image.target) or 'unknown'}, and {image.version} was written"
            )
    if journal.open:
        journal.step(Step.DONE)
    return after
