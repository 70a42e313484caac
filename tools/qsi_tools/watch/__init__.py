# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-watch`: shows the cameras of an INDI server while they work, and logs them. It asks for nothing and
changes nothing.

`state` is a camera at one moment; `history` its last hours; `log` the CSV file; `plot` a picture of that;
`views` show it; `watcher` is the loop, which goes on when the server goes and comes; `cli` is the program.
"""
