# SPDX-License-Identifier: MIT
"""proto/mcp/v1/compute.proto for Python, from the descriptors of the build: no generated code.

`pb.Open(...)`, `pb.ExecuteRequest(...)`; `Stub(channel)` has the calls as grpcio knows them, and
`Session` drives one Execute stream.
"""

import os
import queue
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).resolve().parent.parent.parent


def _pool():
    path = os.environ.get("MCP_DESCRIPTORS") or ROOT / "build/generated/descriptors.bin"
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(path).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool, files


class _Messages:
    """Attributes are the message classes of one package, and the values of its enums."""

    def __init__(self, pool, files, package):
        for file in files.file:
            if file.package != package:
                continue
            for message in file.message_type:
                found = pool.FindMessageTypeByName(f"{package}.{message.name}")
                setattr(self, message.name, message_factory.GetMessageClass(found))
            for enum in file.enum_type:
                for value in enum.value:
                    setattr(self, value.name, value.number)


_POOL, _FILES = _pool()
pb = _Messages(_POOL, _FILES, "mcp.v1")
health_pb = _Messages(_POOL, _FILES, "grpc.health.v1")
reflection_pb = _Messages(_POOL, _FILES, "grpc.reflection.v1")

COMPUTE = "/mcp.v1.Compute/"


class Stub:
    def __init__(self, channel):
        def unary(path, request, reply):
            return channel.unary_unary(path, request.SerializeToString, reply.FromString)

        self.Describe = unary(COMPUTE + "Describe", pb.DescribeRequest, pb.DescribeReply)
        self.Execute = channel.stream_stream(COMPUTE + "Execute", _to_bytes,
                                             pb.ExecuteReply.FromString)
        self.Watch = channel.unary_stream(COMPUTE + "Watch", pb.WatchRequest.SerializeToString,
                                          pb.WatchEvent.FromString)
        self.Probe = channel.stream_stream(COMPUTE + "Probe", pb.ProbeRequest.SerializeToString,
                                           pb.ProbeReply.FromString)
        self.Check = unary("/grpc.health.v1.Health/Check", health_pb.HealthCheckRequest,
                           health_pb.HealthCheckResponse)
        self.WatchHealth = channel.unary_stream("/grpc.health.v1.Health/Watch",
                                                health_pb.HealthCheckRequest.SerializeToString,
                                                health_pb.HealthCheckResponse.FromString)
        self.Reflect, self.ReflectAlpha = (channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb.ServerReflectionRequest.SerializeToString,
            reflection_pb.ServerReflectionResponse.FromString) for version in ("v1", "v1alpha"))


def credentials(keys, role="client"):
    """What a grpcio channel needs of a keys folder."""
    keys = Path(keys)
    return grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes(),
                                        (keys / f"{role}.key").read_bytes(),
                                        (keys / f"{role}.pem").read_bytes())


