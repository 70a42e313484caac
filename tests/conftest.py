# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the suite is spread over several processes, and what holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import guard

# Before the driver's modules are imported.
guard.install()

# A busy machine is no defect: nothing here fails for being slow.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Folders whose files go to one process: a second KStars would end the first.
TOGETHER = ("ekos",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """The tests of a file run in one process, one after the other, because they share a camera."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = PurePath(nodeid.partition("::")[0])
            return file.parent.name if file.parent.name in TOGETHER else str(file)

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def no_thread_waits_that_must_not() -> Iterator[None]:
    """Fails the test in which a thread waited that must not: in this process or in a driver process."""
    yield
    guard.check()
