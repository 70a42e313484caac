# SPDX-License-Identifier: LGPL-2.1-or-later
"""What clients want in headers: whatever it is, the header is one that astropy finds no fault with.

An input is text of three lines a record: name, value, comment.
"""

from __future__ import annotations

import warnings

from indi_qsi.device import keywords
from indi_qsi.device.keywords import KeywordError
from indi_qsi.fits import BLOCK, render_header

SHAPE = (4, 6)
MAX_TEXT = 1024  # characters, of the vector's elements

SEEDS = (
    b"OBJECT\nM 31\nthe galaxy\nGAIN\n0.5\ne-/ADU",
    "OBSERVER\nGröße ' \" Hα\n°\nCOMMENT\n".encode() + b"long " * 60,
    b"RUN\n-00012345678901234567890\n\nX-1\n1e-400\n.\nA\n" + b"it''s/" * 20,
    b"HIERARCH\n1\n\nEND\n\n\nNAXIS1\n5\n\nhistory\nyesterday\n",
)


def one_input(data: bytes) -> None:
    from astropy.io.fits import Header

    lines = data.decode("utf-8", "replace").split("\n")
    cards = []
    for at in range(0, len(lines) - 1, 3):
        name, value, comment = (line.strip()[:MAX_TEXT] for line in (*lines[at : at + 3], "")[:3])
        if not (name and value):
            continue
        try:
            cards.append(keywords.make(name, value, comment))
        except KeywordError as error:
            assert len(str(error)) < 255  # it fits into a message
    header = render_header(SHAPE, cards[: keywords.MAX_CARDS])
    assert len(header) % BLOCK == 0
    assert all(32 <= byte <= 126 for byte in header)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = Header.fromstring(header.decode("ascii"))
        for card in read.cards:
            card.verify("exception")
    assert (read["NAXIS2"], read["NAXIS1"]) == SHAPE
    numbers = {card.keyword: card.value for card in cards if isinstance(card.value, int | float)}
    for keyword, value in numbers.items():
        if sum(card.keyword == keyword for card in cards) == 1:
            assert read[keyword] == value or abs(read[keyword] - value) <= 1e-9 * abs(value)
