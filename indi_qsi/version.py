# SPDX-License-Identifier: LGPL-2.1-or-later
"""The version: the only place that states it."""

VERSION = "0.1.0"
