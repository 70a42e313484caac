# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command of the documents is run, or said not to be with its reason; see `claims`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.claims import CLAIMS, Given, Not, Run, Serve, Test
from tests.docs.pages import ROOT, SHELL, Block, blocks, indented, pages, parse
from tests.docs.shell import Serving, Shell
from tests.support.indi import PATIENCE, free_port
from tests.support.rig import DEVICE, answers

STORIES = sorted({claim.page for claim in CLAIMS if isinstance(claim, Run | Serve)})
# A page may start several servers, each with the Python of the driver.
STORY_TIME = 600  # s


def commands() -> list[Block]:
    return [block for page in pages() for block in blocks(page, *SHELL)]


def claims_of(block: Block) -> list[Run | Serve | Test | Not]:
    """Who claims the block. One of the first three for all of it, or a Not for each of its commands."""
    whole = [
        claim
        for claim in CLAIMS
        if claim.page == block.page
        and (isinstance(claim, Test) or (isinstance(claim, Run | Serve) and claim.first == block.first))
    ]
    lines = [
        claim
        for command in block.commands
        for claim in CLAIMS
        if isinstance(claim, Not) and (claim.page, claim.command) == (block.page, command)
    ]
    return [*whole, *lines]


def is_claimed(block: Block) -> bool:
    claims = claims_of(block)
    if any(not isinstance(claim, Not) for claim in claims):
        return len(claims) == 1
    return [claim.command for claim in claims if isinstance(claim, Not)] == block.commands


@pytest.mark.parametrize("block", commands(), ids=str)
def test_every_command_is_claimed_once(block: Block) -> None:
    assert is_claimed(block), (
        f"{block}: nobody runs this, or several do; add a line to tests/docs/claims.py:\n{block.text}"
    )


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page} {type(claim).__name__}")
def test_every_claim_has_its_commands(claim: Run | Serve | Test | Not | Given) -> None:
    if isinstance(claim, Given):
        assert claim.page in STORIES, f"no block of the page is run: {claim}"
        return
    assert [block for block in commands() if claim in claims_of(block)], f"no document has this: {claim}"
    if isinstance(claim, Test):
        assert Path(claim.page).name in (ROOT / claim.file).read_text(), (
            f"{claim.file} does not read the page"
        )
    if isinstance(claim, Not):
        assert len(claim.reason) > 10


@pytest.mark.parametrize("page", pages())
def test_commands_cannot_hide(page: str) -> None:
    """They are in fenced blocks with a language: sh for what is typed, text for what is shown."""
    text = (ROOT / page).read_text()
    nameless = [str(block) for block in parse(page, text) if not re.fullmatch(r"[a-z0-9-]+", block.language)]
    assert not nameless, f"blocks without a language (sh, python, text, ...): {nameless}"
    assert not indented(page, text), "blocks by indentation; put them between fences"


# --- running them ---


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the documents speak of .venv, which this Python is not from")
    return Shell(tmp_path, free_port(), free_port())


@pytest.mark.timeout(STORY_TIME)
@pytest.mark.parametrize("page", STORIES)
def test_the_commands_of_a_page_work_from_top_to_bottom(page: str, shell: Shell) -> None:
    terminals: list[Serving] = []  # those that are given, and behind them the page's own
    try:
        for given in (claim for claim in CLAIMS if isinstance(claim, Given) and claim.page == page):
            terminals.append(shell.start(given.command, shell.folder / f"given-{len(terminals)}.log"))
            serves(shell, terminals[-1], given)
            shell.environ |= {name: shell.substitute(value) for name, value in given.environ}
        given_count = len(terminals)
        for number, block in enumerate(blocks(page, *SHELL)):
            (claim, *_) = claims_of(block)
            if isinstance(claim, Run):
                run(shell, block.text, claim)
            elif isinstance(claim, Serve):
                while len(terminals) > given_count:
                    terminals.pop().close()
                terminals.append(shell.start(block.text, shell.folder / f"terminal-{number}.log"))
                serves(shell, terminals[-1], claim)
    finally:
        for terminal in reversed(terminals):
            terminal.close()


def run(shell: Shell, text: str, claim: Run) -> None:
    for old, new in claim.replace:
        assert old in text, claim
        text = text.replace(old, new)
    shell.run(text, claim.ends)
    assert [name for name in claim.leaves if not (shell.work / name).stat().st_size] == []


def serves(shell: Shell, terminal: Serving, claim: Serve | Given) -> None:
    if claim.says:
        terminal.until(lambda: claim.says in terminal.log, f"it says {claim.says!r}")
        return
    terminal.until(lambda: answers(shell.port), "somebody listens")
    shell.run(f"indi_getprop -1 -t {PATIENCE:.0f} '{DEVICE}.DRIVER_INFO.DRIVER_EXEC'")
    if claim.camera:
        # A camera that a simulator has just made is found when the driver looks again.
        shell.run(
            f"for try in 1 2 3 4 5 6; do indi_setprop '{DEVICE}.CONNECTION.CONNECT=On'\n"
            f"indi_eval -t 5 -w '\"{DEVICE}.CONNECTION.CONNECT\"==1' && break; done\n"
            f"indi_eval -t 1 '\"{DEVICE}.CONNECTION.CONNECT\"==1'\n"
            f"indi_setprop '{DEVICE}.CONNECTION.DISCONNECT=On'"
        )


# --- the machinery can fail ---


@pytest.fixture
def page() -> Iterator[str]:
    yield "Text.\n\n```sh\necho one   # why\n\n# nothing\necho two \\\n  three\n```\n\n```text\nshown\n```\n"


def test_blocks_and_their_commands(page: str) -> None:
    first, second = parse("x.md", page)
    assert (str(first), first.language, first.first) == ("x.md:3", "sh", "echo one   # why")
    assert first.commands == ["echo one", "echo two three"]
    assert (str(second), second.language) == ("x.md:11", "text")


def test_what_is_typed_but_indented_is_found() -> None:
    text = "Text:\n\n    rm -rf /\n\n- item\n\n    of the list\n\nMore:\n\n    again\n"
    assert indented("x.md", text) == ["x.md:3: rm -rf /", "x.md:11: again"]


def test_a_new_command_is_claimed_by_nobody() -> None:
    assert not is_claimed(Block("README.md", 1, "sh", "reboot\n"))
    # Nor one that is added to a block that is not run.
    added = "apt install ./indi-qsi-py_*.deb\nreboot\n"
    assert not is_claimed(Block("README.md", 1, "sh", added))


def test_a_command_that_fails_fails(shell: Shell) -> None:
    assert shell.run("echo $HOME") == f"{shell.folder}/home\n"
    for text in ("false\ntrue", "false | true", 'echo "$undefined_variable"'):
        with pytest.raises(AssertionError, match="exit status"):
            shell.run(text)
    assert shell.run("exit 2", ends=(1, 2)) == ""


def test_a_server_that_does_not_start_is_told_with_its_words(shell: Shell) -> None:
    terminal = shell.start("echo what a pity", shell.folder / "log")
    with pytest.raises(AssertionError, match="what a pity"):
        terminal.until(lambda: False, "it serves")
    terminal.close()
