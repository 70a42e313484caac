# SPDX-License-Identifier: LGPL-2.1-or-later
"""USB captures of any program (usbmon, USBPcap), read as a session of a QSI camera. Pure but for the file.

From the file to the findings: `container` (records of a file) -> `usbmon`, `usbpcap` (one packet) -> `urbs`
(transfers) -> `devices` (which one is the camera) -> `session` (exchanges and lines) -> `findings`.
"""
