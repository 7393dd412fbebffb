#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Speculation over distance: tokens/s of a split model with guesses, beside one token a round trip.

SmolLM2's middle layers are behind a relay; the first and the last stay here, so that tokens and
logits do.  Greedy answers of 128 tokens to three texts: one to continue, one full of
quotations, a code edit.  Each row's text must equal that of `--spec none`.

  none           one token a round trip: today's plain decoding
  wait 4, 8, 16  n-gram guesses, one window of so many in flight: stop and wait
  auto           n-gram guesses, depth and windows chosen as text goes: what `mcp run` does
  synth 0.9      as auto, but each guess is right with probability 0.9, as a good draft model's is
  draft          guesses by a draft model: the model's own weights with noise, which agree with it
                 on nine tokens of ten.  It is as large as the model, so it takes as long a token as
                 the whole model does here; a real one is several times faster
  draft+ngram    both, as `mcp run -md FILE` does

  tokens/s     after the first token; median of the rounds, which take the rows in turns
  ratio        to none
  acceptance   guesses that were right, of those that were compared: not behind a wrong one
  a round trip tokens that came in the time of one round trip
  drafting     the draft model's time on this machine, for each token of the answer

One thread a side on this machine: where acceptance is low, what guesses cost is this machine's
compute, which a GPU as worker would not notice.
"""
import os
import subprocess
import sys
import tempfile

import remote_common as common
from plan_common import TEXTS

TOKENS = 128
AUTO_BARS = {"continued": 1.6, "quotation": 2.5, "code edit": 2.5}
SYNTH_BAR = 6.0
DEPTH_4_BAR, BEST_DEPTH_BAR, FROM_ACCEPTANCE = 1.3, 1.05, 0.7
BARRED_RTT = 80.0

WAYS = {
    "none": ("--spec", "none"),
    "wait 4": ("--spec", "ngram", "--spec-depth", 4, "--spec-windows", 1),
    "wait 8": ("--spec", "ngram", "--spec-depth", 8, "--spec-windows", 1),
    "wait 16": ("--spec", "ngram", "--spec-depth", 16, "--spec-windows", 1),
    "auto": ("--spec", "auto"),
    "synth 0.9": ("--spec", "auto", "--spec-synth", 0.9),
    "draft": ("--spec", "draft"),
    "draft+ngram": ("--spec", "auto"),
}


def make_draft(args, folder):
    """The path of the draft model."""
    if args.draft is not None:
        return args.draft
    path = os.path.join(folder, "draft.gguf")
    done = subprocess.run([common.cluster.synth_program(), "--from", args.model, "--noise",
                           str(args.noise), "-o", path], text=True, capture_output=True,
                          check=False)
    if done.returncode != 0:
        raise common.Failed(done.stderr.strip())
    return path


def answer(args, keys, link, text, way, truth, draft):
    more = ("--spec-truth", truth) if "--spec-synth" in WAYS[way] else ()
    if way.startswith("draft"):
        more = ("-md", draft)
    return common.cluster.run(args.model, keys, "--worker", link.endpoint, "--cuts", args.cuts,
                              "--codec", args.codec, "-c", 1024, "-n", TOKENS, "--raw", "--temp",
                              0, "--ignore-eos", "-p", text, *WAYS[way], *more)


def measure(report, args, keys, rtt, name, folder, draft):
    """Rows of one text; the first answer, of "none", is the truth for all."""
    truth = os.path.join(folder, "truth.txt")
    answers = {way: [] for way in WAYS}
    with common.cluster.Worker(args.model, keys, "--layers", args.cuts.replace(",", "-")) as worker, \
            common.cluster.Link(worker.port, rtt, args.mbit) as link:
        for _ in range(args.rounds):
            for way in WAYS:
                report.progress(f"{rtt:g} ms, {name}, {way}")
                answers[way].append(answer(args, keys, link, TEXTS[name], way, truth,
                                           draft))
                if way == "none":
                    with open(truth, "w", encoding="ascii") as file:
                        file.write(" ".join(map(str, answers[way][0]["tokens"])))
    tokens = answers["none"][0]["tokens"]
    rates = {way: common.median([a["predicted_per_second"] for a in answers[way]]) for way in WAYS}
    for way in WAYS:
        if any(a["tokens"] != tokens for a in answers[way]):
            raise common.Failed(f"{name}, {way}: the text is another than without guesses")
        add_row(report, rtt, name, way, answers[way], rates)


def add_row(report, rtt, name, way, answers, rates):
    seen, right = (sum(a[key] for a in answers) for key in ("drafted_seen", "accepted"))
    values = {"ratio": rates[way] / rates["none"], "acceptance": right / seen if seen else None}
    bars = []
    if way == "auto" and rtt == BARRED_RTT:
        bars.append(("ratio", ">=", AUTO_BARS[name]))
        if seen and right / seen >= FROM_ACCEPTANCE:
            values["depth4"] = rates[way] / rates["wait 4"]
            values["best"] = rates[way] / max(rates[w] for w in WAYS if w.startswith("wait"))
            bars += [("depth4", ">=", DEPTH_4_BAR), ("best", ">=", BEST_DEPTH_BAR)]
    if way == "synth 0.9" and rtt == BARRED_RTT:
        bars.append(("ratio", ">=", SYNTH_BAR))
    if way.startswith("draft"):
        values["drafting"] = (sum(a["draft_ms"] for a in answers)
                              / sum(a["generated_tokens"] for a in answers))
    report.add(bars, rtt=rtt, text=name, way=way, rate=rates[way],
               a_round_trip=rates[way] * rtt / 1e3,
               in_flight=max(a["in_flight_max"] for a in answers), **values)


def parser():
    p = common.parser_of(__doc__, rounds=1)
    p.add_argument("--rtt", type=common.numbers, default="20,80",
                   help="round trips in ms (default %(default)s)")
    p.add_argument("--mbit", type=float, default=100, help="rate of the link (default %(default)s)")
    p.add_argument("--cuts", default="2,28", help="the worker's layers (default %(default)s)")
    p.add_argument("--codec", default="auto", help="of hidden states (default %(default)s)")
    p.add_argument("--draft", metavar="FILE", help="the draft model (default: one made from -m)")
    p.add_argument("--noise", type=float, default=0.04,
                   help="of the weights of one that is made (default %(default)s)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("speculation", args)
    report.table(f"Guessing ahead, {TOKENS} tokens, cuts {args.cuts}, {args.mbit:g} Mbit/s, load "
                 f"{os.getloadavg()[0]:.1f}",
                 [("rtt", "RTT ms", "%g"), ("text", "text", "%s"), ("way", "guesses", "%s"),
                  ("rate", "tokens/s", "%.1f"), ("ratio", "ratio", "%.2f"),
                  ("acceptance", "acceptance", "%.2f"), ("a_round_trip", "a round trip", "%.1f"),
                  ("drafting", "drafting ms", "%.1f"), ("in_flight", "windows at most", "%d"),
                  ("depth4", "over wait 4", "%.2f"), ("best", "over best wait", "%.2f")])
    with common.keys_folder() as keys, tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder:
        draft = make_draft(args, folder)
        for rtt in args.rtt:
            for name in TEXTS:
                measure(report, args, keys, rtt, name, folder, draft)
    report.note(f"Bars, at {BARRED_RTT:g} ms: auto over none >= "
                + ", ".join(f"{bar:g} ({name})" for name, bar in AUTO_BARS.items())
                + f"; synth 0.9 over none >= {SYNTH_BAR:g}; where acceptance >= "
                f"{FROM_ACCEPTANCE:g}, auto over wait 4 >= {DEPTH_4_BAR:g} and over the best wait "
                f">= {BEST_DEPTH_BAR:g}.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=1200))
