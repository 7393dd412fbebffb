#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The transport by itself: our gRPC beside grpcio's, over loopback with TLS 1.3 both ways.

Round trip: one stream, one message at a time, client and server a process each, from send to
receipt.  In each round ours (bench/rpc.c), grpcio's two clients (asyncio and threads, the better
one counts) and ours through an Envoy that ends TLS (deploy/envoy/terminate.yaml) take their turn.
Idle cores of a virtual machine cost tens of microseconds a wake-up, for all sides alike; on a
busy machine, whose cores are awake, all are faster and the ratio is another.

Pipelined: 16 streams a connection, 8 messages in flight on each, as many connections and client
threads as server threads.  Messages a second of a server's core count its CPU time alone; where
client and server share too few cores the wall clock says less.  grpcio's server gets the same load
from our client, so that its own client does not hold it back.

Needs the tests' Python environment (grpcio, envoy); without Envoy its columns stay empty.
"""
import os
import sys
import tempfile
from pathlib import Path

import grpcio_common
import remote_common as common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "interop"))
import edge  # noqa: E402  (found by the line above)

SIZES = (64, 4096, 8192)
BARRED = (4096, 8192)
P50_BAR, P99_BAR, EDGE_BAR_US = 0.3, 0.4, 250.0
CORE_BAR, FOUR_BAR = 400e3, 1e6
WARM_UP = 200
STREAMS, DEPTH = 16, 8
WARM_S = 0.35  # bench/rpc.c's load before and after the seconds that it counts


def rpc(keys, *arguments):
    """Rows of bench/rpc.c by (row, bytes)."""
    rows = common.run_json_lines([common.bench_program("rpc"), "--keys", str(keys),
                                  "--streams", str(STREAMS), "--depth", str(DEPTH), "--bytes",
                                  ",".join(map(str, SIZES)), *map(str, arguments)])
    return {(row["row"], row["bytes"]): row for row in rows}


class Server(common.cluster.Process):
    """A process with its port in the first line; its CPU time."""

    def __init__(self, command):
        super().__init__(command)
        self.endpoint = f"127.0.0.1:{''.join(filter(str.isdigit, self.ready.rpartition(':')[2]))}"

    def cpu_s(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def our_server(keys):
    return Server([common.bench_program("rpc"), "--keys", str(keys), "--role", "server"])


def grpcio_server(keys):
    return Server([sys.executable, grpcio_common.__file__, str(keys)])


def open_edge(report, keys, port, folder):
    """An Envoy before that port, or None with a note."""
    if not os.path.exists(os.path.join(os.path.dirname(sys.executable), "envoy")):
        report.note("No envoy beside this Python: its columns stay empty.")
        return None
    return edge.Edge("terminate.yaml", port, edge.edge_keys(keys, Path(folder)))


# ---- round trips ---------------------------------------------------------------------------

def our_round_trips(keys, endpoint, count):
    rows = rpc(keys, "--role", "client", "--connect", endpoint, "--rounds", count, "--seconds", 1)
    return {size: (rows["round_trip", size]["p50_us"], rows["round_trip", size]["p99_us"])
            for size in SIZES}


def their_round_trips(api, keys, endpoint, count):
    found = {}
    for size in SIZES:
        times = grpcio_common.round_trips(api, endpoint, keys, size, count, WARM_UP)
        found[size] = common.percentile(times, 50), common.percentile(times, 99)
    return found


def round_trips(report, args, keys, folder):
    report.table(f"Round trip, one stream, {args.rounds} rounds of {args.messages} messages, us",
                 [("bytes", "bytes", "%d"), ("p50", "ours p50", "%.0f"), ("p99", "p99", "%.0f"),
                  ("peer_p50", "grpcio p50", "%.0f"), ("peer_p99", "p99", "%.0f"),
                  ("ratio_p50", "p50 ratio", "%.3f"), ("ratio_p99", "p99 ratio", "%.3f"),
                  ("api", "its client", "%s"), ("edge_p50", "ours through Envoy p50", "%.0f"),
                  ("edge_p99", "p99", "%.0f"), ("added", "added p50", "%.0f")])
    with our_server(keys) as ours, grpcio_server(keys) as theirs:
        envoy = open_edge(report, keys, int(ours.endpoint.rpartition(":")[2]), folder)
        turns = {
            "ours": lambda: our_round_trips(keys, ours.endpoint, args.messages),
            "asyncio": lambda: their_round_trips("aio", keys, theirs.endpoint, args.messages),
            "threads": lambda: their_round_trips("sync", keys, theirs.endpoint, args.messages),
        }
        if envoy is not None:
            turns["edge"] = lambda: our_round_trips(keys, envoy.endpoint, args.messages)
        found = {name: [] for name in turns}
        try:
            for i in range(args.rounds):
                for name in (list(turns) if i % 2 == 0 else list(turns)[::-1]):
                    found[name].append(turns[name]())
        finally:
            if envoy is not None:
                envoy.stop()
    for size in SIZES:
        round_trip_row(report, size, {name: [turn[size] for turn in side]
                                      for name, side in found.items()})


def round_trip_row(report, size, found):
    """found: of each side, (p50, p99) of each round."""
    p50, p99 = ({name: common.median(turn[i] for turn in side) for name, side in found.items()}
                for i in (0, 1))
    api = min(("asyncio", "threads"), key=p50.get)
    ratios = [common.median(a[i] / b[i] for a, b in zip(found["ours"], found[api]))
              for i in (0, 1)]
    values = dict(bytes=size, p50=p50["ours"], p99=p99["ours"], peer_p50=p50[api],
                  peer_p99=p99[api], api=api, ratio_p50=ratios[0], ratio_p99=ratios[1])
    bars = [("ratio_p50", "<=", P50_BAR), ("ratio_p99", "<=", P99_BAR)] if size in BARRED else []
    if "edge" in found:
        values.update(edge_p50=p50["edge"], edge_p99=p99["edge"],
                      added=common.median(a[0] - b[0]
                                          for a, b in zip(found["edge"], found["ours"])))
        if size in BARRED:
            bars.append(("edge_p50", "<=", EDGE_BAR_US))
    report.add(bars, **values)


# ---- pipelined -----------------------------------------------------------------------------

def pipelined(report, args, keys):
    report.table(f"Pipelined, {STREAMS} streams a connection, {DEPTH} in flight on each",
                 [("side", "server", "%s"), ("threads", "threads", "%d"), ("bytes", "bytes", "%d"),
                  ("rate", "messages/s", "%.0f"), ("core", "messages/s of a core", "%.0f"),
                  ("server_us", "server CPU us", "%.2f"), ("client_us", "client CPU us", "%.2f"),
                  ("wire", "bytes on the wire, both ways", "%.0f")])
    cores = len(os.sched_getaffinity(0))
    for threads in args.threads:
        rows = rpc(keys, "--threads", threads, "--connections", threads, "--client-threads",
                   threads, "--rounds", 10, "--seconds", args.seconds)
        for size in SIZES:
            row = rows["pipelined", size]
            bars = []
            if size == 64 and threads == 1:
                bars.append(("core", ">=", CORE_BAR))
            if size == 64 and threads == 4 and cores >= 8:  # the clients need as many
                bars.append(("rate", ">=", FOUR_BAR))
            report.add(bars, side="ours", threads=threads, bytes=size, rate=row["messages_per_s"],
                       core=row["messages_per_server_core_s"], server_us=row["server_cpu_us"],
                       client_us=row["client_cpu_us"], wire=row["wire_bytes"])
    with grpcio_server(keys) as theirs:
        for size in SIZES:
            busy = theirs.cpu_s()
            rows = common.run_json_lines(
                [common.bench_program("rpc"), "--keys", str(keys), "--role", "client", "--connect",
                 theirs.endpoint, "--streams", str(STREAMS), "--depth", str(DEPTH), "--bytes",
                 str(size), "--rounds", "10", "--seconds", str(args.seconds)])
            row = next(row for row in rows if row["row"] == "pipelined")
            us = (theirs.cpu_s() - busy) * 1e6 / (row["messages_per_s"] * (args.seconds + WARM_S))
            report.add(side="grpcio", threads=1, bytes=size, rate=row["messages_per_s"],
                       core=1e6 / us, server_us=us, client_us=row["client_cpu_us"],
                       wire=row["wire_bytes"])


def parser():
    p = common.parser_of(__doc__, rounds=5, model=False)
    p.add_argument("--messages", type=int, default=2000, help="a round (default %(default)s)")
    p.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")],
                   default=[1, 4], help="of our server (default 1,4)")
    p.add_argument("--seconds", type=int, default=3,
                   help="of a pipelined row (default %(default)s)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("rpc", args)
    with common.keys_folder() as keys, tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder:
        round_trips(report, args, keys, folder)
        pipelined(report, args, keys)
    if max(args.threads) * 2 > len(os.sched_getaffinity(0)):
        report.note(f"This machine has {len(os.sched_getaffinity(0))} cores for both sides: rows "
                    "with more threads than half of them say what it has, not what they can.")
    report.note(f"Bars: 4 and 8 KB p50 <= {P50_BAR:g} and p99 <= {P99_BAR:g} of grpcio's, through "
                f"Envoy p50 <= {EDGE_BAR_US:g} us; 64 B >= {CORE_BAR:.0f} a server core, >= "
                f"{FOUR_BAR:.0f} with 4 threads on 8 cores or more.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=900))
