# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can go wrong, told apart by who must act.

Every error of `usbproto` is a `QsiError`. `str(error)` says what happened; `error.remedy` says what to do
about it, or is empty when there is nothing that a user could do.

    QsiError
      AccessError        the user must act before the camera can be used
        NoCamera  NoPermission  CameraInUse
      LinkError          the cable, the hub or the camera's firmware let us down
        Disconnected  TimedOut  ProtocolError  TransferFailed
      Refused            the camera understood and said no
      NotSupported       this model cannot do it
      BadArgument        the caller asked for something that no camera of this kind can do
      Interrupted        the program itself gave up waiting
"""


class QsiError(Exception):
    """Base of everything that this package raises on purpose."""

    remedy = ""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        if remedy:
            self.remedy = remedy

    def explain(self) -> str:
        """What happened and what to do, in one line."""
        message = str(self)
        return f"{message}. {self.remedy}" if self.remedy else message


class AccessError(QsiError):
    """The camera cannot be opened; somebody must change something outside the program."""


class NoCamera(AccessError):
    """No camera, or not the one that was asked for, is on the USB."""

    remedy = (
        "Check the 12 V supply and the USB cable, wait 6 seconds after power-up, "
        "and look for 0403:eb48 or 0403:eb49 in the output of lsusb"
    )


class NoPermission(AccessError):
    """The camera is there, but this user may not open it."""

    remedy = (
        "Install the udev rules (sudo indi-qsi setup-udev; Debian's package has done it), add the user "
        "to the group plugdev, and plug the camera in again"
    )


class CameraInUse(AccessError):
    """Another program has the camera."""

    remedy = "End the other program that uses the camera (another INDI driver or server?)"


class LinkError(QsiError):
    """The exchange with the camera failed underway."""


class Disconnected(LinkError):
    """The camera left the USB: unplugged, powered off, or its hub was reset."""

    remedy = "Check the camera's power and its USB cable"


class TimedOut(LinkError):
    """The camera did not answer in time. `phase` names what was going on."""

    remedy = "If it happens again, power the camera off and on"

    def __init__(self, phase: str, seconds: float, remedy: str = "") -> None:
        super().__init__(f"The camera did not answer within {seconds:.1f} s during {phase}", remedy)
        self.phase = phase
        self.seconds = seconds


class ProtocolError(LinkError):
    """The camera answered something that its protocol does not allow."""

    remedy = "If it happens again, power the camera off and on"


class TransferFailed(LinkError):
    """One transfer on the USB failed, and the camera is still there. `number` is its errno, if it had one."""

    remedy = "If it happens again, try another USB cable, port or hub"

    def __init__(self, message: str, number: int | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.number = number


# Section 5 of the wire protocol: with any of these the camera goes on working. The remedies are the Guide's
# ("Camera Error Indication").
DEVICE_ERRORS: dict[int, tuple[str, str]] = {
    1: (
        "the camera is too warm (above 40 °C)",
        "Turn the fan to full, improve the air flow, or raise the set point",
    ),
    2: ("the CCD is too cold (below -40 °C)", "Raise the set point"),
    3: (
        "the supply voltage is too low (below 11 V)",
        "Check the power supply, its cable and connectors",
    ),
    4: (
        "the supply voltage is too high (above 14 V)",
        "Disconnect the supply at once and replace it: over 16 V destroys the camera",
    ),
    5: (
        "the filter wheel failed and its position is unknown",
        "Power the camera off and on; it goes on working without the wheel",
    ),
    6: (
        "the shutter failed and its state is unknown",
        "Power the camera off and on; it goes on working without the shutter",
    ),
}


class Refused(QsiError):
    """The camera carried a non-zero device error in its answer. `code` is that number (section 5)."""

    def __init__(self, command: str, code: int) -> None:
        meaning, remedy = DEVICE_ERRORS.get(code, (f"device error {code}", "Power the camera off and on"))
        super().__init__(f"The camera refused {command}: {meaning}", remedy)
        self.command = command
        self.code = code


class NotSupported(QsiError):
    """This model, or its firmware, cannot do what was asked."""


class BadArgument(QsiError, ValueError):
    """A value outside what the camera accepts; the message gives the valid range."""


class Interrupted(QsiError):
    """The program asked for something else while it waited for the camera, a disconnect for example."""

    def __init__(self) -> None:
        super().__init__("Stopped waiting for the camera, as requested")
