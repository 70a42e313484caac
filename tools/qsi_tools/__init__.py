# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that an owner installs beside the driver: each a folder or a module, started by its own name.

They stand on `usbproto`, or talk to any INDI server on `indi_qsi.wire`; the driver imports none of them.
"""
