# SPDX-License-Identifier: MIT
"""A worker made of gRPC's own Python server: it speaks to agents as proto/mcp/v1/compute.proto
says, and has a real worker compute.  Its manners can be changed, call by call."""

from concurrent import futures

import grpc
from wire_proto import add_servicer, pb, server_credentials


class Double:
    """Listens on `endpoint`; frames go to `upstream` (a Stub) and come back.

    Subclasses change what the agent sees: `describe`, `reply` (one frame of an Execute, to a list
    of them), `began` (an Execute begins).
    """

    def __init__(self, upstream, keys):
        self.upstream = upstream
        self.executes = 0
        self.replies = 0  # frames passed back, all streams
        self.metadata = []
        self.server = grpc.server(futures.ThreadPoolExecutor(64))
        add_servicer(self.server, self)
        port = self.server.add_secure_port("127.0.0.1:0", server_credentials(keys))
        self.endpoint = f"127.0.0.1:{port}"
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait(10)

    # ---- manners ---------------------------------------------------------------------------

    def describe(self, reply):
        return reply

    def began(self, context):
        pass

    def reply(self, reply, context):
        return [reply]

    # ---- calls -----------------------------------------------------------------------------

    def Describe(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        return self.describe(self.upstream.Describe(request, timeout=20))

    def Watch(self, request, context):
        call = self.upstream.Watch(request, timeout=120)
        context.add_callback(call.cancel)
        try:
            yield from call
        except grpc.RpcError:
            pass

    def Probe(self, requests, context):
        for request in requests:
            yield pb.ProbeReply(stamp=request.stamp, data=bytes(request.reply_bytes))

    def Execute(self, requests, context):
        self.executes += 1
        self.began(context)
        call = self.upstream.Execute(requests, timeout=120)
        context.add_callback(call.cancel)
        try:
            for reply in call:
                for changed in self.reply(reply, context):
                    self.replies += 1
                    yield changed
        except grpc.RpcError as error:
            if context.is_active():
                context.set_trailing_metadata(call.trailing_metadata())
                context.abort(error.code(), error.details())
        finally:
            call.cancel()
