# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes minutes and another machine is run only when it is asked for: tools/test vm."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "vm" in config.option.markexpr.split():
        return
    for item in items:
        if item.get_closest_marker("vm"):
            item.add_marker(pytest.mark.skip(reason="takes minutes and QEMU: tools/test vm"))
