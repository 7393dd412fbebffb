# SPDX-License-Identifier: MIT
"""Clients of sessions.py: good ones that count, and those that a worker must survive.

    python sessions_common.py ROLE ENDPOINT KEYS CONTEXT SESSIONS SECONDS

runs one role of ROLES for so long and prints what it saw as one line of JSON.  CONTEXT and SESSIONS
are the worker's.  Each role is a process of its own, as users are: one that is killed takes no
other with it.  All but `normal` run only where nobody else wants to (SCHED_IDLE), since they share
the worker's cores here as they would not elsewhere.  The generating clients use grpc.aio, one
connection a session.
"""
import asyncio
import json
import os
import random
import sys
import time

import grpc
import grpc.aio

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "tests", "integration"))
import wire_proto  # noqa: E402  (found by the line above)
from wire_proto import pb  # noqa: E402

CALL_S = 300
OVERLOAD = 2  # batch clients a session of the worker
FLOODS = 4
STALLS = 2
RESETS = 4
RETRY_LEAST_S = 0.05


class Refused(Exception):
    """RESOURCE_EXHAUSTED; retry_ms is what it said, None when it said nothing."""

    def __init__(self, error):
        super().__init__(error.details())
        found = [value for key, value in error.trailing_metadata() or () if key == "retry-after-ms"]
        self.retry_ms = int(found[0]) if found else None


class Ended(Exception):
    """The stream ended with an error."""


