# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python imports this at its start when the folder is on PYTHONPATH: it guards a driver process of the tests.

The folder holds nothing else, so that no other module is found there.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

# By its path: the program that starts need not be able to import the tests.
_spec = spec_from_file_location("qsi_guard", Path(__file__).parents[1] / "guard.py")
assert _spec is not None and _spec.loader is not None
_guard = module_from_spec(_spec)
_spec.loader.exec_module(_guard)
_guard.install_in_driver()
