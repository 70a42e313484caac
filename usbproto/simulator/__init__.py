# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QSI camera made of software, at the USB level. Nothing outside this package may depend on it."""