def server_credentials(keys, role="worker"):
    keys = Path(keys)
    pair = ((keys / f"{role}.key").read_bytes(), (keys / f"{role}.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], (keys / "ca.pem").read_bytes(), True)


def channel(endpoint, keys, role="client", **options):
    """A channel of its own connection, as another process would have."""
    arguments = [("grpc.use_local_subchannel_pool", 1)] + list(options.items())
    return grpc.secure_channel(endpoint, credentials(keys, role), arguments)


def _to_bytes(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


def add_servicer(server, servicer):
    """Serve `servicer` (methods Describe, Execute, Watch, Probe, those that it has).  What they
    return or yield may also be bytes, which are sent as they are."""
    kinds = {
        "Describe": (grpc.unary_unary_rpc_method_handler, pb.DescribeRequest),
        "Execute": (grpc.stream_stream_rpc_method_handler, pb.ExecuteRequest),
        "Watch": (grpc.unary_stream_rpc_method_handler, pb.WatchRequest),
        "Probe": (grpc.stream_stream_rpc_method_handler, pb.ProbeRequest),
    }
    handlers = {
        name: make(getattr(servicer, name), request.FromString, _to_bytes)
        for name, (make, request) in kinds.items() if hasattr(servicer, name)
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("mcp.v1.Compute", handlers),))


PART_BYTES = 32 << 10
CALL_S = 60  # no call of a test takes longer


class Session:
    """One Execute stream as a careful client drives it.

    Payloads leave in parts, answers are put together from theirs, and the parts of bulk answers
    are acknowledged.  Nothing runs ahead: `receive` is the only place that waits.
    """

    def __init__(self, stub, metadata=None, timeout=CALL_S):
        self.waiting = queue.SimpleQueue()
        self.call = stub.Execute(iter(self.waiting.get, None), metadata=metadata, timeout=timeout)
        self.bulk_in = 0    # payload bytes of bulk answers
        self.bulk_out = 0   # and of what was sent
        self.acked = []     # what the worker has acknowledged, ack by ack
        self.beats = []
        self.draining = None

    def send(self, **frame):
        """`send(open=pb.Open(...))`"""
        self.waiting.put(pb.ExecuteRequest(**frame))

    def send_payload(self, name, frame, data, part=PART_BYTES):
        """A Forward or ImportState with a payload, in parts."""
        frame.data, frame.data_total = data[:part], len(data)
        self.send(**{name: frame})
        for at in range(part, len(data), part):
            self.send(more=pb.More(data=data[at:at + part]))
        if name == "import_state" or frame.bulk:
            self.bulk_out += len(data)

    def end(self):
        """Half-close: no more frames."""
        self.waiting.put(None)

    def cancel(self):
        self.call.cancel()
        self.end()

    def _read(self):
        """The next frame, or None when it was an Ack, Beat or Draining."""
        reply = next(self.call)
        kind = reply.WhichOneof("frame")
        if kind == "ack":
            self.acked.append(reply.ack.bytes)
        elif kind == "beat":
            self.beats.append(reply.beat.stamp)
        elif kind == "draining":
            self.draining = reply.draining.within_ms
        else:
            return kind, getattr(reply, kind)
        return None

    def _next(self):
        while True:
            found = self._read()
            if found is not None:
                return found

    def _took(self, count):
        self.bulk_in += count
        self.send(ack=pb.Ack(bytes=self.bulk_in))

    def receive(self):
        """The next frame that is not an Ack, Beat or Draining, its payload whole."""
        kind, frame = self._next()
        if kind not in ("result", "state"):
            return frame
        bulk = kind == "state" or frame.bulk
        data = bytearray(frame.data)
        if bulk and data:
            self._took(len(data))
        while len(data) < frame.data_total:
            kind, more = self._next()
            assert kind == "more", kind
            assert more.data, "a part without bytes"
            data += more.data
            if bulk:
                self._took(len(more.data))
        assert len(data) == frame.data_total
        frame.data = bytes(data)
        return frame

    def open(self, **fields):
        self.send(open=pb.Open(**fields))
        opened = self.receive()
        assert isinstance(opened, pb.Opened), opened
        return opened

    def close(self):
        """Close, and see that the stream ends with OK behind Closed."""
        self.send(close=pb.Close())
        closed = self.receive()
        assert isinstance(closed, pb.Closed), closed
        for reply in self.call:
            raise AssertionError(f"after Closed: {reply}")
        self.end()

    def fails(self):
        """Read on until the stream ends with an error; that error."""
        try:
            while True:
                self.receive()
        except grpc.RpcError as error:
            return error
        except StopIteration:
            raise AssertionError("the stream ended with OK") from None
        finally:
            self.end()

    def beat(self):
        """Send a Beat and wait for its echo; no answer may be due."""
        stamp = 1 + len(self.beats)
        self.send(beat=pb.Beat(stamp=stamp))
        while not self.beats or self.beats[-1] != stamp:
            assert self._read() is None
