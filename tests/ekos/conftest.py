# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ekos.desktop import missing_programs
from tests.ekos.ekos import Ekos
from tests.ekos.observatory import Camera, Observatory, observatory


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    """One start of KStars serves all tests; each leaves it connected."""
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}; 'tools/test ekos' installs them")
    with observatory(tmp_path_factory.mktemp("ekos"), "683wsg") as place:
        yield place


@pytest.fixture
def ekos(place: Observatory) -> Ekos:
    return place.ekos


@pytest.fixture
def camera(place: Observatory) -> Camera:
    return place.camera
