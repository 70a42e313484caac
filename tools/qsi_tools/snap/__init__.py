# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-snap`: takes pictures with the camera of any INDI server, and says whether they are good.

`request` is what the user wants, with the limits of all waits; `session` talks to the camera; `files` saves;
`measure` and `preview` look at the picture; `display` shows how far it is; `cli` puts them together.
"""
