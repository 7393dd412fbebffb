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

  tokens/s     after the first token; median of the rounds, which take the rows in turns
  ratio        to none
  acceptance   guesses that were right, of those that were compared: not behind a wrong one
  a round trip tokens that came in the time of one round trip

One thread a side on this machine: where acceptance is low, what guesses cost is this machine's
compute, which a GPU as worker would not notice.
"""
import os
import sys
import tempfile

import remote_common as common

TOKENS = 128
AUTO_BARS = {"continued": 1.6, "quotation": 2.5, "code edit": 2.5}
SYNTH_BAR = 6.0
DEPTH_4_BAR, BEST_DEPTH_BAR, FROM_ACCEPTANCE = 1.3, 1.05, 0.7
BARRED_RTT = 80.0

STORY = ("The lighthouse stood on a rock two miles from the harbour. Every evening the keeper rowed "
         "out with a can of oil, climbed the ninety steps and lit the lamp. In winter the waves "
         "reached the gallery and the glass was white with salt in the morning.")
QUOTED = ("The council met on the third of March in the old town hall. Mayor Helena Brandt opened the "
          "meeting with a report on the flood of last autumn. She said that forty-two houses had "
          "been damaged and that the repair of the eastern bridge would cost three million crowns. "
          "Councillor Ivar Lund asked whether the bridge could be open before the summer market. "
          "Treasurer Maria Olsen answered that the steel had been ordered and that the work would "
          "begin in April. The council thanked the volunteers who had carried sandbags for three "
          "nights, and voted to give each of them a medal.")
CODE = """class Account:
    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance = self.balance + amount
        return self.balance

    def withdraw(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        if amount > self.balance:
            raise ValueError("balance too low")
        self.balance = self.balance - amount
        return self.balance
"""


EDITED = CODE.replace("balance", "funds")

# A small model repeats reliably only what it has seen done: each text shows it once.
TEXTS = {
    "continued": STORY,
    "quotation": f"Minutes.\n{QUOTED}\n\nSummary with quotations: The mayor reported that "
                 "\"forty-two houses had been damaged\".\n\nMinutes, read aloud at the next "
                 "meeting.\nThe council met on the third",
    "code edit": f"# before\n{CODE}\n# after, with the field balance renamed to funds\n"
                 + EDITED[:EDITED.index("    def withdraw")],
}
WAYS = {
    "none": ("--spec", "none"),
    "wait 4": ("--spec", "ngram", "--spec-depth", 4, "--spec-windows", 1),
    "wait 8": ("--spec", "ngram", "--spec-depth", 8, "--spec-windows", 1),
    "wait 16": ("--spec", "ngram", "--spec-depth", 16, "--spec-windows", 1),
    "auto": ("--spec", "auto"),
    "synth 0.9": ("--spec", "auto", "--spec-synth", 0.9),
}


def answer(args, keys, link, text, way, truth):
    more = ("--spec-truth", truth) if "--spec-synth" in WAYS[way] else ()
    return common.cluster.run(args.model, keys, "--worker", link.endpoint, "--cuts", args.cuts,
                              "--codec", args.codec, "-c", 1024, "-n", TOKENS, "--raw", "--temp",
                              0, "--ignore-eos", "-p", text, *WAYS[way], *more)


def measure(report, args, keys, rtt, name, folder):
    """Rows of one text; the first answer, of "none", is the truth for all."""
    truth = os.path.join(folder, "truth.txt")
    answers = {way: [] for way in WAYS}
    with common.cluster.Worker(args.model, keys, "--layers", args.cuts.replace(",", "-")) as worker, \
            common.cluster.Link(worker.port, rtt, args.mbit) as link:
        for _ in range(args.rounds):
            for way in WAYS:
                report.progress(f"{rtt:g} ms, {name}, {way}")
                answers[way].append(answer(args, keys, link, TEXTS[name], way, truth))
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
    return p


def main():
    args = common.parse(parser())
    report = common.Report("speculation", args)
    report.table(f"Guessing ahead, {TOKENS} tokens, cuts {args.cuts}, {args.mbit:g} Mbit/s, load "
                 f"{os.getloadavg()[0]:.1f}",
                 [("rtt", "RTT ms", "%g"), ("text", "text", "%s"), ("way", "guesses", "%s"),
                  ("rate", "tokens/s", "%.1f"), ("ratio", "ratio", "%.2f"),
                  ("acceptance", "acceptance", "%.2f"), ("a_round_trip", "a round trip", "%.1f"),
                  ("in_flight", "windows at most", "%d"), ("depth4", "over wait 4", "%.2f"),
                  ("best", "over best wait", "%.2f")])
    with common.keys_folder() as keys, tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder:
        for rtt in args.rtt:
            for name in TEXTS:
                measure(report, args, keys, rtt, name, folder)
    report.note(f"Bars, at {BARRED_RTT:g} ms: auto over none >= "
                + ", ".join(f"{bar:g} ({name})" for name, bar in AUTO_BARS.items())
                + f"; synth 0.9 over none >= {SYNTH_BAR:g}; where acceptance >= "
                f"{FROM_ACCEPTANCE:g}, auto over wait 4 >= {DEPTH_4_BAR:g} and over the best wait "
                f">= {BEST_DEPTH_BAR:g}.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=900))
