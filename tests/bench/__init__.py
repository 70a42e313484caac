# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark: `tools/bench`. What its figures mean is in docs/performance.md."""
