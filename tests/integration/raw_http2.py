# SPDX-License-Identifier: MIT
"""HTTP/2 frame by frame over TLS, for peers that do not keep to it."""

import socket
import ssl
import struct
import time

import hpack
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame,
                              RstStreamFrame, SettingsFrame, WindowUpdateFrame)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WAIT_S = 10


def context(keys, role="client"):
    made = ssl.create_default_context(cafile=keys / "ca.pem")
    made.load_cert_chain(keys / f"{role}.pem", keys / f"{role}.key")
    made.set_alpn_protocols(["h2"])
    return made


def message(data, flag=0, size=None):
    """A gRPC message; `size` is what its head says when that is a lie."""
    return struct.pack(">BI", flag, len(data) if size is None else size) + data


def frame(kind, flags, stream, payload=b""):
    """Any frame at all."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Ended(Exception):
    """The worker has ended the connection: text says how."""


class Raw:
    """A connection with a client's certificate.  What the worker sends is read when something is
    waited for, and only then, if `greedy` is False."""

    def __init__(self, port, keys, settings=None, hello=True):
        raw = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context(keys).wrap_socket(raw, server_hostname="localhost")
        self.coder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.unparsed = b""
        self.next_stream = 1
        self.headers = {}  # of each stream, response headers and trailers together
        self.data = {}
        self.over = {}     # stream: how it ended
        self.goaway = None
        if hello:
            self.send(PREFACE, SettingsFrame(0, settings=settings or {}).serialize())

    def close(self):
        self.tls.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- out -------------------------------------------------------------------------------

    def send(self, *frames):
        try:
            self.tls.sendall(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))
        except (OSError, ssl.SSLError) as error:
            raise Ended(str(error)) from None

    def stream(self):
        self.next_stream += 2
        return self.next_stream - 2

    def block(self, path, *more):
        return self.coder.encode([(":method", "POST"), (":scheme", "https"), (":path", path),
                                  (":authority", "localhost"), ("te", "trailers"),
                                  ("content-type", "application/grpc"), *more])

    def call(self, path, *messages, end=False, more=()):
        """Begin a call: HEADERS and whole DATA."""
        stream = self.stream()
        self.send(HeadersFrame(stream, self.block(path, *more), flags=["END_HEADERS"]))
        if messages or end:
            self.data_frame(stream, b"".join(messages), end)
        return stream

    def data_frame(self, stream, data, end=False):
        parts = [data[i:i + 16384] for i in range(0, len(data), 16384)] or [b""]
        self.send(*[DataFrame(stream, part, flags=["END_STREAM"] if end and i == len(parts) - 1
                              else []) for i, part in enumerate(parts)])

    # ---- in --------------------------------------------------------------------------------

    def _take(self, found):
        stream = found.stream_id
        if isinstance(found, (HeadersFrame, ContinuationFrame)):
            self.headers.setdefault(stream, {}).update(self.decoder.decode(found.data))
        elif isinstance(found, DataFrame):
            self.data[stream] = self.data.get(stream, b"") + found.data
        elif isinstance(found, RstStreamFrame):
            self.over.setdefault(stream, f"reset {found.error_code}")
        elif isinstance(found, GoAwayFrame):
            self.goaway = found.error_code, found.additional_data
        elif isinstance(found, SettingsFrame) and "ACK" not in found.flags:
            self.send(SettingsFrame(0, flags=["ACK"]))
        if "END_STREAM" in found.flags:
            self.over.setdefault(stream, "trailers")

    def read(self, timeout_s=WAIT_S):
        """One turn of reading.  Ended when the worker has hung up."""
        self.tls.settimeout(timeout_s)
        try:
            more = self.tls.recv(65536)
        except TimeoutError:
            raise
        except (OSError, ssl.SSLError) as error:
            raise Ended(f"{error}; GOAWAY {self.goaway}") from None
        finally:
            self.tls.settimeout(WAIT_S)
        if not more:
            raise Ended(f"closed; GOAWAY {self.goaway}")
        self.unparsed += more
        while len(self.unparsed) >= 9:
            found, size = Frame.parse_frame_header(memoryview(self.unparsed[:9]))
            if len(self.unparsed) < 9 + size:
                break
            found.parse_body(memoryview(self.unparsed[9:9 + size]))
            self.unparsed = self.unparsed[9 + size:]
            self._take(found)

    def status(self, stream, timeout_s=WAIT_S):
        """How the call ends: its grpc-status as an int, or "reset N"."""
        end = time.monotonic() + timeout_s
        while stream not in self.over:
            self.read(max(0.01, end - time.monotonic()))
        if self.over[stream] != "trailers":
            code = self.headers.get(stream, {}).get("grpc-status")
            return int(code) if code is not None else self.over[stream]
        return int(self.headers[stream]["grpc-status"])

    def sentence(self, stream):
        return self.headers[stream].get("grpc-message", "")

    def wait_for_end(self, timeout_s=WAIT_S):
        """Read until the worker ends the connection; seconds that it took."""
        began = time.monotonic()
        while True:
            left = timeout_s - (time.monotonic() - began)
            if left <= 0:
                raise TimeoutError(f"still open after {timeout_s} s")
            try:
                self.read(left)
            except Ended:
                return time.monotonic() - began

    def window(self, stream, bytes_more):
        self.send(WindowUpdateFrame(stream, bytes_more))
