# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-doctor`: says what is wrong between the camera and its pictures, and what to do about it.

`collect_*` look at the machine and make `facts`; `checks_*` are pure functions from facts to `findings`;
`report` shows them. Nothing here changes anything, but for one file that measures the disk and is removed.
"""
