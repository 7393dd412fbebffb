#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode across a link: one round trip a token and not one more, beside ggml-rpc-server.

Both sides generate 64 tokens from depth 0 with as many layers elsewhere, one thread a side,
through a relay each with the same delay and rate, in turns.  llama.cpp's -ngl 20 counts the output
as a layer: it puts SmolLM2's last 19 of 30 layers and the output on the server, which returns
logits, 196 KB a token.  Ours has 19 layers there too, [10, 29): the last one and the output stay
here, so that tokens and logits do, and a hidden state of 2.3 KB goes and comes.  What is computed
for a token is the same, on one side or the other.

Without a limit on the rate both need one round trip a token, and no more than par can be expected;
at 100 Mbit/s the logits alone take 16 ms, and there the larger bars hold.

  tokens/s   64 / the time of 64 forwards, after a run (theirs) or a turn (ours) to warm up
  added      token time less one round trip and what the stages say that they computed: protocol,
             relay, transmission, sampling, wake-ups
Needs llama-bench and ggml-rpc-server ($MCP_LLAMA_BIN).
"""
import sys

import remote_common as common

TOKENS = 64
RATIO_BARS = {5.0: 1.9, 20.0: 1.45, 80.0: 1.15}  # where the rate is limited, else
PAR = 1.0
ADDED_BAR_MS = 1.0


def run_both(args, keys, rtt, mbit):
    """Our answers, and their tokens/s; one of each a round."""
    layers = args.cuts.replace(",", "-")
    with common.cluster.Worker(args.model, keys, "--layers", layers) as worker, \
            common.cluster.Link(worker.port, rtt, mbit) as here, \
            common.rpc_server(threads=1) as server, \
            common.cluster.Link(server.port, rtt, mbit) as there, \
            common.Chat(args.model, keys, "--worker", here.endpoint, "--cuts", args.cuts,
                        "--codec", args.codec, "--spec", "none", "-n", TOKENS, "-c", 512) as chat:
        chat.turn("Hello")
        return common.in_turns(
            args.rounds, lambda: chat.turn("Hello"),
            lambda: common.llama_bench(args.model, there.port, args.ngl, "-p", 0, "-n", TOKENS))


def measure(report, args, keys, rtt, mbit):
    ours, theirs = run_both(args, keys, rtt, mbit)
    windows = {answer["windows"] for answer in ours}
    if windows != {TOKENS}:
        raise common.Failed(f"{windows} windows for {TOKENS} tokens: the table would be wrong")
    token_ms = [(answer["ttft_ms"] + common.generate_ms(answer)) / TOKENS for answer in ours]
    here_ms = [common.compute_ms(answer, "here") / TOKENS for answer in ours]
    there_ms = [common.compute_ms(answer, "worker") / TOKENS for answer in ours]
    added_ms = [ms - rtt - a - b for ms, a, b in zip(token_ms, here_ms, there_ms)]
    ratios = [1e3 / ms / rate for ms, rate in zip(token_ms, theirs)]
    bars = [("added_ms", "<=", ADDED_BAR_MS),
            ("ratio", ">=", RATIO_BARS.get(rtt, PAR) if mbit else PAR)]
    report.add(bars, rtt=rtt, rate=f"{mbit:g} Mbit/s" if mbit else "unlimited",
               ours=1e3 / common.median(token_ms), theirs=common.median(theirs),
               ratio=common.median(ratios), low=min(ratios), high=max(ratios),
               token_ms=common.median(token_ms), here_ms=common.median(here_ms),
               there_ms=common.median(there_ms), added_ms=common.median(added_ms))


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("--rtt", type=common.numbers, default="0,5,20,80",
                   help="round trips in ms (default %(default)s)")
    p.add_argument("--mbit", type=common.numbers, default="0,100",
                   help="rates of the link, 0 = unlimited (default %(default)s)")
    p.add_argument("--cuts", default="10,29", help="ours (default %(default)s)")
    p.add_argument("--ngl", type=int, default=20, help="theirs (default %(default)s)")
    p.add_argument("--codec", default="f32", help="ours; f32, as theirs, unless given")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("remote_decode", args)
    report.table(f"Decode, {TOKENS} tokens, cuts {args.cuts}, codec {args.codec} / -ngl {args.ngl}",
                 [("rtt", "RTT ms", "%g"), ("rate", "rate", "%s"), ("ours", "ours tok/s", "%.1f"),
                  ("theirs", "llama.cpp tok/s", "%.1f"), ("ratio", "ratio", "%.2f"),
                  ("low", "least", "%.2f"), ("high", "most", "%.2f"),
                  ("token_ms", "our token ms", "%.2f"), ("here_ms", "computing here ms", "%.2f"),
                  ("there_ms", "computing there ms", "%.2f"), ("added_ms", "added ms", "%.2f")])
    with common.keys_folder() as keys:
        for rtt in args.rtt:
            for mbit in args.mbit:
                measure(report, args, keys, rtt, mbit)
    report.note("Bars: ratio >= " + ", ".join(f"{bar:g} at {rtt:g} ms"
                                              for rtt, bar in RATIO_BARS.items())
                + f" where the rate is limited, else {PAR:g}; added <= {ADDED_BAR_MS:g} ms.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=900))
