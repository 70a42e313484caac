# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real KStars/Ekos, without a screen and driven by D-Bus, takes pictures with our driver."""
