#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode frames behind a bulk prefill on one connection, over a 20 ms, 100 Mbit/s link.

The worker holds one layer, so that the link is the bottleneck.  Bar: p50 of a decode window at
most the round trip + 25 ms while the bulk has at least 90 % of the rate.  The figure without
pacing, from the same link, is that of one bulk message of 1 MB windows in docs/protocol.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))
import cluster  # noqa: E402

LAYERS = (14, 15)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=20.0)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--json")
    args = parser.parse_args()
    model = os.environ["MCP_MODEL_SMOLLM2"]
    program = Path(os.environ["MCP_BIN"]).parent.parent / "bench/decode_behind_bulk"
    with tempfile.TemporaryDirectory() as folder:
        keys = cluster.make_keys(Path(folder) / "keys")
        with cluster.Worker(model, keys, "--layers", "%d-%d" % LAYERS, "-c", 2048) as worker, \
                cluster.Link(worker.port, args.rtt, args.mbit) as link:
            done = subprocess.run([program, keys, link.endpoint, model, *map(str, LAYERS),
                                   str(args.seconds)], text=True, capture_output=True, check=True,
                                  timeout=120 + args.seconds)
    row = json.loads(done.stdout)
    bar = args.rtt + 25.0
    fits = row["behind_p50_ms"] <= bar and row["bulk_mbit"] >= 0.9 * args.mbit
    print("| decode window | p50 ms | p99 ms | bulk Mbit/s |\n| --- | --- | --- | --- |")
    print(f"| alone | {row['alone_p50_ms']:.1f} | {row['alone_p99_ms']:.1f} | - |")
    print(f"| behind bulk | {row['behind_p50_ms']:.1f} | {row['behind_p99_ms']:.1f} | "
          f"{row['bulk_mbit']:.1f} |")
    print(f"\nbar: p50 <= {bar:.0f} ms at >= {0.9 * args.mbit:.0f} Mbit/s: "
          f"{'met' if fits else 'MISSED'}")
    if args.json:
        Path(args.json).write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
