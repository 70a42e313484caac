# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading udev rules, as far as the doctor must: which lines count, and which concern the cameras."""

from __future__ import annotations

import re

from usbproto.models import SERIES, VENDOR_ID

_IDS = "|".join(f"{series.product_id:04x}" for series in SERIES)
_OURS = re.compile(rf'idProduct\}}=="({_IDS})"|{VENDOR_ID:04x}[ :]({_IDS})', re.IGNORECASE)
_WHOLE_VENDOR = re.compile(rf'idVendor\}}=="{VENDOR_ID:04x}"', re.IGNORECASE)


def active(text: str) -> list[str]:
    """The rules of a file: continued lines put together, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def concerns_cameras(text: str) -> bool:
    """Whether a rule names a camera, or every device of the chip's vendor."""
    return any(
        _OURS.search(line) or (_WHOLE_VENDOR.search(line) and "idProduct" not in line)
        for line in active(text)
    )
