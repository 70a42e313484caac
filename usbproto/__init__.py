# SPDX-License-Identifier: LGPL-2.1-or-later
"""The language of QSI 500 and 600 Series cameras, over USB. Knows nothing of INDI."""
