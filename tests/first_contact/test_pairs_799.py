# SPDX-License-Identifier: LGPL-2.1-or-later
"""Combined strangenesses of a 799wsg: see `pairs`."""

from __future__ import annotations

from tests.first_contact.pairs import check_pairs

test_combined_strangenesses_are_served = check_pairs("799wsg")
