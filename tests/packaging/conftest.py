# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes minutes and a network is run only when it is asked for: tools/test packaging."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "packaging" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("packaging"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: tools/test packaging"))
