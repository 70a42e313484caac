# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documents: their blocks of code, as a reader would copy them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a reader may type; everything else is shown only. A block without a language could be either.
SHELL = frozenset({"sh", "bash", "shell", "console"})
FENCE = "```"
INDENT = "    "


def pages() -> list[str]:
    """All documents with commands, by their paths in the project."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is where it starts in the page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """The line that it is known by."""
        return self.text.partition("\n")[0]

    @property
    def commands(self) -> list[str]:
        """What is typed: lines put together that end with a backslash, without comments and empty lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        bare = (" ".join(line.split()).partition(" # ")[0] for line in lines)
        return [line for line in bare if line and not line.startswith("#")]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page in their order; with `languages` only those."""
    return [
        block
        for block in parse(page, (ROOT / page).read_text())
        if block.language in languages or not languages
    ]


def parse(page: str, text: str) -> list[Block]:
    found: list[Block] = []
    start, language, body = 0, "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(FENCE):
            if start:
                found.append(Block(page, start, language, "".join(f"{each}\n" for each in body)))
                start = 0
            else:
                start, language, body = number, line.strip().removeprefix(FENCE), []
        elif start:
            body.append(line)
    assert not start, f"{page}:{start}: a block that does not end"
    return found


def indented(page: str, text: str) -> list[str]:
    """Markdown's other blocks of code, by indentation: `PAGE:LINE: TEXT`. Continued items of lists are none."""
    found = []
    fenced, listed, before = False, False, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(FENCE):
            fenced = not fenced
        elif not fenced:
            if line and not line.startswith(" "):
                listed = line.startswith(("- ", "* ")) or line.partition(".")[0].isdecimal()
            elif line.startswith(INDENT) and not before.strip() and not listed:
                found.append(f"{page}:{number}: {line.strip()}")
        before = line
    return found
