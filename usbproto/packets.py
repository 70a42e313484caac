# SPDX-License-Identifier: LGPL-2.1-or-later
"""One table of commands: bytes <-> typed values. Pure; no I/O, no time.

A packet is `code, N, N payload bytes` in both directions (wire protocol, section 2). Behind the fields of an
answer stands the device error, at the offset that the layout gives it. How long real answers are is not
known, so what stands behind the device error is not looked at. A host encodes requests and decodes answers, a
simulated camera does it the other way round, from the same table.

The commands that change a camera for good (0x21, 0x22, 0x61, 0x64) are not in the table, so nothing that is
built on it can send them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, cast

from usbproto.errors import BadArgument, ProtocolError, Refused

HEADER_BYTES = 2
# The vendor refuses to send when N + 4 > 128 (section 2).
MAX_PAYLOAD = 124
# An answer can be as long as its length byte says.
MAX_PACKET = HEADER_BYTES + 255
# Bytes of a link test. The vendor's reader takes 126 payload bytes at most, device error included (section
# 3.1).
MAX_BURST = 124


# --- field codecs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codec:
    """How one field of a payload stands on the wire: its size in bytes and both directions."""

    size: int
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def _integer(size: int, signed: bool = False) -> Codec:
    low = -(1 << (8 * size - 1)) if signed else 0
    high = (1 << (8 * size - int(signed))) - 1

    def pack(value: int) -> bytes:
        if not low <= value <= high:
            raise BadArgument(f"{value} does not fit a field of {low}..{high}")
        return int(value).to_bytes(size, "big", signed=signed)

    return Codec(size, pack, lambda data: int.from_bytes(data, "big", signed=signed))


def _flag(true: int) -> Codec:
    return Codec(1, lambda value: bytes((true if value else 0,)), lambda data: data[0] != 0)


def _scaled(codec: Codec, unit: float) -> Codec:
    """A physical value that the wire carries as a whole number of `unit`."""
    per_unit = 1 / unit
    return Codec(
        codec.size,
        lambda value: codec.pack(round(value * per_unit)),
        lambda data: codec.unpack(data) / per_unit,
    )


def printable(data: bytes) -> str:
    """Text up to the first zero, without blanks around it. What is not printable ASCII is shown as '?'."""
    text = data.split(b"\0", 1)[0].decode("latin-1")
    return "".join(char if " " <= char <= "~" else "?" for char in text).strip()


def _text(size: int) -> Codec:
    """Fixed length, padded with zeros or blanks."""
    return Codec(size, lambda value: value.encode("ascii", "replace")[:size].ljust(size, b"\0"), printable)


def _enum(kind: type[IntEnum]) -> Codec:
    """An enumeration. Values that the notes do not name stay plain numbers: one camera was seen to do it."""

    def unpack(data: bytes) -> int:
        try:
            return kind(data[0])
        except ValueError:
            return data[0]

    return Codec(1, lambda value: bytes((int(value) & 0xFF,)), unpack)


U8 = _integer(1)
U16 = _integer(2)
U24 = _integer(3)
I16 = _integer(2, signed=True)
FLAG = _flag(0xFF)
FLAG_ONE = _flag(1)  # SetAdvSettings only
CENTI = _scaled(I16, 0.01)  # degC
CENTI_UNSIGNED = _scaled(U16, 0.01)  # per cent, micrometres
MILLI_UNSIGNED = _scaled(U16, 0.001)  # e-/ADU


# --- payloads ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Payload:
    """The typed content of a packet: its fields in wire order, each annotated with its codec."""

    _layout: ClassVar[tuple[tuple[str, Codec], ...]] = ()

    def __init_subclass__(cls) -> None:
        annotated = ((name, getattr(hint, "__metadata__", ())) for name, hint in cls.__annotations__.items())
        cls._layout = tuple((name, codecs[0]) for name, codecs in annotated if codecs)

    def pack(self) -> bytes:
        return b"".join(codec.pack(getattr(self, name)) for name, codec in self._layout)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The fields at the head of `data`. Raises `ProtocolError` when there are too few bytes."""
        if len(data) < cls.size():
            raise ProtocolError(f"{cls.__name__} has {len(data)} payload bytes instead of {cls.size()}")
        values: dict[str, Any] = {}
        at = 0
        for name, codec in cls._layout:
            values[name] = codec.unpack(data[at : at + codec.size])
            at += codec.size
        return cls(**values)

    @classmethod
    def size(cls) -> int:
        return sum(codec.size for _, codec in cls._layout)

    @classmethod
    def split(cls, payload: bytes, request: "Payload | None") -> "Parts":
        """Takes the payload of an answer to `request` apart. Raises `ProtocolError` when it is too short."""
        return _split(payload, cls.size())


