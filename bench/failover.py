#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A worker is lost while it answers: is the text the same, and how long is the pause?

Each trial is an answer of its own: a prompt of 512 tokens, then 48 tokens of greedy text, the
middle layers on one of two workers, each 20 ms away behind a relay of its own.  At a random moment
of the decode the worker in use (the relay that carries more says which) is

    killed    SIGKILL: the connection ends
    holed     its relay delivers nothing any more and closes nothing
    reset     its relay ends the connection with RST; the worker lives
    stopped   SIGSTOP: connected, and silent
    early     killed while the prompt is computed
    alone     killed, and there is no other worker: this machine takes its layers over
    drained   SIGTERM: it asks its sessions to leave

The text must be that of an undisturbed run.  The stall is the longest time between two pieces of
text on `mcp run`'s standard output, which is what a reader sees; it includes detection, connection,
replay of everything so far, and the token's own time.  (early: what the first piece comes later.)

The replay computes 512 tokens through the layers there: 10 of SmolLM2's 30 with the default
cuts, a fair share for one of three places.  Worker, standby and agent share this machine's cores,
and each has one thread: most of a stall is the standby's computing, which a larger machine does
in less.
"""
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time

import remote_common as common

TOKENS = 48
PROMPT_TOKENS = 512
STALL_P50_MS, STALL_P95_MS, DRAIN_MS = 1000.0, 2000.0, 150.0
TRIAL_S = 60
WORDS = ("time", "people", "water", "light", "house", "river", "music", "paper", "stone", "garden",
         "winter", "letter", "window", "market", "mother", "friend")


# ---- one answer ----------------------------------------------------------------------------

class Answer:
    """`mcp run` in full flight: its text with the time of each piece."""

    def __init__(self, args, keys, prompt, endpoints):
        self.pieces, self.times = [], []
        self.log = tempfile.TemporaryFile()
        workers = [word for endpoint in endpoints for word in ("--worker", endpoint)]
        self.process = subprocess.Popen(
            [common.cluster.mcp_program(), "run", "-m", args.model, "--raw", "-f", prompt, "-n",
             str(TOKENS), "--temp", "0", "--ignore-eos", "-t", "1", "--keys", str(keys), "--cuts",
             args.cuts, "--codec", args.codec, "--spec", "none", *workers],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
            env=common.cluster.clean_environment())
        self.began = time.monotonic()
        self.until = self.began + TRIAL_S

    def first_s(self):
        return self.times[0] - self.began

    def read(self, until=None):
        """Take what comes until then, or to the end; False at the end."""
        while True:
            now = time.monotonic()
            if until is not None and now >= until:
                return True
            if now > self.until:
                raise common.Failed(f"an answer took {TRIAL_S} s: {self.said()}")
            ready, _, _ = select.select([self.process.stdout], [], [],
                                        min(self.until, until or self.until) - now)
            if not ready:
                continue
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                return False
            self.times.append(time.monotonic())
            self.pieces.append(piece)

    def first(self):
        """Wait for the first piece."""
        while not self.times:
            if not self.read(time.monotonic() + 0.01):
                raise common.Failed(f"no text came: {self.said()}")

    def end(self):
        """Text and longest pause in ms."""
        while self.read(self.until):
            pass
        self.process.wait(timeout=TRIAL_S)
        if self.process.returncode != 0:
            raise common.Failed(f"mcp run ended with {self.process.returncode}: {self.said()}")
        pauses = [b - a for a, b in zip(self.times, self.times[1:])]
        return b"".join(self.pieces), max(pauses, default=0.0) * 1e3

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-1500:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=TRIAL_S)
        self.process.stdout.close()
        self.log.close()


# ---- faults --------------------------------------------------------------------------------

def kill(worker, _):
    worker.signal(signal.SIGKILL)


def hole(_, link):
    link.tell("hole on")


def reset(_, link):
    link.tell("reset")


def stop(worker, _):
    worker.signal(signal.SIGSTOP)


def drain(worker, _):
    worker.signal(signal.SIGTERM)


KINDS = {"killed": kill, "holed": hole, "reset": reset, "stopped": stop, "early": kill,
         "alone": kill, "drained": drain}
TOGETHER = "any of these four"
WITH_STANDBY = ("killed", "holed", "reset", "stopped")


class Place:
    """A worker behind its relay."""

    def __init__(self, args, keys):
        self.worker = common.cluster.Worker(args.model, keys, "--layers",
                                            args.cuts.replace(",", "-"), "-c", "1024", "-np", "4")
        self.link = common.cluster.Link(self.worker.port, args.rtt, args.mbit)

    def close(self):
        for process in (self.link, self.worker):
            process.__exit__()


class Trials:
    def __init__(self, args, keys, prompt):
        self.args, self.keys, self.prompt = args, keys, prompt
        self.random = random.Random(args.seed)
        self.places = [Place(args, keys), Place(args, keys)]
        with Answer(args, keys, prompt, [p.link.endpoint for p in self.places]) as answer:
            answer.first()
            self.text, self.calm_ms = answer.end()
            self.first_s = answer.first_s()
            self.decode_s = answer.times[-1] - answer.times[0]

    def in_use(self, before):
        """The place whose relay has carried the prompt."""
        carried = [p.link.stats()["up"] - b for p, b in zip(self.places, before)]
        return carried.index(max(carried))

    def wait(self, answer, kind):
        """A random moment: of the prompt, or of the decode but for its end (a session that is to
        move needs some time in which it does not hurry)."""
        if kind == "early":
            until = answer.began + self.random.uniform(0.2, 0.9) * self.first_s
        else:
            answer.first()
            until = time.monotonic() + self.decode_s * self.random.uniform(
                0, 0.3 if kind == "drained" else 0.8)
        if not answer.read(until):
            raise common.Failed("the answer was over before the fault: is the machine busy?")

    def run(self, kind):
        """(text is the same, stall in ms)"""
        count = 1 if kind == "alone" else 2
        before = [p.link.stats()["up"] for p in self.places]
        with Answer(self.args, self.keys, self.prompt,
                    [p.link.endpoint for p in self.places[:count]]) as answer:
            self.wait(answer, kind)
            used = self.in_use(before)
            KINDS[kind](self.places[used].worker, self.places[used].link)
            text, stall_ms = answer.end()
            if kind == "early":
                stall_ms = max(stall_ms, (answer.first_s() - self.first_s) * 1e3)
            said = answer.said()
        self.places[used].close()
        self.places[used] = Place(self.args, self.keys)
        if text != self.text:
            print(f"{kind}: another text:\n{text.decode(errors='replace')}\n{said}",
                  file=sys.stderr)
        return text == self.text, stall_ms

    def close(self):
        for place in self.places:
            place.close()


def schedule(count):
    """So many trials over the kinds, mixed: four of five lose a worker in the decode."""
    kinds = []
    while len(kinds) < count:
        for other in ("drained", "early", "drained", "alone"):
            kinds += [*WITH_STANDBY, other]
    return kinds[:count]


# ---- the table -----------------------------------------------------------------------------

def add(report, kind, results):
    stalls = [ms for _, ms in results]
    same = sum(ok for ok, _ in results)
    values = dict(kind=kind, trials=len(results), same=same,
                  p50=common.percentile(stalls, 50), p95=common.percentile(stalls, 95),
                  most=max(stalls), stalls_ms=[round(ms, 1) for ms in stalls])
    bars = [("same", ">=", len(results))]
    if kind == "drained":
        bars.append(("most", "<=", DRAIN_MS))
    if kind == TOGETHER:
        bars += [("p50", "<=", STALL_P50_MS), ("p95", "<=", STALL_P95_MS)]
    report.add(bars, **values)


def parser():
    p = common.parser_of(__doc__)
    p.add_argument("-n", "--trials", type=int, default=40, help="(default %(default)s)")
    p.add_argument("--rtt", type=float, default=20.0, help="ms (default %(default)s)")
    p.add_argument("--mbit", type=float, default=100.0, help="0 = unlimited (default %(default)s)")
    p.add_argument("--cuts", default="10,20", help="(default %(default)s)")
    p.add_argument("--codec", default="auto", help="(default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the moments (default %(default)s)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("failover", args)
    results = {kind: [] for kind in KINDS}
    with common.keys_folder() as keys, tempfile.TemporaryDirectory() as folder:
        prompt = os.path.join(folder, "prompt")
        words = random.Random(7)
        with open(prompt, "w", encoding="utf-8") as file:
            file.write(" ".join(words.choice(WORDS) for _ in range(PROMPT_TOKENS)))
        trials = Trials(args, keys, prompt)
        try:
            for i, kind in enumerate(schedule(args.trials)):
                results[kind].append(trials.run(kind))
                report.progress(f"{i + 1} of {args.trials} trials")
        finally:
            trials.close()
    report.table(f"Stalls after {PROMPT_TOKENS} tokens, cuts {args.cuts}, {args.rtt:g} ms; "
                 f"undisturbed: {trials.calm_ms:.0f} ms at most",
                 [("kind", "the worker is", "%s"), ("trials", "trials", "%d"),
                  ("same", "same text", "%d"), ("p50", "stall p50 ms", "%.0f"),
                  ("p95", "p95", "%.0f"), ("most", "most", "%.0f")])
    results[TOGETHER] = [result for kind in WITH_STANDBY for result in results[kind]]
    for kind in (*WITH_STANDBY, TOGETHER, "early", "alone", "drained"):
        if results[kind]:
            add(report, kind, results[kind])
    report.note(f"Bars: the same text each time; lost in the decode p50 <= {STALL_P50_MS:g} and "
                f"p95 <= {STALL_P95_MS:g} ms; drained <= {DRAIN_MS:g} ms.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=3600))
