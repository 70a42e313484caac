# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of any INDI server.

`reader` turns bytes into messages, `model` keeps what the server has told, `client` has the socket, `devices`
finds the camera. It stands on `indi_qsi.wire`, whose own parser is a driver's: bounded to what a driver is
sent, and without labels, limits and pictures. Nothing here knows a QSI camera.
"""
