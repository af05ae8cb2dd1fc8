"""A provider over HTTP/2, by python-h2, that does what HTTP/2 allows it: refuses streams, goes away, takes one stream at a time, falls
silent, wants HTTP/1.1. Prints a JSON line for each connection and each request that it reads.
"""

import json
import socket
import ssl
import sys
import threading
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

ARGUMENT = json.loads(sys.argv[1])
MODE, TIMES = ARGUMENT["mode"], ARGUMENT.get("times", 1)
LOCK = threading.Lock()
SEEN = {"requests": 0}


def say(**event):
    with LOCK:
        print(json.dumps(event), flush=True)


def count():
    with LOCK:
        SEEN["requests"] += 1
        return SEEN["requests"]


class Connection:
    def __init__(self, stream, number):
        self.stream, self.number, self.leaving, self.heads = stream, number, False, {}
        self.h2 = H2Connection(config=H2Configuration(client_side=False, header_encoding="utf-8"))
        if MODE == "one-stream":
            values = {SettingCodes.MAX_CONCURRENT_STREAMS: 1, SettingCodes.MAX_HEADER_LIST_SIZE: 65536}
            self.h2.local_settings = Settings(client=False, initial_values=values)

    def serve(self):
        self.h2.initiate_connection()
        self.flush()
        while data := self.stream.recv(65536):
            if self.leaving:
                continue
            try:
                events = self.h2.receive_data(data)
            except ProtocolError as error:
                say(event="violation", what=type(error).__name__)
                self.flush()
                return
            for event in events:
                if isinstance(event, RequestReceived):
                    self.heads[event.stream_id] = dict(event.headers)
                elif isinstance(event, DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded) and not self.leaving:
                    self.request(event.stream_id)
            self.flush()

    def request(self, stream):
        number, head = count(), self.heads.pop(stream)
        say(event="request", connection=self.number, stream=stream, method=head[":method"], http=2)
        if MODE == "refuse" and number <= TIMES:
            self.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        elif MODE == "http1":
            self.h2.reset_stream(stream, ErrorCodes.HTTP_1_1_REQUIRED)
        elif MODE == "goaway-below" and number <= TIMES:
            self.leave(stream - 2 if stream > 1 else 0)
        elif MODE == "stall" and self.number == 0 and number > 1:
            pass
        else:
            if MODE == "one-stream":
                time.sleep(0.3)
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", "2")])
            self.h2.send_data(stream, b"ok", end_stream=True)
            if MODE == "goaway-each":
                self.leave(stream)

    def leave(self, last):
        self.h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=last)
        self.leaving = True
        # Whoever does not leave by itself is made to.
        self.stream.settimeout(2)

    def flush(self):
        self.stream.sendall(self.h2.data_to_send())


def http1(stream, number):
    while True:
        data = b""
        while b"\r\n\r\n" not in data:
            more = stream.recv(65536)
            if not more:
                return
            data += more
        head, rest = data.split(b"\r\n\r\n", 1)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        left = int(fields.get(b"content-length", 0)) - len(rest)
        while left > 0:
            left -= len(stream.recv(65536))
        say(event="request", connection=number, stream=0, method=head.split(b" ")[0].decode(), http=1)
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def serve(raw, number):
    try:
        stream = TLS.wrap_socket(raw, server_side=True)
        say(event="connection", number=number)
        if stream.selected_alpn_protocol() != "h2":
            http1(stream, number)
        elif MODE == "silent" and number < TIMES:
            while stream.recv(65536):
                pass
        else:
            Connection(stream, number).serve()
        stream.close()
    except OSError:
        pass


TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
TLS.load_cert_chain(ARGUMENT["cert"], ARGUMENT["key"])
TLS.set_alpn_protocols(["h2", "http/1.1"])
LISTENER = socket.create_server(("127.0.0.1", ARGUMENT["port"]), backlog=512)
NUMBER = 0
while True:
    accepted, _ = LISTENER.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted, NUMBER), daemon=True).start()
    NUMBER += 1
