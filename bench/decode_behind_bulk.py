#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode frames beside bulk on one connection: none, one way and both ways, in one run.

Windows of one position (hidden states in f32, 2.3 kB each way) go to and fro beside prefill
windows without end, over a 20 ms, 100 Mbit/s link.  One way: the worker sends nothing back, as
where only the cache grows.  Both ways: hidden states come back, as in the middle of a model.  The
model is made of one thin layer, so that the link is what all of it waits for.
"""
import sys
import tempfile

import remote_common as common

SLACK_MS = 25.0  # beyond the round trip
PART = 0.9  # of the rate, each way that bulk goes
THIN = {"layers": 3, "n_embd": 576, "heads": 2, "kv_heads": 1, "head_dim": 32, "ff": 64,
        "ctx": 2048}
LAYERS = ("1", "2")


def phases(args, keys, model):
    with common.cluster.Worker(model, keys, "--layers", "-".join(LAYERS)) as w, \
            common.cluster.Link(w.port, args.rtt, args.mbit) as link:
        return common.run_json_lines([common.bench_program("decode_behind_bulk"), str(keys),
                                      link.endpoint, model, *LAYERS, str(args.seconds)],
                                     timeout_s=60 + 4 * args.seconds)


def parser():
    p = common.parser_of(__doc__, rounds=3, model=False)
    p.add_argument("--rtt", type=float, default=20.0, help="ms (default %(default)s)")
    p.add_argument("--mbit", type=float, default=100.0, help="(default %(default)s)")
    p.add_argument("--seconds", type=int, default=5, help="of each phase (default %(default)s)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("decode_behind_bulk", args)
    with common.keys_folder() as keys, tempfile.TemporaryDirectory() as folder:
        model = common.model_made(folder, **THIN)
        rounds = [phases(args, keys, model) for _ in range(args.rounds)]
    report.table(f"A decode window beside bulk, {args.rtt:g} ms, {args.mbit:g} Mbit/s, medians of "
                 f"{args.rounds} rounds",
                 [("bulk", "bulk", "%s"), ("p50_ms", "p50 ms", "%.1f"), ("p99_ms", "p99", "%.1f"),
                  ("samples", "windows", "%d"), ("bulk_mbit", "bulk Mbit/s each way", "%.1f")])
    for rows in zip(*rounds):
        values = {key: common.median(row[key] for row in rows) for key in rows[0] if key != "bulk"}
        bars = [("p50_ms", "<=", args.rtt + SLACK_MS), ("bulk_mbit", ">=", PART * args.mbit)]
        report.add(bars if rows[0]["bulk"] != "none" else (), bulk=rows[0]["bulk"], **values)
    report.note(f"Bars: p50 <= RTT + {SLACK_MS:g} ms while each way with bulk carries >= {PART:g} "
                "of the rate.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=300))
