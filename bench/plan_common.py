# SPDX-License-Identifier: MIT
"""Benches about plans, the pure parts: texts, plans by hand, the arithmetic of their tables."""
import fnmatch
import itertools
import os
import statistics

HERE = os.path.dirname(os.path.abspath(__file__))

# ---- texts -------------------------------------------------------------------------------------

STORY = ("The lighthouse stood on a rock two miles from the harbour. Every evening the keeper "
         "rowed out with a can of oil, climbed the ninety steps and lit the lamp. In winter the "
         "waves reached the gallery and the glass was white with salt in the morning.")
QUOTED = ("The council met on the third of March in the old town hall. Mayor Helena Brandt opened "
          "the meeting with a report on the flood of last autumn. She said that forty-two houses "
          "had been damaged and that the repair of the eastern bridge would cost three million "
          "crowns. Councillor Ivar Lund asked whether the bridge could be open before the summer "
          "market. Treasurer Maria Olsen answered that the steel had been ordered and that the "
          "work would begin in April. The council thanked the volunteers who had carried sandbags "
          "for three nights, and voted to give each of them a medal.")
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


def prompt_of(model, name, tokens):
    """The last `tokens` tokens of a long prose with the text behind it, as text.

    `model` tokenizes (libmcp.Model).  Cutting may move a boundary between two tokens, so that the
    count is only near what was asked for; runs say what it was.
    """
    with open(os.path.join(HERE, "text.txt"), encoding="utf-8") as file:
        prose = file.read()
    text = TEXTS[name]
    while len(ids := model.tokenize(text.encode(), 0)) < tokens:
        text = prose + "\n\n" + text
    return b"".join(model.token_bytes(i) for i in ids[-tokens:]).decode(errors="ignore")


# ---- plans by hand -----------------------------------------------------------------------------

CODECS = ("f16", "q8r", "q4r", "auto")
SPECS = ("none", "auto", "4x4")  # depth x windows
CHUNKS = (64, 128)
SHORT = ("local", "cloud", "prefill", "split * f16 none 64", "split few * none 64",
         "split * q8r auto *", "split few f16 auto 64", "split few auto auto 64",
         "split few * 4x4 64")


def cuts_by_hand(layers, own=None):
    """Pairs of cuts that leave few, half and most of the layers here; own: the planner's pair."""
    few = max(1, layers // 15)
    named = {"few": (few, layers - few), "half": (layers // 4, layers - layers // 4),
             "most": (layers * 2 // 5, layers - layers * 2 // 5), "own": own}
    pairs = {}
    for name, pair in named.items():
        if pair and tuple(pair) not in pairs.values():
            pairs[name] = tuple(pair)
    return pairs


def spec_flags(spec):
    if "x" not in spec:
        return ("--spec", spec)
    depth, windows = spec.split("x")
    return ("--spec", "ngram", "--spec-depth", depth, "--spec-windows", windows)


def plans_by_hand(layers, own=None, modes=("local", "cloud")):
    """name -> flags that `mcp run` and `mcp plan` both take: all that a user could write.

    A split is named "split CUTS CODEC SPEC CHUNK".
    """
    plans = {mode: ("--mode", mode) for mode in modes}
    splits = itertools.product(cuts_by_hand(layers, own).items(), CODECS, SPECS, CHUNKS)
    for (where, (first, last)), codec, spec, chunk in splits:
        plans[f"split {where} {codec} {spec} {chunk}"] = (
            "--mode", "split", "--cuts", f"{first},{last}", "--codec", codec, *spec_flags(spec),
            "--chunk", str(chunk))
    return plans


def select(plans, patterns):
    """Those whose names match one of the shell patterns, in the order of `plans`."""
    return {name: flags for name, flags in plans.items()
            if any(fnmatch.fnmatchcase(name, p) for p in patterns)}


def allowed(name, privacy):
    """Whether a user of that privacy could have chosen it: with "split", no token leaves."""
    return privacy == "open" or (name != "cloud" if privacy == "split" else name == "local")


# ---- arithmetic --------------------------------------------------------------------------------

median = statistics.median


def percentile(values, part):
    """Nearest rank: one of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * part // 100) - 1))]


def medians(runs, keys):
    """Of each key apart."""
    return {key: median([run[key] for run in runs]) for key in keys}


def regret(chosen_ms, by_hand_ms):
    """Chosen time over the least of all, the chosen one among them: 1 where nothing is better."""
    return chosen_ms / min([chosen_ms, *by_hand_ms])


def error(predicted, measured):
    return abs(predicted - measured) / measured


def regret_summary(regrets, limit=1.05):
    return {"cells": len(regrets), "limit": limit,
            "share": sum(r <= limit for r in regrets) / len(regrets),
            "median": median(regrets), "max": max(regrets)} if regrets else None


def error_summary(errors):
    return {"count": len(errors), "median": median(errors),
            "p95": percentile(errors, 95)} if errors else None


def codec_pairs(measured):
    """Of one cell: (auto, f16) of plans that differ in nothing else.  measured: name -> medians."""
    for name, auto in measured.items():
        words = name.split()
        if words[0] == "split" and words[2] == "auto":
            f16 = measured.get(" ".join([*words[:2], "f16", *words[3:]]))
            if f16 is not None:
                yield auto, f16


def codec_summary(cells, mbit_max=100):
    """Bytes and times of codec auto over f16.  cells: (mbit, measured) pairs.

    Bytes are summed before they are divided, over links of at most `mbit_max`; times are the
    worst pair's, over all links.
    """
    slow = [pair for mbit, measured in cells if mbit <= mbit_max for pair in codec_pairs(measured)]
    times = [auto["total_ms"] / f16["total_ms"] for _, measured in cells
             for auto, f16 in codec_pairs(measured)]
    f16_bytes = sum(f16["bytes"] for _, f16 in slow)
    return {"pairs": len(times),
            "bytes": sum(auto["bytes"] for auto, _ in slow) / f16_bytes if f16_bytes else None,
            "time_median": median(times) if times else None,
            "time_max": max(times) if times else None}


# ---- an answer's tokens in time ----------------------------------------------------------------

def token_times(chunks, ends):
    """When each token was out.  chunks: (seconds, bytes so far); ends: each token's last byte."""
    times, i = [], 0
    for end in ends:
        while i < len(chunks) and chunks[i][1] < end:
            i += 1
        if i == len(chunks):
            break
        times.append(chunks[i][0])
    return times


def rates(times, width_s=1.0, step_s=0.5):
    """(middle of a window, tokens/s in it) of windows that slide over the answer."""
    series, start = [], times[0]
    while start + width_s <= times[-1]:
        inside = sum(start < t <= start + width_s for t in times)
        series.append((start + width_s / 2, inside / width_s))
        start += step_s
    return series


def recovered(times, changed_at, static, part=0.9, tail=16):
    """Seconds after `changed_at` from which on the rest of the answer came at `part` or more of the
    best static plan's speed for the same tokens; None: never, or with less than `tail` tokens left.

    static: times of the same answer, one list a plan, each under the new condition from the start.
    """
    last = len(times) - 1
    for i, at in enumerate(times):
        if at < changed_at or last - i < tail:
            continue
        best = min(other[last] - other[i] for other in static)
        if best >= part * (times[last] - at):
            return at - changed_at
    return None