def tokens_of(seed, count, vocab):
    """The same prompt for both sides; ids from the middle of a vocabulary mean text."""
    chosen = random.Random(seed)
    return [chosen.randrange(min(1000, vocab // 2), vocab) for _ in range(count)]


class Session:
    """One Execute stream on a connection of its own."""

    def __init__(self, endpoint, keys, model):
        self.model = model
        self.channel = grpc.aio.secure_channel(
            endpoint, wire_proto.credentials(keys), options=[("grpc.use_local_subchannel_pool", 1)])
        self.call = None

    async def read(self):
        """The next frame but Ack, Beat and Draining, which need no answer here."""
        while True:
            try:
                reply = await self.call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Refused(error) from None
                raise Ended(f"{error.code().name}: {error.details()}") from None
            if reply is grpc.aio.EOF:
                raise Ended("the worker ended the stream")
            kind = reply.WhichOneof("frame")
            if kind not in ("ack", "beat", "draining"):
                return getattr(reply, kind)

    async def write(self, **frame):
        try:
            await self.call.write(pb.ExecuteRequest(**frame))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.read()  # says why
            raise Ended("a write failed") from None

    async def open(self, ctx, qos="QOS_NORMAL"):
        self.call = wire_proto.Stub(self.channel).Execute(timeout=CALL_S)
        await self.write(open=pb.Open(session=os.urandom(16), model=self.model.fingerprint, first=0,
                                      last=self.model.layers, ctx_tokens=ctx,
                                      qos=getattr(pb, qos)))
        await self.read()

    async def generate(self, tokens, count):
        """Greedy tokens; seconds at which each came."""
        times = []
        await self.write(generate=pb.Generate(number=1, tokens=tokens, max_tokens=count,
                                              ignore_end=True))
        while len(times) < count:
            token = await self.read()
            times.append(time.perf_counter())
            if token.stop:
                break
        return times

    async def close(self):
        await self.write(close=pb.Close())
        await self.read()
        await self.channel.close()

    async def drop(self):
        """Without a word."""
        if self.call is not None:
            self.call.cancel()
        await self.channel.close()


def describe(endpoint, keys):
    with wire_proto.channel(endpoint, keys) as channel:
        return wire_proto.Stub(channel).Describe(pb.DescribeRequest(), timeout=30).model


# ---- roles ---------------------------------------------------------------------------------

class Role:
    def __init__(self, endpoint, keys, ctx, sessions, seconds):
        self.endpoint, self.keys, self.ctx, self.sessions = endpoint, keys, ctx, sessions
        self.until = time.monotonic() + seconds
        self.model = describe(endpoint, keys)
        self.random = random.Random(os.getpid())
        self.seen = dict.fromkeys(
            ("opened", "answers", "tokens", "refused", "without_retry", "ended", "longest_wait_s"),
            0)

    def going(self):
        return time.monotonic() < self.until

    def session(self):
        return Session(self.endpoint, self.keys, self.model)

    def prompt(self, count):
        return tokens_of(self.random.random(), count, self.model.n_vocab)

    async def attempt(self, work, patient=True):
        """One session's life; what ends it early is counted.  patient: come again when told."""
        session, wait_s = self.session(), 0.0
        try:
            await work(session)
        except Refused as error:
            self.seen["refused"] += 1
            self.seen["without_retry"] += error.retry_ms is None
            wait_s = max(RETRY_LEAST_S, (error.retry_ms or 0) / 1e3) if patient else 0.0
        except Ended as error:
            self.seen["ended"] += 1
            self.seen["last_end"] = str(error)
            wait_s = RETRY_LEAST_S
        finally:
            await session.drop()
        await asyncio.sleep(min(wait_s, max(0.0, self.until - time.monotonic())))

    async def open(self, session, qos):
        await session.open(self.ctx, qos)
        self.seen["opened"] += 1

    async def answer(self, session, qos, prompt, count):
        await self.open(session, qos)
        began = time.perf_counter()
        times = await session.generate(self.prompt(prompt), count)
        self.seen["longest_wait_s"] = max(
            self.seen["longest_wait_s"], *(b - a for a, b in zip([began, *times], times)))
        self.seen["answers"] += 1
        self.seen["tokens"] += len(times)
        await session.close()
        return times


async def normal(role):
    """One user, answer after answer: the time from token to token."""
    times_ms = []

    async def work(session):
        times = await role.answer(session, "QOS_NORMAL", 32, 128)
        times_ms.extend((b - a) * 1e3 for a, b in zip(times, times[1:]))

    while role.going():
        await role.attempt(work)
    role.seen["times_ms"] = [round(ms, 2) for ms in times_ms]


async def batch(role, count):
    """Twice as many batch clients as there are sessions, all the time."""
    async def client():
        async def work(session):
            await role.answer(session, "QOS_BATCH", role.random.randrange(16, 64),
                              role.random.randrange(16, 64))

        while role.going():
            await role.attempt(work)

    await asyncio.gather(*(client() for _ in range(count)))


async def flood(role):
    """Open and leave, as fast as it goes, whatever the worker says."""
    async def work(session):
        await role.open(session, "QOS_BATCH")

    async def client():
        while role.going():
            await role.attempt(work, patient=False)

    await asyncio.gather(*(client() for _ in range(FLOODS)))


async def stall(role):
    """Ask for logits by the megabyte and never read them."""
    count = 16
    vocab = role.model.n_vocab

    async def work(session):
        await role.open(session, "QOS_BATCH")
        for epoch in range(1 << 20):
            for number in range(role.ctx // count):
                if not role.going():
                    return
                forward = pb.Forward(number=1 + epoch * role.ctx + number, epoch=epoch,
                                     pos=number * count, count=count,
                                     tokens=tokens_of(number, count, vocab), want=pb.WANT_LOGITS)
                await asyncio.wait_for(session.write(forward=forward), 5)
                await asyncio.sleep(0.1)
            await session.write(trim=pb.Trim(epoch=epoch + 1, pos=0))

    async def client():
        while role.going():
            try:
                await role.attempt(work)
            except asyncio.TimeoutError:
                pass  # not read, and so not written any more

    await asyncio.gather(*(client() for _ in range(STALLS)))


async def generate(role, count):
    """Sessions that are at work when their process or their connection ends."""
    async def client():
        async def work(session):
            await role.answer(session, "QOS_BATCH", 32, 256)

        while role.going():
            await role.attempt(work)

    await asyncio.gather(*(client() for _ in range(count)))


ROLES = {
    "normal": normal,
    "batch": lambda role: batch(role, OVERLOAD * role.sessions),
    "flood": flood,
    "stall": stall,
    "generate": lambda role: generate(role, RESETS),
}


def main():
    name, endpoint, keys, ctx, sessions, seconds = sys.argv[1:]
    if name != "normal":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    role = Role(endpoint, keys, int(ctx), int(sessions), float(seconds))
    asyncio.run(ROLES[name](role))
    print(json.dumps(role.seen))


if __name__ == "__main__":
    main()
