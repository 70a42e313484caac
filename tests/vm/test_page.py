# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command of docs/raspberry-pi.md is run somewhere, or said not to be."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vm.page import PAGE, blocks

STORY = Path(__file__).with_name("test_headless.py")
ROOT = Path(__file__).resolve().parents[2]


def test_every_block_of_commands_says_where_it_is_run() -> None:
    story = STORY.read_text()
    places = [place for place, _, _ in blocks()]
    assert len(places) > 10
    names = [name for place, name, _ in blocks() if place == "guest"]
    assert len(set(names)) == len(names)
    for place, name, text in blocks():
        if place == "guest":
            assert f'"{name}"' in story, f"nobody runs {name!r}"
        elif place != "by hand":
            assert "page.commands" in (ROOT / place).read_text(), f"{place!r} does not run:\n{text}"


def test_nothing_is_run_that_the_page_does_not_say() -> None:
    names = {name for place, name, _ in blocks() if place == "guest"}
    assert set(re.findall(r'(?:follow|page\.commands)\("([^"]+)"', STORY.read_text())) == names


def test_symptoms_in_the_drivers_words_are_its_words() -> None:
    table = PAGE.read_text().partition("| symptom |")[2].partition("\n\n")[0]
    symptoms = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    quoted = [words for symptom in symptoms for words in re.findall(r"(?<![*])\*([^*]+)\*", symptom)]
    source = "\n".join(
        path.read_text() for room in ("usbproto", "indi_qsi") for path in (ROOT / room).rglob("*.py")
    )
    elsewhere = {"connection refused", "Waiting for a camera"}
    assert len(quoted) > 4
    assert [words for words in quoted if words not in source and words not in elsewhere] == []
