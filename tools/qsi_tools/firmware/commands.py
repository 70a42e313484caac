# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each subcommand does, put together from the parts. Each returns its exit status."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsi_tools.firmware import archive, backups, listing, recovery
from qsi_tools.firmware import update as steps
from qsi_tools.firmware.access import Access, Session, holders
from qsi_tools.firmware.archive import Found as FoundImage
from qsi_tools.firmware.archive import HexText
from qsi_tools.firmware.errors import Differs, Exit, FileError, NoIdentity, PlanRefused, exit_status
from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.image import Image, Target
from qsi_tools.firmware.journal import Journal, Standing
from qsi_tools.firmware.planning import Plan, Wish, plan
from qsi_tools.firmware.screen import Screen
from qsi_tools.firmware.signals import held_off
from usbproto.discovery import Found
from usbproto.errors import CameraInUse, QsiError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The command line. `state` is the folder of journals and backups."""

    state: Path
    serial: str | None = None
    json: bool = False
    file: Path | None = None
    target: Target = Target.FIRMWARE
    allow_downgrade: bool = False
    enter_bootloader: bool = False
    confirm: str | None = None
    to: Path | None = None


@dataclass(frozen=True)
class Tool:
    """What every command gets."""

    access: Access
    options: Options
    screen: Screen

    @property
    def backup_folder(self) -> Path:
        return self.options.to or self.options.state / "backups"

    def journal(self, serial: str) -> Journal:
        return Journal(self.options.state, serial)

    def show(self, lines: list[str], data: Any) -> None:
        """The result: text, or JSON."""
        self.screen.result(json.dumps(data, indent=2) if self.options.json else "\n".join(lines))

    def hex_texts(self) -> list[HexText]:
        """What the file has, whether it says what it is for or not. Raises `FileError`."""
        assert self.options.file is not None
        try:
            with self.options.file.open("rb") as file:
                data = file.read(archive.MAX_FILE + 1)
        except OSError as error:
            raise FileError(f"it cannot be read: {error.strerror or error}") from error
        return archive.read(self.options.file.name, data)

    def images(self) -> list[FoundImage]:
        """What of it may be written. Raises `FileError`."""
        return archive.images(self.hex_texts())


# --- looking ---


def list_cameras(tool: Tool) -> int:
    rows, table = [], []
    for found in tool.access.cameras():
        row = _row(tool, found)
        rows.append(row)
        problem = f"  {row['problem']}" if row["problem"] else ""
        columns = [row[name] or "-" for name in ("serial", "model", "firmware", "hardware", "manufactured")]
        table.append(f"{columns[0]:10} {columns[1]:8} {columns[2]:9} {columns[3]:9} {columns[4]:9} "
                     f"{row['series']}{problem}")  # fmt: skip
    heading = f"{'serial':10} {'model':8} {'firmware':9} {'hardware':9} {'made':9} series"
    tool.show([heading, *table] if table else ["No QSI camera was found on the USB"], rows)
    return Exit.DONE if rows else Exit.NO_ACCESS


def _row(tool: Tool, found: Found) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("model", "firmware", "core", "hardware", "manufactured", "loader"))
    row.update(serial=found.serial, series=found.series.name, held_by=[], in_loader=None, problem="")
    try:
        with tool.access.session(found) as session:
            row.update(session.facts.as_dict())
            if session.facts.in_loader:
                row["problem"] = "is in its loader: run qsi-firmware recover"
    except CameraInUse as error:
        row["held_by"] = holders(found.port.location)
        row["problem"] = "in use by " + (", ".join(row["held_by"]) or "another program")
        row["problem"] += "" if row["held_by"] else f" ({error})"
    except QsiError as error:
        row["problem"] = error.explain()
    return row


def info(tool: Tool) -> int:
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        facts = session.facts
    journal = tool.journal(facts.serial)
    backup = backups.find(tool.backup_folder, facts)
    if facts.mark is None:
        loader = "speaks no language that this program knows: nothing can be written"
    else:
        loader = facts.mark.dialect + (", simulated camera" if facts.mark.simulated else "")
        loader += "; IT RUNS NOW, instead of the firmware" if facts.in_loader else ""
    lines = [
        f"serial        {facts.serial}",
        f"model         {facts.model} ({facts.series} Series)",
        f"firmware      {facts.firmware or 'none that is whole'}",
        f"core          {facts.version(Target.CORE) or '-'}",
        f"hardware      {facts.hardware}",
        f"manufactured  {facts.manufactured}",
        f"loader        {loader}",
        f"backup        {backup or 'none of this camera as it is now'}",
    ]
    entry = journal.entry
    if entry is not None and entry.open:
        lines += ["", entry.explain()]
    unfinished = entry.explain() if entry is not None and entry.open else None
    data = {**facts.as_dict(), "backup": str(backup) if backup else None, "unfinished": unfinished}
    tool.show(lines, data)
    return Exit.DONE


def check(tool: Tool) -> int:
    """The file, and against the camera when there is exactly one, or one was named."""
    texts = tool.hex_texts()
    lines, rows = listing.lines(texts), listing.rows(texts)
    try:
        found = archive.images(texts)
    except NoIdentity as error:
        # Nothing that a camera could be asked would tell more.
        status = Exit.REFUSED
        data = {"files": rows, "camera": None, "fits": None, "error": str(error), "status": int(status)}
        tool.show([*lines, f"Not compared with a camera: {error}"], data)
        return status
    facts, why = _camera_if_any(tool)
    if facts is None:
        tool.show(
            [*lines, f"Not compared with a camera: {why}"], {"files": rows, "camera": None, "fits": None}
        )
        return Exit.DONE
    fitting = archive.choose(found, facts.base_type, tool.options.target)
    part, now = tool.options.target.value, facts.version(tool.options.target) or "unknown"
    if fitting is None:
        lines.append(f"No {part} for this camera in it: this is a {facts.model}, {facts.serial}")
    else:
        lines.append(f"For this camera, {facts.model} {facts.serial}: {fitting.image.version}; it has {now}")
    fits = fitting.name if fitting else None
    tool.show(lines, {"files": rows, "camera": facts.as_dict(), "fits": fits})
    return Exit.DONE if fitting else Exit.REFUSED


def _camera_if_any(tool: Tool) -> tuple[Facts | None, str]:
    """Its facts, or why there are none. Raises `QsiError` only for a camera that was named."""
    try:
        with tool.access.session(tool.access.find(tool.options.serial)) as session:
            return session.facts, ""
    except QsiError as error:
        if tool.options.serial is not None:
            raise
        return None, str(error)


def backup(tool: Tool) -> int:
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        if session.facts.in_loader:
            raise PlanRefused("The camera is in its loader", "Run qsi-firmware recover first")
        tool.screen.say("Reading the EEPROM twice")
        path = backups.save(tool.backup_folder, session.facts, backups.read_twice(session.link))
    manifest = backups.read(path)
    assert manifest is not None
    lines = [f"{path}: {manifest['bytes']} bytes of {session.facts.serial}, SHA-256 {manifest['sha256']}"]
    tool.show(lines, {"manifest": str(path), **manifest})
    return Exit.DONE


# --- planning and writing ---


def show_plan(tool: Tool) -> int:
    texts = tool.hex_texts()
    try:
        files = archive.images(texts)
    except NoIdentity as error:
        return _no_plan(tool, texts, str(error))
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        image, made = _plan(tool, session, files)
    lines = [*_plan_lines(session.facts, image, made), "Nothing was done."]
    tool.show(lines, _plan_data(session.facts, image, made))
    return Exit.REFUSED if made.refusals else Exit.DONE


def _no_plan(tool: Tool, texts: list[HexText], reason: str) -> int:
    """For a file that does not say what it is for: no camera need be asked."""
    lines = [*listing.lines(texts), "", "It will not be done:", f"  - {reason}", "Nothing was done."]
    data = {"camera": None, "file": None, "files": listing.rows(texts), "refusals": [reason]}
    tool.show(lines, {**data, "steps": [], "notes": []})
    return Exit.REFUSED


def _image(tool: Tool, facts: Facts, files: list[FoundImage]) -> Image:
    """The one for this camera; one that does not fit is refused by the plan, with the reason."""
    return (archive.choose(files, facts.base_type, tool.options.target) or files[0]).image


def _plan(tool: Tool, session: Session, files: list[FoundImage]) -> tuple[Image, Plan]:
    """`files` were read before the camera was opened: a bad file leaves it alone."""
    options, facts = tool.options, session.facts
    image = _image(tool, facts, files)
    kept = backups.find(tool.backup_folder, facts)
    wish = Wish(
        image,
        options.target,
        options.allow_downgrade,
        options.enter_bootloader,
        str(kept) if kept else None,
        tool.journal(facts.serial).open,
    )
    return image, plan(facts, wish)


def _plan_lines(facts: Facts, image: Image, made: Plan) -> list[str]:
    lines = [f"Camera: {facts.model} {facts.serial}", f"File:   {listing.describe(image)}", ""]
    if made.refusals:
        lines += ["It will not be done:", *(f"  - {reason}" for reason in made.refusals)]
    else:
        lines += ["What would be done:", *(f"  {n}. {step}" for n, step in enumerate(made.steps, 1))]
    return [*lines, *(f"  ({note})" for note in made.notes)]


def _plan_data(facts: Facts, image: Image, made: Plan) -> dict[str, Any]:
    file = {"target": image.target.value, "model": image.base_type, "version": image.version}
    return {
        "camera": facts.as_dict(),
        "file": file,
        "refusals": list(made.refusals),
        "steps": [] if made.refusals else list(made.steps),
        "notes": list(made.notes),
    }


def update(tool: Tool) -> int:
    files = tool.images()
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        image, made = _plan(tool, session, files)
        facts = session.facts
        tool.screen.say("\n".join(_plan_lines(facts, image, made)))
        if made.refusals:
            raise PlanRefused("The camera was not touched: see the reasons above")
        _confirm(tool, facts)
        return _write(tool, facts.serial, lambda j: steps.update(session, image, j, tool.screen))


def recover(tool: Tool) -> int:
    files = tool.images() if tool.options.file is not None else None
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        facts, journal = session.facts, tool.journal(session.facts.serial)
        if not facts.in_loader:
            return _conclude(tool, facts, journal)
        given = None
        if files is not None:
            chosen = archive.choose(files, facts.base_type, tool.options.target)
            given = chosen.image if chosen else None
            if given is None:
                raise PlanRefused(f"The file has no {tool.options.target.value} for the {facts.base_type}")
        if journal.entry is not None and journal.open:
            tool.screen.say(journal.entry.story())
        tool.screen.say(f"The camera {facts.model} {facts.serial} is in its loader.")
        _confirm(tool, facts)
        return _write(tool, facts.serial, lambda j: recovery.recover(session, given, j, tool.screen))


def _conclude(tool: Tool, facts: Facts, journal: Journal) -> int:
    """The camera's firmware runs: all that is left is to say so."""
    entry = journal.entry
    if entry is None or not entry.open:
        text = "Nothing to recover: the camera runs, and no update was interrupted"
    else:
        now = facts.version(Target(entry.target)) or "unknown"
        what = {entry.new_version: "the new one", entry.old_version: "the one from before"}.get(
            now, "neither"
        )
        text = f"The camera runs. Its {entry.target} is {now}: {what}. Nothing is left to be done"
        journal.done()
    tool.show([text], {"camera": facts.as_dict(), "recovered": False, "message": text})
    return Exit.DONE


