# SPDX-License-Identifier: LGPL-2.1-or-later
"""The steps with the camera, in their order. Before each, the journal is told.

Nothing here decides whether to update: that is `planning`. Nothing here knows the loader's language: that
is a `Dialect`. An order that failed is not repeated; `recovery` begins anew instead.
"""

from __future__ import annotations

import contextlib

from qsi_tools.firmware.access import Access, Session, read_eeprom
from qsi_tools.firmware.dialect import Dialect, Loader
from qsi_tools.firmware.errors import Differs, LoaderError
from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.image import Image
from qsi_tools.firmware.journal import Journal, Step
from qsi_tools.firmware.screen import Progress, Screen
from usbproto.errors import LinkError, QsiError
from usbproto.link import Link


def update(session: Session, image: Image, journal: Journal, screen: Screen) -> Facts:
    """The whole of it; the camera's facts afterwards. Raises any `QsiError`; the journal then says where."""
    facts, dialect, link = session.facts, session.dialect, session.link
    journal.begin(image, facts.serial, facts.model, facts.version(image.target))
    try:
        loader = enter(link, dialect, facts, journal, screen)
        _check_room(loader, image)
    except QsiError:
        _leave(link, dialect)
        raise
    load(link, dialect, loader, image, journal, screen)
    journal.step(Step.RESTART)
    restart(link, dialect, screen)
    return confirm(session.access, facts.serial, image, journal, screen)


def enter(link: Link, dialect: Dialect, facts: Facts, journal: Journal, screen: Screen) -> Loader:
    """Into the loader, and sure that it is that of this camera. Nothing is erased."""
    screen.say("Starting the loader")
    journal.step(Step.ENTER)
    dialect.enter(link)
    journal.step(Step.IDENTIFY)
    return identify(link, dialect, facts)


def _leave(link: Link, dialect: Dialect) -> None:
    """Nothing was erased: the firmware may as well go on, if it is the loader that runs.

    That is found out by questions that any camera may be asked: the knock may not have been heard, or sent.
    """
    with contextlib.suppress(QsiError):
        mark = dialect.recognise(lambda address, count: read_eeprom(link, address, count))
        if mark is not None and mark.in_loader:
            dialect.restart(link)


def identify(link: Link, dialect: Dialect, facts: Facts) -> Loader:
    """Raises `LoaderError` when the loader is not that of this camera."""
    loader = dialect.identify(link)
    if (loader.serial, loader.base_type) != (facts.serial[:8], facts.base_type):
        raise LoaderError(
            f"The loader says it is that of a {loader.base_type}, {loader.serial}, "
            f"and not of this {facts.model}, {facts.serial}"
        )
    return loader


def _check_room(loader: Loader, image: Image) -> None:
    region = loader.regions.get(image.target)
    if region is None:
        raise LoaderError(f"This camera has no {image.target.value}")
    if len(image.data) > region.size:
        raise LoaderError(
            f"The {image.target.value} has {len(image.data)} bytes, and there is room for {region.size}"
        )


def load(
    link: Link, dialect: Dialect, loader: Loader, image: Image, journal: Journal, screen: Screen
) -> None:
    """From erasing until the camera has found the new content whole."""
    _check_room(loader, image)
    screen.say(f"Erasing the {image.target.value}")
    journal.step(Step.ERASE)
    dialect.erase(link, image.target)
    journal.step(Step.WRITE)
    size, progress = len(image.data), Progress("writing", len(image.data))
    for at in range(0, size, loader.block):
        piece = image.data[at : at + loader.block]
        dialect.write(link, image.target, at, piece)
        screen.progress(progress, at + len(piece))
    journal.step(Step.COMPARE)
    compare(link, dialect, loader, image, screen)
    screen.say("The camera checks it")
    journal.step(Step.VALIDATE)
    dialect.validate(link, image.target, size, image.checksum)


def verify(session: Session, image: Image, journal: Journal, screen: Screen) -> Facts:
    """Compares only. The camera restarts, whatever came out. Raises `Differs`."""
    facts, dialect, link = session.facts, session.dialect, session.link
    journal.begin(image, facts.serial, facts.model, facts.version(image.target))
    different = None
    try:
        loader = enter(link, dialect, facts, journal, screen)
        _check_room(loader, image)
        compare(link, dialect, loader, image, screen)
    except Differs as error:
        different = error
    except QsiError:
        _leave(link, dialect)
        raise
    restart(link, dialect, screen)
    with session.access.restarted(facts.serial) as running:
        facts = running.facts
    journal.step(Step.DONE)
    if different is not None:
        raise different
    return facts


def compare(link: Link, dialect: Dialect, loader: Loader, image: Image, screen: Screen) -> None:
    """Raises `Differs` when the camera holds something else than the image."""
    size, progress = len(image.data), Progress("reading back", len(image.data))
    for at in range(0, size, loader.block):
        piece = image.data[at : at + loader.block]
        held = dialect.read(link, image.target, at, len(piece))
        if held != piece:
            where = at + next(i for i, (a, b) in enumerate(zip(held, piece, strict=True)) if a != b)
            raise Differs(f"The camera's {image.target.value} differs from the file at address {where:08X}")
        screen.progress(progress, at + len(piece))


def restart(link: Link, dialect: Dialect, screen: Screen) -> None:
    """Sends it off. That the answer gets lost with the restart proves nothing: whoever waits will see."""
    screen.say("Restarting the camera")
    with contextlib.suppress(LinkError):
        dialect.restart(link)
    link.close()


def confirm(access: Access, serial: str, image: Image, journal: Journal, screen: Screen) -> Facts:
    """Waits for the camera, and sees that it runs what was written. Raises `Differs` when it does not."""
    screen.say("Waiting for the camera")
    journal.step(Step.CONFIRM)
    with access.restarted(serial) as session:
        facts = session.facts
    if facts.version(image.target) != image.version:
        raise Differs(
            f"The camera says that its {image.target.value} is {facts.version(image.target) or 'unknown'}, "
            f"and {image.version} was written"
        )
    journal.step(Step.DONE)
    return facts
