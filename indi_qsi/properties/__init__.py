# SPDX-License-Identifier: LGPL-2.1-or-later
"""The property model: devices, vectors, who may change what, and who is told.

Knows the wire's words and no camera. Vectors may be changed by any thread; `vectors` has the rules.
"""

from indi_qsi.properties.blobs import BlobVector
from indi_qsi.properties.device import Device
from indi_qsi.properties.elements import (
    BlobElement,
    Level,
    LightElement,
    NumberElement,
    Permission,
    Rule,
    SwitchElement,
    TextElement,
)
from indi_qsi.properties.hub import Hub
from indi_qsi.properties.kinds import LightVector, NumberVector, SwitchVector, TextVector
from indi_qsi.properties.vectors import Answer, Rejected, Request, Vector
from indi_qsi.wire.messages import Kind, State

__all__ = [
    "Answer",
    "BlobElement",
    "BlobVector",
    "Device",
    "Hub",
    "Kind",
    "Level",
    "LightElement",
    "LightVector",
    "NumberElement",
    "NumberVector",
    "Permission",
    "Rejected",
    "Request",
    "Rule",
    "State",
    "SwitchElement",
    "SwitchVector",
    "TextElement",
    "TextVector",
    "Vector",
]
