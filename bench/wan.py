#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plans over distance: is the chosen one the best, are its times as predicted, what do codecs save.

A worker process on this machine behind a relay that delays and limits as a wide-area link does.
Agent and worker have cores of their own.  In each cell of the grid (link, prompt, text) the
request is made as the planner chooses, and by force in every way that a user could have chosen
by hand: here, in the cloud, split at several cuts, with several codecs, with and without
guesses.  Plans take turns, each round in the reverse order of the last; figures are medians.

  first token, token, request   ms measured, and in brackets predicted
  regret     request over the best request of all plans that the privacy allows, itself included
  foreign    cores that others kept busy among ours: above 0.1 a cell means little

The predictions are the planner's for just that plan, before it ran: `mcp plan` with its flags.
A plan by hand that breaks the quality bound (1 % perplexity) is none that the planner may take;
it is left out, and named in --json.

  ./dev bench wan                                       all, hours on two cores
  ./dev bench wan --jobs 4                              on 16 cores, four cells side by side
  ./dev bench wan --rtt 20 --mbit 100 --prompts 32 --texts continued -r 1     one cell
  bench/wan.py --bundle build-portable -m 7B.gguf --here-cores 0-3 --here-args '--device cpu' \\
      --worker-args '--device cuda0' --local-once       a GPU as worker, nothing to be built
