# SPDX-License-Identifier: LGPL-2.1-or-later
"""The udev rules and the table of ids say the same."""

from __future__ import annotations

import re
from pathlib import Path

from usbproto import models

RULES = Path(__file__).parent.parent / "udev" / "70-qsi.rules"


def test_the_rules_match_exactly_the_cameras_of_the_table() -> None:
    found = re.findall(r'ATTR\{idVendor\}=="(\w{4})", ATTR\{idProduct\}=="(\w{4})"', RULES.read_text())
    assert sorted(found) == sorted(
        (f"{models.VENDOR_ID:04x}", f"{series.product_id:04x}") for series in models.SERIES
    )


def test_the_rules_come_before_those_that_act_on_their_tag() -> None:
    assert int(RULES.name.split("-")[0]) < 73