def verify(tool: Tool) -> int:
    """Reads back and compares; nothing is written, but the camera restarts."""
    files = tool.images()
    with tool.access.session(tool.access.find(tool.options.serial)) as session:
        facts = session.facts
        image = _image(tool, facts, files)
        # What only speaks against writing does not speak against reading.
        wish = Wish(
            image,
            tool.options.target,
            True,
            tool.options.enter_bootloader,
            "",
            tool.journal(facts.serial).open,
        )
        made = plan(facts, wish)
        if made.refusals:
            raise PlanRefused("; ".join(made.refusals))
        return _write(tool, facts.serial, lambda j: steps.verify(session, image, j, tool.screen))


def _confirm(tool: Tool, facts: Facts) -> None:
    typed = tool.options.confirm
    if typed is None:
        typed = tool.screen.ask("Type the camera's serial number to go on:")
    if typed is None:
        raise PlanRefused("Nobody is there to confirm", f"Say --confirm {facts.serial}")
    if not typed or typed != facts.serial:  # an empty line is no confirmation, whatever the camera says
        raise PlanRefused(f"{typed!r} is not this camera's serial number ({facts.serial}): nothing was done")


def _write(tool: Tool, serial: str, work: Callable[[Journal], Facts]) -> int:
    """The window in which no signal ends us; and afterwards, the truth."""
    journal = tool.journal(serial)
    with held_off(tool.screen.say):
        try:
            facts = work(journal)
        except Exception as error:  # whatever it is, the user must learn what the camera needs
            if not isinstance(error, QsiError):
                log.exception("this should not have happened")
            return _failed(tool, journal, error)
    text = f"Done: {facts.model} {facts.serial} runs firmware {facts.firmware}"
    core = facts.version(Target.CORE)
    text += f", core {core}" if core else ""
    tool.show([text], {"camera": facts.as_dict(), "message": text})
    return Exit.DONE


def _failed(tool: Tool, journal: Journal, error: Exception) -> int:
    what = error.explain() if isinstance(error, QsiError) else repr(error)
    tool.screen.say(f"qsi-firmware: {what}")
    entry, status = journal.entry, exit_status(error)
    if entry is not None and entry.open:
        with contextlib.suppress(QsiError):  # a note; what matters is there already
            journal.failed(str(error))
        what = entry.explain()
        tool.screen.say(what)
        if entry.standing is Standing.OLD:
            status = Exit.FAILED
        elif not (entry.standing is Standing.NEW and isinstance(error, Differs)):
            status = Exit.INCOMPLETE
    if tool.options.json:
        tool.show([], {"error": str(error), "message": what, "status": int(status)})
    return status