@dataclass(frozen=True, slots=True)
class Parts:
    """An answer's payload: its fields, its device error, and how many bytes it has beyond the layout."""

    fields: bytes
    error: int
    extra: int = 0


def _split(payload: bytes, size: int) -> Parts:
    if len(payload) <= size:
        raise ProtocolError(f"{len(payload)} payload bytes instead of {size + 1}")
    return Parts(payload[:size], payload[size], len(payload) - size - 1)


@dataclass(frozen=True, slots=True)
class Empty(Payload):
    """No fields (an answer still carries its device error)."""


class CameraState(IntEnum):
    """GetDeviceState, section 3.1."""

    ERROR = 0
    FILTER_MOVING = 1
    FLUSHING = 2
    WAITING_FOR_TRIGGER = 3
    DOWNLOADING = 4
    READING = 5
    EXPOSING = 6
    IDLE = 7


class CoolerState(IntEnum):
    """GetTemperature, section 3.4."""

    OFF = 0
    ON = 1
    AT_AMBIENT = 2
    GOING_TO_AMBIENT = 3
    NO_CONTROL = 4
    INITIALISING = 5
    WARMING = 6
    COOLING = 7
    BROWN_OUT = 8


class Fan(IntEnum):
    OFF = 0
    QUIET = 1
    FULL = 2


class Gain(IntEnum):
    HIGH = 0
    LOW = 1


class ShutterPriority(IntEnum):
    MECHANICAL = 0
    ELECTRONIC = 1


class AntiBlooming(IntEnum):
    NORMAL = 0
    HIGH = 1


class Flush(IntEnum):
    NONE = 0
    MODEST = 1
    NORMAL = 2
    AGGRESSIVE = 3
    VERY_AGGRESSIVE = 4


class AltMode(IntFlag):
    """AltMode1 bits, section 3.7."""

    SHUTTER_OUTPUT = 0x01
    MANUAL_SHUTTER = 0x02
    HOST_TIMED = 0x04
    OPEN_SHUTTER = 0x10
    CLOSE_SHUTTER = 0x20


class TriggerMode(IntEnum):
    """BasicHWTrigger modes, section 3.3. Add 1 to a wait for "trigger on low-to-high"."""

    OFF = 0x00
    CLEAR_ERROR = 0x01
    END_LONG_WAIT = 0x02
    SHORT_WAIT = 0x04
    SHORT_WAIT_RISING = 0x05
    LONG_WAIT = 0x06
    LONG_WAIT_RISING = 0x07


@dataclass(frozen=True, slots=True)
class DeviceState(Payload):
    state: Annotated[CameraState, _enum(CameraState)]
    shutter_open: Annotated[bool, FLAG]
    filter_moving: Annotated[bool, FLAG]


@dataclass(frozen=True, slots=True)
class DeviceDetails(Payload):
    """Section 3.2. Pixel sizes in micrometres; `columns` x `rows` are the unbinned imaging array."""

    has_camera: Annotated[bool, FLAG]
    has_shutter: Annotated[bool, FLAG]
    has_filter_wheel: Annotated[bool, FLAG]
    has_relays: Annotated[bool, FLAG]
    has_temperature_regulation: Annotated[bool, FLAG]
    columns: Annotated[int, U16]
    rows: Annotated[int, U16]
    pixel_width: Annotated[float, CENTI_UNSIGNED]
    pixel_height: Annotated[float, CENTI_UNSIGNED]
    max_bin_x: Annotated[int, U8]
    max_bin_y: Annotated[int, U8]
    asymmetric_bin: Annotated[bool, FLAG]
    power_of_two_bin: Annotated[bool, FLAG]
    rows_per_block: Annotated[int, U16]
    control_each_block: Annotated[bool, FLAG]
    filter_count: Annotated[int, U8]
    model_number: Annotated[str, _text(32)]
    model_name: Annotated[str, _text(32)]
    serial: Annotated[str, _text(16)]


