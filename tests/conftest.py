# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the suite is spread over several processes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no defect: nothing here fails for being slow.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Folders whose files share something that is dear to start.
TOGETHER = ("ekos",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file run in one process, one after the other, because they share a camera."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder in TOGETHER else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
