# SPDX-License-Identifier: MIT
"""grpcio as the peer: a server of its own process, and what a client of it costs.

Messages are plain bytes, without protobuf, as bench/rpc.c has them; TLS 1.3 and certificates both
ways from the same keys folder.  The server uses grpc.aio, which carries three times the messages
of the threaded one; of the client both kinds are here, since each is the faster one at times.

    python grpcio_common.py KEYS       prints "ready PORT" and serves until standard input ends
"""
import asyncio
import os
import queue
import sys
import time

import grpc
import grpc.aio

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "tests", "integration"))
import wire_proto  # noqa: E402  (found by the line above)

ECHO, SINK = "/bench.Rpc/Echo", "/bench.Rpc/Sink"
OPTIONS = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
TIMEOUT_S = 60


def handler(reply):
    async def run(_, call):
        while True:
            message = await call.read()
            if message is grpc.aio.EOF:
                return
            await call.write(reply(message))
    return grpc.stream_stream_rpc_method_handler(run)


async def serve(keys):
    """Echo returns each message, Sink an empty one."""
    server = grpc.aio.server(options=list(OPTIONS.items()))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Rpc", {
        "Echo": handler(lambda message: message), "Sink": handler(lambda _: b"")}),))
    port = server.add_secure_port("127.0.0.1:0", wire_proto.server_credentials(keys))
    await server.start()
    print(f"ready {port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


class Call:
    """One stream; `send` and `receive` in turns."""

    def __init__(self, channel, path):
        self.waiting = queue.SimpleQueue()
        self.call = channel.stream_stream(path)(iter(self.waiting.get, None), timeout=TIMEOUT_S)
        self.send = self.waiting.put

    def receive(self):
        return next(self.call)

    def end(self):
        self.waiting.put(None)
        for _ in self.call:
            pass


def sync_round_trips(endpoint, keys, count, rounds, warm_up):
    with wire_proto.channel(endpoint, keys, **OPTIONS) as channel:
        call, message, times = Call(channel, ECHO), bytes(count), []
        for i in range(rounds + warm_up):
            began = time.perf_counter()
            call.send(message)
            call.receive()
            if i >= warm_up:
                times.append((time.perf_counter() - began) * 1e6)
        call.end()
    return times


async def aio_round_trips(endpoint, keys, count, rounds, warm_up):
    async with grpc.aio.secure_channel(endpoint, wire_proto.credentials(keys),
                                       options=list(OPTIONS.items())) as channel:
        call, message, times = channel.stream_stream(ECHO)(timeout=TIMEOUT_S), bytes(count), []
        for i in range(rounds + warm_up):
            began = time.perf_counter()
            await call.write(message)
            await call.read()
            if i >= warm_up:
                times.append((time.perf_counter() - began) * 1e6)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    return times


def round_trips(api, *arguments):
    """Microseconds of each; api is "sync" or "aio"."""
    if api == "sync":
        return sync_round_trips(*arguments)
    return asyncio.run(aio_round_trips(*arguments))


def visit(endpoint, keys, count):
    """bench/connect.c's round: ms from a new channel to the first answer, and of a second one."""
    with wire_proto.channel(endpoint, keys, **OPTIONS) as channel:
        message, began = bytes(count), time.perf_counter()
        call = Call(channel, SINK)
        call.send(message)
        call.receive()
        first = (time.perf_counter() - began) * 1e3
        began = time.perf_counter()
        call.send(message)
        call.receive()
        warm = (time.perf_counter() - began) * 1e3
        call.end()
    return {"first_ms": first, "warm_ms": warm}


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