@dataclass(frozen=True, slots=True)
class CcdSpecs(Payload):
    """`min_exposure_units` counts 100 us where StartExposureEx exists, else 1 ms. Maximum in seconds.

    `full_well_hundreds` is the full well in units of 100 e-.
    """

    max_adu: Annotated[int, U16]
    electrons_per_adu: Annotated[float, MILLI_UNSIGNED]
    full_well_hundreds: Annotated[int, U16]
    min_exposure_units: Annotated[int, U16]
    max_exposure: Annotated[int, U16]


class Feature(IntEnum):
    """Positions in GetFeatures, section 3.9."""

    HSR_EXPOSURE = 0
    PVI_MODE = 1
    PVI_FLAGS = 2
    LOCK_CAMERA = 3
    BASIC_HW_TRIGGER = 4


@dataclass(frozen=True, slots=True)
class Features(Payload):
    """One byte per feature, as many as the firmware knows."""

    flags: tuple[int, ...] = ()

    def pack(self) -> bytes:
        return bytes(self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(tuple(data))

    @classmethod
    def split(cls, payload: bytes, request: Payload | None) -> Parts:
        """The flags are all bytes but the last one, which is the device error; see section 3.9.

        Less than two bytes, or FF and one more, say that the command is not supported: no flags. Where the
        last byte would be an error, but the byte behind the features that are known of is 0, that one is
        taken for it, and what follows for a longer answer.
        """
        if len(payload) < 2 or (len(payload) == 2 and payload[0] == 0xFF):
            return Parts(b"", 0)
        known = len(Feature)
        if payload[-1] and len(payload) > known + 1 and payload[known] == 0:
            return _split(payload, known)
        return Parts(payload[:-1], payload[-1])

    def __contains__(self, feature: Feature) -> bool:
        return feature < len(self.flags) and self.flags[feature] == 1


@dataclass(frozen=True, slots=True)
class EepromAddress(Payload):
    address: Annotated[int, U16]


@dataclass(frozen=True, slots=True)
class Byte(Payload):
    value: Annotated[int, U8]


@dataclass(frozen=True, slots=True)
class Flag(Payload):
    value: Annotated[bool, FLAG]


@dataclass(frozen=True, slots=True)
class Burst(Payload):
    """The link test's answer: 0, 1, 2, ... `count` - 1 (modulo 256)."""

    data: bytes = b""

    def pack(self) -> bytes:
        return self.data

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(data)

    @classmethod
    def split(cls, payload: bytes, request: Payload | None) -> Parts:
        """As many bytes as were asked for; without the request, all but the last one."""
        return _split(payload, request.value if isinstance(request, Byte) else len(payload) - 1)


@dataclass(frozen=True, slots=True)
class StartExposure(Payload):
    """Duration in 10 ms; offsets and sizes in binned pixels."""

    duration_10ms: Annotated[int, U24]
    column_offset: Annotated[int, U16]
    row_offset: Annotated[int, U16]
    columns: Annotated[int, U16]
    rows: Annotated[int, U16]
    bin_y: Annotated[int, U8]
    bin_x: Annotated[int, U8]
    open_shutter: Annotated[bool, FLAG]
    fast_readout: Annotated[bool, FLAG] = False
    hold_shutter_open: Annotated[bool, FLAG] = False


@dataclass(frozen=True, slots=True)
class StartExposureEx(Payload):
    """As `StartExposure`, with a remainder in 100 us. `probe` with all else zero asks: do you know this?"""

    duration_10ms: Annotated[int, U24] = 0
    remainder_100us: Annotated[int, U8] = 0
    column_offset: Annotated[int, U16] = 0
    row_offset: Annotated[int, U16] = 0
    columns: Annotated[int, U16] = 0
    rows: Annotated[int, U16] = 0
    bin_y: Annotated[int, U16] = 0
    bin_x: Annotated[int, U16] = 0
    open_shutter: Annotated[bool, FLAG] = False
    fast_readout: Annotated[bool, FLAG] = False
    hold_shutter_open: Annotated[bool, FLAG] = False
    external_trigger: Annotated[bool, FLAG] = False
    strobe_shutter_output: Annotated[bool, FLAG] = False
    repeat_count: Annotated[int, U16] = 0
    probe: Annotated[bool, FLAG] = False


@dataclass(frozen=True, slots=True)
class Abort(Payload):
    """Two bytes of no meaning."""

    filler: Annotated[int, U16] = 0


@dataclass(frozen=True, slots=True)
class AutoZero(Payload):
    """`count` overscan pixels follow the answer when enabled; `level` in ADU."""

    enabled: Annotated[bool, FLAG]
    level: Annotated[int, U16]
    count: Annotated[int, U16]


@dataclass(frozen=True, slots=True)
class ExposureTime(Payload):
    NONE: ClassVar[int] = 0xFFFFFF
    duration_10ms: Annotated[int, U24]


@dataclass(frozen=True, slots=True)
class Trigger(Payload):
    mode: Annotated[TriggerMode, _enum(TriggerMode)]


@dataclass(frozen=True, slots=True)
class SetTemperature(Payload):
    """Set point in degC."""

    cooler_on: Annotated[bool, FLAG]
    go_to_ambient: Annotated[bool, FLAG]
    set_point: Annotated[float, CENTI]


@dataclass(frozen=True, slots=True)
class Temperature(Payload):
    """degC and per cent."""

    cooler: Annotated[CoolerState, _enum(CoolerState)]
    ccd: Annotated[float, CENTI]
    heat_sink: Annotated[float, CENTI]
    power: Annotated[float, CENTI_UNSIGNED]


@dataclass(frozen=True, slots=True)
class TemperatureEx(Payload):
    """degC and per cent."""

    cooler: Annotated[CoolerState, _enum(CoolerState)]
    ccd: Annotated[float, CENTI]
    heat_sink: Annotated[float, CENTI]
    pcb: Annotated[float, CENTI]
    power: Annotated[float, CENTI_UNSIGNED]


@dataclass(frozen=True, slots=True)
class SetPoint(Payload):
    set_point: Annotated[float, CENTI]


@dataclass(frozen=True, slots=True)
class Trim(Payload):
    trim: Annotated[int, I16]


@dataclass(frozen=True, slots=True)
class Relays(Payload):
    """Pulse lengths in 10 ms: X > 0 east, X < 0 west, Y > 0 north, Y < 0 south."""

    x: Annotated[int, I16]
    y: Annotated[int, I16]


@dataclass(frozen=True, slots=True)
class DefaultSettings(Payload):
    """For each setting: whether the camera has it, and its default."""

    has_led: Annotated[bool, FLAG]
    led: Annotated[bool, FLAG]
    has_sound: Annotated[bool, FLAG]
    sound: Annotated[bool, FLAG]
    has_fan: Annotated[bool, FLAG]
    fan: Annotated[Fan, _enum(Fan)]
    has_gain: Annotated[bool, FLAG]
    gain: Annotated[Gain, _enum(Gain)]
    has_shutter_priority: Annotated[bool, FLAG]
    shutter_priority: Annotated[ShutterPriority, _enum(ShutterPriority)]
    has_anti_blooming: Annotated[bool, FLAG]
    anti_blooming: Annotated[AntiBlooming, _enum(AntiBlooming)]
    has_flush: Annotated[bool, FLAG]
    flush: Annotated[Flush, _enum(Flush)]
    has_show_progress: Annotated[bool, FLAG]
    show_progress: Annotated[bool, FLAG]
    has_fast_readout: Annotated[bool, FLAG]
    fast_readout: Annotated[bool, FLAG]


@dataclass(frozen=True, slots=True)
class Settings(Payload):
    """SetAdvSettings. The vendor calls the last one "optimise readout speed"."""

    led: Annotated[bool, FLAG_ONE]
    sound: Annotated[bool, FLAG_ONE]
    fan: Annotated[Fan, _enum(Fan)]
    gain: Annotated[Gain, _enum(Gain)]
    shutter_priority: Annotated[ShutterPriority, _enum(ShutterPriority)]
    anti_blooming: Annotated[AntiBlooming, _enum(AntiBlooming)]
    flush: Annotated[Flush, _enum(Flush)]
    show_progress: Annotated[bool, FLAG_ONE]
    fast_readout: Annotated[bool, FLAG_ONE]


@dataclass(frozen=True, slots=True)
class AltModes(Payload):
    bits: Annotated[AltMode, Codec(1, lambda v: bytes((int(v),)), lambda d: AltMode(d[0]))]


# --- the table ---------------------------------------------------------------------------------------

Q = TypeVar("Q", bound=Payload)
R = TypeVar("R", bound=Payload)


class ReplyTime(Enum):
    """How long the vendor waits for an answer, in seconds (section 1.1)."""

    SHORT = 1.0  # probes: a camera that lacks the command stays silent
    NORMAL = 15.0  # Init too: it takes 0.6 s, and some cameras need far longer after power-up
    LONG = 20.0  # flush, shutter and filter wheel move before the camera answers


class Kind(Enum):
    """Whether a command may be repeated when it or its answer was lost on the way."""

    QUESTION = "asks only: may be asked again"
    SETTING = "brings the camera into a state: sent twice, it does no more than once"
    ORDER = "has the camera do something: sent twice, it may be done twice"


@dataclass(frozen=True, slots=True)
class Command(Generic[Q, R]):
    """One row of the table. `data_follows`: raw pixels come right behind the answer."""

    code: int
    name: str
    request: type[Q]
    response: type[R]
    kind: Kind
    reply_time: ReplyTime = ReplyTime.NORMAL
    data_follows: bool = False


_ASK, _SET, _DO = Kind.QUESTION, Kind.SETTING, Kind.ORDER
_SHORT, _LONG = ReplyTime.SHORT, ReplyTime.LONG

INIT = Command(0x4B, "Init", Empty, Empty, _ASK)
GET_DEVICE_DETAILS = Command(0x41, "GetDeviceDetails", Empty, DeviceDetails, _ASK)
GET_DEVICE_STATE = Command(0x42, "GetDeviceState", Empty, DeviceState, _ASK)
GET_CCD_SPECS = Command(0x58, "GetCCDSpecs", Empty, CcdSpecs, _ASK)
GET_FEATURES = Command(0x5C, "GetFeatures", Empty, Features, _ASK, _SHORT)
GET_EEPROM = Command(0x60, "GetEEPROM", EepromAddress, Byte, _ASK, _SHORT)
BURST_BLOCK = Command(0x65, "BurstBlock", Byte, Burst, _ASK)

START_EXPOSURE = Command(0x43, "StartExposure", StartExposure, Empty, _DO, _LONG)
START_EXPOSURE_EX = Command(0x59, "StartExposureEx", StartExposureEx, Empty, _DO, _LONG)
ABORT_EXPOSURE = Command(0x44, "AbortExposure", Abort, Empty, _SET)
TRANSFER_IMAGE = Command(0x45, "TransferImage", Empty, Empty, _DO, data_follows=True)
GET_AUTO_ZERO = Command(0x4E, "GetAutoZero", Empty, AutoZero, _DO, data_follows=True)
SET_HSR_MODE = Command(0x5E, "SetHSRMode", Flag, Empty, _SET)
HSR_EXPOSURE = Command(0x5F, "HSRExposure", StartExposureEx, AutoZero, _DO, data_follows=True)
GET_LAST_EXPOSURE_TIME = Command(0x54, "GetLastExposureTime", Empty, ExposureTime, _ASK)
CAN_ABORT_EXPOSURE = Command(0x55, "CanAbortExposure", Empty, Flag, _ASK)
CAN_STOP_EXPOSURE = Command(0x56, "CanStopExposure", Empty, Flag, _ASK)
BASIC_HW_TRIGGER = Command(0x71, "BasicHWTrigger", Trigger, Empty, _SET)

SET_TEMPERATURE = Command(0x46, "SetTemperature", SetTemperature, Empty, _SET)
GET_TEMPERATURE = Command(0x47, "GetTemperature", Empty, Temperature, _ASK)
GET_TEMPERATURE_EX = Command(0x5B, "GetTemperatureEx", Empty, TemperatureEx, _ASK)
GET_SET_POINT = Command(0x51, "GetSetPoint", Empty, SetPoint, _ASK)

SET_FILTER_WHEEL = Command(0x4A, "SetFilterWheel", Byte, Empty, _DO, _LONG)
GET_FILTER_POSITION = Command(0x57, "GetFilterPosition", Empty, Byte, _ASK)
SET_FILTER_TRIM = Command(0x5A, "SetFilterTrim", Trim, Empty, _SET)

ACTIVATE_RELAY = Command(0x48, "ActivateRelay", Relays, Empty, _DO)
IS_RELAY_DONE = Command(0x49, "IsRelayDone", Empty, Flag, _ASK)
ABORT_RELAYS = Command(0x53, "AbortRelays", Empty, Empty, _SET)

GET_DEFAULT_SETTINGS = Command(0x4C, "GetDefaultAdvDetails", Empty, DefaultSettings, _ASK)
SET_SETTINGS = Command(0x4D, "SetAdvSettings", Settings, Empty, _SET)
SET_ALT_MODE = Command(0x4F, "SetAltMode1", AltModes, Empty, _SET)
GET_ALT_MODE = Command(0x50, "GetAltMode1", Empty, AltModes, _ASK)
SET_SHUTTER = Command(0x52, "SetShutter", Flag, Empty, _SET)
GET_SHUTTER_STATE = Command(0x6A, "GetShutterState", Empty, Byte, _ASK)

COMMANDS: dict[int, Command[Any, Any]] = {
    command.code: command for command in list(globals().values()) if isinstance(command, Command)
}


# --- bytes <-> values --------------------------------------------------------------------------------


def encode_request(command: Command[Q, R], request: Q) -> bytes:
    """The packet that a host sends."""
    return _packet(command.code, request.pack())


def encode_answer(command: Command[Q, R], answer: R, error: int = 0) -> bytes:
    """The packet that a camera sends; `error` is the device error."""
    return _packet(command.code, answer.pack() + bytes((error,)), longest=255)


def encode_refusal(command: Command[Q, R], error: int) -> bytes:
    """An answer of the right length with nothing in it but the device error."""
    return _packet(command.code, bytes(command.response.size()) + bytes((error,)), longest=255)


def _packet(code: int, payload: bytes, longest: int = MAX_PAYLOAD) -> bytes:
    if len(payload) > longest:
        raise BadArgument(f"a payload of {len(payload)} bytes is longer than {longest}")
    return bytes((code, len(payload))) + payload


def packet_length(header: bytes) -> int:
    """Bytes of the whole packet, from its first two."""
    return HEADER_BYTES + header[1]


def split_answer(command: Command[Q, R], packet: bytes, request: Q | None = None) -> Parts:
    """The parts of an answer, whatever its device error.

    Raises `ProtocolError`, which names the bytes, for an answer to something else, and for one that is too
    short for its layout. `request` is what was asked; only BurstBlock's answer depends on it.
    """
    if len(packet) < HEADER_BYTES or len(packet) != packet_length(packet):
        raise ProtocolError(f"{command.name}: answer cut short ({packet.hex()})")
    if packet[0] != command.code:
        raise ProtocolError(
            f"{command.name}: the camera answered command {packet[0]:#04x} instead of {command.code:#04x} "
            f"({packet.hex()})"
        )
    try:
        return command.response.split(packet[HEADER_BYTES:], request)
    except ProtocolError as error:
        raise ProtocolError(f"{command.name}: {error} ({packet.hex()})") from None


def read_parts(command: Command[Q, R], parts: Parts) -> R:
    """The fields of an answer. Raises `Refused` when the camera set its device error."""
    if parts.error != 0:
        raise Refused(command.name, parts.error)
    return command.response.unpack(parts.fields)


def decode_answer(command: Command[Q, R], packet: bytes, request: Q | None = None) -> R:
    """The fields of an answer. Raises what `split_answer` and `read_parts` raise."""
    return read_parts(command, split_answer(command, packet, request))


def decode_request(packet: bytes) -> tuple[Command[Any, Any], Payload]:
    """What a host asked; for simulated cameras and recordings. Raises `ProtocolError`."""
    if len(packet) < HEADER_BYTES or len(packet) != packet_length(packet):
        raise ProtocolError(f"request cut short ({packet.hex()})")
    command = COMMANDS.get(packet[0])
    if command is None:
        raise ProtocolError(f"no command has the code {packet[0]:#04x}")
    payload = packet[HEADER_BYTES:]
    if len(payload) != command.request.size():
        raise ProtocolError(f"{command.name} has {len(payload)} payload bytes ({packet.hex()})")
    return command, cast(Payload, command.request.unpack(payload))