"""
import multiprocessing
import os
import queue
import random
import re
import sys
import tempfile
import time

import plan_common as plans
import remote_common as common
import wan_common as wan
from libmcp import Model

REGRET_BAR, REGRET_SHARE, REGRET_MAX = 1.05, 0.95, 1.25
ERROR_MEDIAN, ERROR_P95 = 0.09, 0.25
BYTES_BAR, BYTES_MBIT, SLOWER_BAR = 0.55, 100, 1.02
FOREIGN_MAX = 0.1
KEYS = ("ttft_ms", "token_ms", "total_ms", "bytes")
WAIT_S = 5


# ---- measuring ---------------------------------------------------------------------------------

class Late(Exception):
    """--minutes are over."""


def chosen(privacy):
    return f"chosen, {privacy}"


class Part:
    """One job's cells, one after another, on its own cores and with profiles of its own."""

    def __init__(self, args, place, folder):
        self.args, self.place, self.folder = args, place, folder
        self.model = Model(wan.library(), args.model)
        self.layers = self.model.info().layers
        self.modes = re.search(r"--mode (\S+)", place.mcp("run", "--help")).group(1).split("|")
        self.local = {}  # (prompt, text) -> runs, for --local-once

    def warm(self):
        """Both profiles, over a link that does not show in them."""
        self.place.set_link(0, 0)
        self.place.plan(64)

    def prompt(self, tokens, text):
        path = os.path.join(self.folder, f"{text} {tokens}.txt".replace(" ", "-"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(plans.prompt_of(self.model, text, tokens))
        return path

    def predict(self, tokens):
        """(name -> flags, name -> prediction, name -> why not) of the plans by hand."""
        own = self.place.plan(tokens)["split"]["hops"]
        modes = [m for m in self.modes if m in ("local", "cloud", "prefill")]
        hand = plans.select(plans.plans_by_hand(
            self.layers, (own[0]["first"], own[-1]["last"]) if own else None, modes),
            self.args.plans)
        predicted, left_out = {}, {}
        for name, flags in list(hand.items()):
            try:
                predicted[name] = self.place.plan(tokens, *flags, "--privacy",
                                                  "open")[name.split()[0]]
            except common.Failed as failed:
                left_out[name] = str(failed)
                del hand[name]
        return hand, predicted, left_out

    def cell(self, where, hand, predicted, left_out, deadline):
        """Every plan `rounds` times, or as often as there is time for; its record."""
        path = self.prompt(where["prompt"], where["text"])
        ways = {**hand, **{chosen(p): ("--privacy", p) for p in self.args.privacy}}
        runs, left_out = {name: [] for name in ways}, dict(left_out)
        foreign = self.place.foreign()
        for i in range(self.args.rounds):
            for name in sorted(runs, reverse=i % 2 == 1):
                if time.monotonic() > deadline:
                    if i == 0:
                        raise Late
                    break
                try:
                    runs[name].append(self.run(where, path, name, ways[name]))
                except common.Failed as failed:
                    left_out[name] = str(failed)
                    del runs[name]
        return {**where, "runs": runs, "predicted": predicted, "left_out": left_out,
                "foreign": foreign.cores()}

    def run(self, where, path, name, flags):
        key = where["prompt"], where["text"], name
        if key in self.local:
            return self.local[key]
        run = self.place.run(path, *flags)
        if self.args.local_once and name == "local":
            self.local[key] = run
        return run

    def measure(self, groups, deadline, put):
        """Put a record for each cell; what there was no time for is put as missing."""
        self.warm()
        for rtt, mbit, prompt in groups:
            cells = [{"rtt": rtt, "mbit": mbit, "prompt": prompt, "text": text}
                     for text in self.args.texts]
            try:
                if time.monotonic() > deadline:
                    raise Late
                self.place.set_link(rtt, mbit)
                facts = self.predict(prompt)
                while cells:
                    put(("cell", self.cell(cells[0], *facts, deadline)))
                    cells.pop(0)
            except Late:
                for cell in cells:
                    put(("missing", cell))


def part(args, cores, groups, deadline, records):
    """In a process of its own, so that its cache folder and its children's times are its own."""
    try:
        with common.keys_folder() as keys, tempfile.TemporaryDirectory() as folder:
            os.environ["MCP_CACHE"] = os.path.join(folder, "cache")
            os.sched_setaffinity(0, cores[2])
            with wan.Place(args, keys, cores) as place:
                Part(args, place, folder).measure(groups, deadline, records.put)
        records.put(("done", None))
    except Exception as error:  # told to the process that can show it
        records.put(("failed", str(error) or repr(error)))


def records_of(args, groups):
    """Start the jobs; their records as they come."""
    fork = multiprocessing.get_context("fork")
    records = fork.Queue()
    deadline = time.monotonic() + args.minutes * 60
    jobs = [fork.Process(target=part, args=(args, cores, groups[i::args.jobs], deadline, records))
            for i, cores in enumerate(wan.places_of(args, args.jobs))]
    try:
        for job in jobs:
            job.start()
        left = len(jobs)
        while left > 0:
            try:
                kind, record = records.get(timeout=WAIT_S)
            except queue.Empty:
                if not any(job.is_alive() for job in jobs):
                    raise common.Failed("a job ended without a word") from None
                continue
            if kind == "failed":
                raise common.Failed(record)
            left -= kind == "done"
            if kind != "done":
                yield kind, record
    finally:
        for job in jobs:
            if job.is_alive():
                job.terminate()
            job.join(common.START_S)


# ---- judging: pure -----------------------------------------------------------------------------

def medians_of(cell):
    """name -> medians of its runs."""
    return {name: plans.medians(runs, KEYS) for name, runs in cell["runs"].items() if runs}


def row_of(cell, privacy):
    """What the table shows of a cell for a privacy; None where the chosen plan failed."""
    measured = medians_of(cell)
    own = measured.get(chosen(privacy))
    if own is None:
        return None
    plan = cell["runs"][chosen(privacy)][-1]["plan"]
    hand = {name: m["total_ms"] for name, m in measured.items()
            if name in cell["predicted"] and plans.allowed(name, privacy)}
    best = min(hand, key=hand.get, default=None)
    return {**{key: cell[key] for key in ("rtt", "mbit", "prompt", "text", "foreign")},
            "privacy": privacy, "plan": plan, **own,
            **{f"predicted_{key}": plan[key] for key in KEYS[:3]},
            "best": best, "best_ms": hand.get(best),
            "regret": plans.regret(own["total_ms"], hand.values())}


def errors_of(cells, rows, key):
    """(of the chosen plans, of the plans by hand)"""
    by_hand = [plans.error(cell["predicted"][name][key], m[key]) for cell in cells
               for name, m in medians_of(cell).items() if name in cell["predicted"]]
    return [plans.error(row[f"predicted_{key}"], row[key]) for row in rows], by_hand


def changed_texts(cell):
    """(changed, compared): of answers: plans that differ in their guesses alone give one."""
    texts = {}
    for name, runs in cell["runs"].items():
        words = name.split()
        if words[0] == "split" and words[2] != "auto":
            texts.setdefault((*words[:3], words[4]), []).extend(run["text"] for run in runs)
    return (sum(t != same[0] for same in texts.values() for t in same),
            sum(len(same) - 1 for same in texts.values()))


def summary_of(cells, rows):
    """All that the bench is about, in numbers."""
    return {
        "regret": plans.regret_summary([row["regret"] for row in rows], REGRET_BAR),
        "errors": {key: [plans.error_summary(e) for e in errors_of(cells, rows, key)]
                   for key in ("ttft_ms", "token_ms")},
        "codec": plans.codec_summary([(cell["mbit"], medians_of(cell)) for cell in cells],
                                     BYTES_MBIT),
        "changed": [sum(column) for column in zip(*map(changed_texts, cells))],
        "noisy": sum((cell["foreign"] or 0) > FOREIGN_MAX for cell in cells),
    }


# ---- showing -----------------------------------------------------------------------------------

def plan_text(plan):
    """"split 2-28 q8r" """
    cuts = "-".join(str(c) for c in plan.get("cuts") or
                    [c for hop in plan.get("hops", []) for c in (hop["first"], hop["last"])])
    return " ".join(word for word in (plan["mode"], cuts if plan["mode"] in ("split", "prefill")
                                      else "", plan.get("codec", "")) if word)


def show_row(report, row, cell):
    """cell: kept with the row for --json, once a cell."""
    values = {f"{key}_both": f"{row[key]:.{digits}f} ({row[f'predicted_{key}']:.{digits}f})"
              for key, digits in (("ttft_ms", 0), ("token_ms", 1), ("total_ms", 0))}
    report.add([("regret", "<=", REGRET_MAX)], **row, **values, taken=plan_text(row["plan"]),
               cell=cell)


def show_summary(report, cells, missing, summary):
    report.table("Over the grid", [("what", "what", "%s"), ("value", "value", "%.3f"),
                                   ("bar", "bar", "%s"), ("count", "of", "%d")])

    def line(what, value, count, sign=None, bar=None):
        report.add([("value", sign, bar)] if sign and value is not None else (), what=what,
                   value=value, count=count, bar=f"{sign} {bar:g}" if sign else None)

    regret = summary["regret"]
    if regret:
        line(f"regret <= {REGRET_BAR:g}, share", regret["share"], regret["cells"], ">=",
             REGRET_SHARE)
        line("regret, median", regret["median"], regret["cells"])
        line("regret, most", regret["max"], regret["cells"], "<=", REGRET_MAX)
    for key, errors in summary["errors"].items():
        for whose, e in zip(("chosen", "by hand"), errors):
            if e:
                line(f"error of {key}, {whose}, median", e["median"], e["count"], "<=",
                     ERROR_MEDIAN)
                line(f"error of {key}, {whose}, 95 %", e["p95"], e["count"], "<=", ERROR_P95)
    codec = summary["codec"]
    if codec["pairs"]:
        line(f"bytes, auto over f16, <= {BYTES_MBIT} Mbit/s", codec["bytes"], codec["pairs"], "<=",
             BYTES_BAR)
        line("request, auto over f16, median", codec["time_median"], codec["pairs"])
        line("request, auto over f16, most", codec["time_max"], codec["pairs"], "<=", SLOWER_BAR)
    if summary["changed"]:
        line("answers that guesses changed", summary["changed"][0], summary["changed"][1])
    report.note(f"{len(cells)} cells measured, {len(missing)} not for want of time"
                + "".join(f"; {c['rtt']:g} ms {c['mbit']:g} Mbit/s {c['prompt']} {c['text']}"
                          for c in missing)
                + f". {summary['noisy']} cells with more than {FOREIGN_MAX} foreign cores.")
    for name, why in sorted({(n, w) for cell in cells for n, w in cell["left_out"].items()}):
        report.say(f"left out: {name}: {why}")


# ---- the program -------------------------------------------------------------------------------

def words(text):
    return [word.strip() for word in text.split(",")]


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("--rtt", type=common.numbers, default="1,5,20,80", help="ms")
    p.add_argument("--mbit", type=common.numbers, default="20,100,1000", help="Mbit/s, both ways")
    p.add_argument("--prompts", type=lambda t: [int(w) for w in words(t)], default="32,1024",
                   help="lengths in tokens")
    p.add_argument("--texts", type=words, default=",".join(plans.TEXTS))
    p.add_argument("--privacy", type=words, default="split,open")
    p.add_argument("--plans", type=words, default=",".join(plans.SHORT), help="by hand, as shell "
                   "patterns of MODE [CUTS CODEC SPEC CHUNK]; '*' is all (default %(default)s)")
    p.add_argument("--jobs", type=int, default=1, help="cells side by side, on cores of their own")
    p.add_argument("--minutes", type=float, default=480, help="then stop and say what is missing")
    p.add_argument("--local-once", action="store_true", help="a link does not change what runs "
                   "here: measure it once a prompt")
    wan.options(p)
    return p


def main():
    args = common.parse(parser())
    unknown = [t for t in args.texts if t not in plans.TEXTS]
    if unknown:
        raise common.Failed(f"--texts: {unknown[0]} is none of {', '.join(plans.TEXTS)}")
    wan.complete(args, max(args.prompts))
    groups = [(rtt, mbit, prompt) for rtt in args.rtt for mbit in args.mbit
              for prompt in args.prompts]
    random.Random(1).shuffle(groups)  # what is left when time runs out is a fair sample
    report = common.Report("wan", args)
    report.table(f"Plans over distance: {args.tokens} tokens, {len(args.cores)} cores, {args.jobs} "
                 f"jobs, load {os.getloadavg()[0]:.1f}",
                 [("rtt", "RTT ms", "%g"), ("mbit", "Mbit/s", "%g"), ("prompt", "prompt", "%d"),
                  ("text", "text", "%s"), ("privacy", "privacy", "%s"), ("taken", "chosen", "%s"),
                  ("ttft_ms_both", "first token", "%s"), ("token_ms_both", "token", "%s"),
                  ("total_ms_both", "request", "%s"), ("best", "best by hand", "%s"),
                  ("best_ms", "request", "%.0f"), ("regret", "regret", "%.2f"),
                  ("foreign", "foreign", "%.2f")])
    cells, missing, rows = [], [], []
    for kind, record in records_of(args, groups):
        (cells if kind == "cell" else missing).append(record)
        shown = [row_of(record, p) for p in args.privacy] if kind == "cell" else []
        for i, row in enumerate(filter(None, shown)):
            rows.append(row)
            show_row(report, row, record if i == 0 else None)
    show_summary(report, cells, missing, summary_of(cells, rows))
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=10 * 3600))
