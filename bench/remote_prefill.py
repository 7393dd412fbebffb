#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prefill across a link, and a connection's first messages.

Prefill of 1024 tokens on a warm connection, against what nothing can be faster than:

    max(bytes / rate, slowest place) + RTT + first chunk

The slowest place is the worker's computing or that of all stages here, which share a thread; the
first chunk is one window's computing everywhere and its bytes there and back.  The first row is
SmolLM2, whose computing is slower than the link on a CPU; the second a model made of few, thin
layers of a 7B's width, whose link is slower than its computing.  llama.cpp prefills the same
number of tokens through the same relay for comparison; its layers are -ngl 20's.

Cold: TCP and TLS 1.3 with certificates take two round trips, the answer is there after a third;
4 MB leave a cold connection as fast as a warm one.  grpcio - grpcio does the same beside it.

Needs llama-bench and ggml-rpc-server ($MCP_LLAMA_BIN).
"""
import sys
import tempfile

import grpcio_common
import remote_common as common

PREFILL_BAR = 1.15
COLD_BAR = 1.05
COLD_MS = 10.0  # beyond the round trips: certificates are signed and checked
BULK_BYTES = 4000000
WIDE = {"layers": 3, "n_embd": 4096, "heads": 4, "kv_heads": 1, "head_dim": 64, "ff": 64,
        "ctx": 4096}
MADE_SHARED = 2  # tokens that begin every prompt in a made vocabulary
WORDS = ("the", "of", "and", "to", "in", "a", "is", "that", "for", "it")


# ---- prefill -------------------------------------------------------------------------------

def word_prompts(tokens):
    """Two lines that share no beginning, each of these words a token in most vocabularies."""
    rest = [WORDS[i % len(WORDS)] for i in range(tokens - 1)]
    return [" ".join([first] + rest) for first in ("One", "Two")]


def letter_prompts(tokens):
    """The same for a made vocabulary: each of these letters is a token."""
    return [(first + "zq" * tokens)[:tokens] for first in ("A", "B")]


def bound(answer, rtt, mbit):
    """Of a turn: ms of what it waits for all the time, its name, and ms that come on top."""
    windows = answer["plan"]["stages"][0]["windows"]
    here, there = common.compute_ms(answer, "here"), common.compute_ms(answer, "worker")
    up, down = (answer[key] * 8e-3 / mbit for key in ("bytes_out", "bytes_in"))
    slowest, name = max((here, "here"), (there, "worker"), (up, "link up"), (down, "link down"))
    return slowest, name, rtt + (here + there + up + down) / windows


def prefill(report, args, keys, model, name, cuts, prompts, peer_ngl=None):
    with common.cluster.Worker(model, keys, "--layers", "-".join(cuts)) as w, \
            common.cluster.Link(w.port, args.rtt, args.mbit) as here, \
            common.Chat(model, keys, "--worker", here.endpoint, "--cuts", ",".join(cuts),
                        "--codec", args.codec, "-n", 1, "-c", 2 * args.tokens) as chat:
        chat.turn(prompts[1])
        answers = [chat.turn(prompts[i % 2]) for i in range(args.rounds)]
    theirs = None
    if peer_ngl is not None:
        with common.rpc_server(threads=1) as server, \
                common.cluster.Link(server.port, args.rtt, args.mbit) as there:
            rate = common.llama_bench(model, there.port, peer_ngl, "-p", args.tokens, "-n", 0)
            theirs = args.tokens * 1e3 / rate
    if any(answer["prompt_cached"] > MADE_SHARED for answer in answers):
        raise common.Failed("a prompt was not computed whole: the table would be wrong")
    bounds = [bound(answer, args.rtt, args.mbit) for answer in answers]
    spent = [answer["ttft_ms"] for answer in answers]
    report.add([("ratio", "<=", PREFILL_BAR)], model=name, layers="[%s, %s)" % tuple(cuts),
               tokens=answers[0]["prompt_tokens"] - answers[0]["prompt_cached"],
               ms=common.median(spent),
               slowest_ms=common.median(b[0] for b in bounds), waits=bounds[-1][1],
               once_ms=common.median(b[2] for b in bounds),
               ratio=common.median((ms - b[2]) / b[0] for ms, b in zip(spent, bounds)),
               mbytes=answers[-1]["bytes_out"] / 1e6,
               here_ms=common.median(common.compute_ms(a, "here") for a in answers),
               there_ms=common.median(common.compute_ms(a, "worker") for a in answers),
               theirs_ms=theirs)


# ---- connections ---------------------------------------------------------------------------

def connections(report, args, keys, worker_port, grpcio_port, rtt):
    with common.cluster.Link(worker_port, rtt, args.mbit) as ours, \
            common.cluster.Link(grpcio_port, rtt, args.mbit) as theirs:
        def visit(count):
            return common.run_json_lines([common.bench_program("connect"), "--keys", str(keys),
                                   "--connect", ours.endpoint, "--rounds", "1", "--bytes",
                                   str(count)])[0]

        def peer(count):
            return grpcio_common.visit(theirs.endpoint, keys, count)

        small = common.in_turns(args.rounds, lambda: visit(64), lambda: peer(64))
        large = common.in_turns(args.rounds, lambda: visit(BULK_BYTES), lambda: peer(BULK_BYTES))
    small, large = ([{key: common.median(r[key] for r in side) for key in side[0]}
                     for side in pair] for pair in (small, large))
    cold = [large[0]["first_ms"] - large[0]["up_ms"], large[1]["first_ms"] - 2 * rtt]
    report.add([("up_ms", "<=", 2 * rtt + COLD_MS), ("first_ms", "<=", 3 * rtt + COLD_MS),
                ("cold_warm", "<=", COLD_BAR)],
               side="ours", rtt=rtt, up_ms=small[0]["up_ms"], first_ms=small[0]["first_ms"],
               first_rtt=small[0]["first_ms"] / rtt, warm_ms=small[0]["warm_ms"],
               bulk_ms=large[0]["first_ms"], bulk_warm_ms=large[0]["warm_ms"],
               cold_warm=cold[0] / large[0]["warm_ms"])
    report.add(side="grpcio", rtt=rtt, first_ms=small[1]["first_ms"],
               first_rtt=small[1]["first_ms"] / rtt, warm_ms=small[1]["warm_ms"],
               bulk_ms=large[1]["first_ms"], bulk_warm_ms=large[1]["warm_ms"],
               cold_warm=cold[1] / large[1]["warm_ms"])


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("--rtt", type=float, default=80.0, help="ms (default %(default)s)")
    p.add_argument("--mbit", type=float, default=100.0, help="(default %(default)s)")
    p.add_argument("--tokens", type=int, default=1024, help="(default %(default)s)")
    p.add_argument("--codec", default="f16", help="(default %(default)s)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("remote_prefill", args)
    with common.keys_folder() as keys, tempfile.TemporaryDirectory() as folder:
        wide = common.model_made(folder, **WIDE)
        report.table(f"Prefill of {args.tokens} tokens, {args.rtt:g} ms, {args.mbit:g} Mbit/s, "
                     f"codec {args.codec}, warm",
                     [("model", "model", "%s"), ("layers", "there", "%s"),
                      ("tokens", "tokens", "%d"), ("ms", "ms", "%.0f"),
                      ("waits", "waits for", "%s"), ("slowest_ms", "of it ms", "%.0f"),
                      ("once_ms", "RTT and first chunk ms", "%.0f"),
                      ("ratio", "rest / slowest", "%.3f"), ("mbytes", "MB up", "%.2f"),
                      ("here_ms", "computing here ms", "%.0f"),
                      ("there_ms", "computing there ms", "%.0f"),
                      ("theirs_ms", "llama.cpp ms", "%.0f")])
        prefill(report, args, keys, args.model, "given", ("10", "29"), word_prompts(args.tokens),
                peer_ngl=20)
        prefill(report, args, keys, wide, "7B's width, 3 layers", ("1", "2"),
                letter_prompts(args.tokens))

        report.table(f"A new connection, {args.mbit:g} Mbit/s; {BULK_BYTES / 1e6:g} MB cold less "
                     "the handshake, against warm",
                     [("side", "side", "%s"), ("rtt", "RTT ms", "%g"),
                      ("up_ms", "first frame out ms", "%.1f"),
                      ("first_ms", "first answer ms", "%.1f"), ("first_rtt", "in RTTs", "%.2f"),
                      ("warm_ms", "warm ms", "%.1f"), ("bulk_ms", "4 MB from the dial ms", "%.0f"),
                      ("bulk_warm_ms", "4 MB warm ms", "%.0f"),
                      ("cold_warm", "cold / warm", "%.3f")])
        server = [sys.executable, grpcio_common.__file__, str(keys)]
        with common.cluster.Worker(wide, keys) as w, common.cluster.Process(server) as s:
            for rtt in (20.0, 80.0):
                connections(report, args, keys, w.port, int(s.ready.split()[1]), rtt)
    report.note(f"Bars: what RTT and first chunk leave / slowest <= {PREFILL_BAR}; first frame <= "
                f"2 RTT + {COLD_MS:g} ms, first answer <= 3 RTT + {COLD_MS:g} ms, cold / warm <= "
                f"{COLD_BAR}.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=900))
