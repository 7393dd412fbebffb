#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode across a link: one round trip a token and not one more, beside ggml-rpc-server.

Both sides generate 64 tokens from depth 0 with the same layers elsewhere, one thread a side,
through a relay each with the same delay, in turns.  llama.cpp's -ngl 20 puts the last 19 of
SmolLM2's 30 layers and the output on the server, which returns logits.  Ours has 19 layers there
too, [10, 29): the last one and the output stay here, so that no token or logit leaves.  The work
is the same, token by token; --cuts 11 mirrors llama.cpp's places.

  tokens/s   64 / the time of 64 forwards.  llama-bench makes a warm-up run first, ours a turn
  added      token time less one round trip and what the stages say that they computed: protocol,
             relay, sampling, wake-ups
Needs llama-bench and ggml-rpc-server ($MCP_LLAMA_BIN).
"""
import sys

import remote_common as common

TOKENS = 64
RATIO_BARS = {5.0: 1.9, 20.0: 1.45, 80.0: 1.15}
ADDED_BAR_MS = 1.0


def layers_there(model_layers, cuts):
    first, last = cuts if len(cuts) == 2 else (cuts[0], model_layers)
    return f"{first}-{last}"


def measure(report, args, keys, rtt, mbit):
    cuts = [int(cut) for cut in args.cuts.split(",")]
    with common.cluster.Worker(args.model, keys, "--layers", layers_there(args.layers, cuts)) as w, \
            common.cluster.Link(w.port, rtt, mbit) as here, \
            common.rpc_server(threads=1) as server, \
            common.cluster.Link(server.port, rtt, mbit) as there, \
            common.Chat(args.model, keys, "--worker", here.endpoint, "--mode", "split", "--cuts",
                        args.cuts, "--codec", args.codec, "-n", TOKENS, "-c", 512) as chat:
        chat.turn("Hello")
        ours, theirs = common.in_turns(
            args.rounds, lambda: chat.turn("Hello"),
            lambda: common.llama_bench(args.model, there.port, args.ngl, "-p", 0, "-n", TOKENS))
    windows = {answer["windows"] for answer in ours}
    if windows != {TOKENS}:
        raise common.Failed(f"{windows} windows for {TOKENS} tokens: the table would be wrong")
    spent = [answer["ttft_ms"] + common.generate_ms(answer) for answer in ours]
    here_ms = [common.compute_ms(answer, "here") / TOKENS for answer in ours]
    there_ms = [common.compute_ms(answer, "worker") / TOKENS for answer in ours]
    added = [ms / TOKENS - rtt - a - b for ms, a, b in zip(spent, here_ms, there_ms)]
    rates = [TOKENS * 1e3 / ms for ms in spent]
    ratios = [a / b for a, b in zip(rates, theirs)]
    bars = [("added_ms", "<=", ADDED_BAR_MS)]
    if rtt in RATIO_BARS and args.cuts == parser().get_default("cuts"):
        bars.append(("ratio", ">=", RATIO_BARS[rtt]))
    report.add(bars, link=f"{rtt:g} ms" + (f", {mbit:g} Mbit/s" if mbit else ""),
               rtt_ms=rtt, mbit=mbit, ours=common.median(rates), theirs=common.median(theirs),
               ratio=common.median(ratios), low=min(ratios), high=max(ratios),
               token_ms=common.median(spent) / TOKENS, here_ms=common.median(here_ms),
               there_ms=common.median(there_ms), added_ms=common.median(added))


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("--rtt", default="0,5,20,80", help="round trips in ms (default %(default)s)")
    p.add_argument("--mbit", type=float, default=0.0, help="rate of the link; 0 = unlimited")
    p.add_argument("--cuts", default="10,29", help="our cuts (default %(default)s)")
    p.add_argument("--ngl", type=int, default=20, help="theirs (default %(default)s)")
    p.add_argument("--layers", type=int, default=30, help="of the model (default %(default)s)")
    p.add_argument("--codec", default="f32", help="f32 is what theirs sends (default)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("remote_decode", args)
    report.table(f"Decode, {TOKENS} tokens, cuts {args.cuts}, codec {args.codec} / -ngl {args.ngl}",
                 [("link", "round trip", "%s"), ("ours", "ours tok/s", "%.1f"),
                  ("theirs", "llama.cpp tok/s", "%.1f"), ("ratio", "ratio", "%.2f"),
                  ("low", "least", "%.2f"), ("high", "most", "%.2f"),
                  ("token_ms", "token ms", "%.2f"), ("here_ms", "computing here ms", "%.2f"),
                  ("there_ms", "computing there ms", "%.2f"), ("added_ms", "added ms", "%.2f")])
    with common.keys_folder() as keys:
        for rtt in args.rtt.split(","):
            measure(report, args, keys, float(rtt), args.mbit)
    report.note("Bars: ratio >= 1.9 at 5 ms, 1.45 at 20 ms, 1.15 at 80 ms; added <= 1 ms.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=900))
