# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QSI camera as an INDI device: one small module a subject."""
