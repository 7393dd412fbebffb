#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A condition changes in the middle of one long answer: how soon is it as fast as it can be?

  RTT doubles      of the link
  rate to a tenth  of the link, both ways
  worker busy      other agents' sessions begin to compute on the worker, --load of them
  better worker    a second worker starts, over a link of a quarter of the round trip

`mcp run` chooses its plan, as in ./dev bench wan, and streams its text; each token's time is that
of its last byte.  The peers of the same round are static plans by hand, each under the new
condition from its start: here, in the cloud if --privacy allows, split at several cuts.

  recovered   s after the change from which on the rest of the answer came at 0.9 or more of the
              speed of the best static plan for the same tokens: median and worst of the rounds,
              and in how many it never did
  speed       of the answer from 3 s after the change on, over that plan's
  moves       of layers during the answer; one change is worth at most one
  same        tokens that equal the unsplit answer's, which with codec f32 are all
  foreign     cores that others kept busy among ours: above 0.1 a row means little

With a fixed --codec f32 on CPUs the text is the unsplit one bit for bit; `--codec auto` shows how
the codec follows the link instead.
"""
import concurrent.futures
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

import plan_common as plans
import remote_common as common
import wan_common as wan
from libmcp import Model

RECOVERED_BAR, MOVES_BAR = 3.0, 1


# ---- one answer, token by token ----------------------------------------------------------------

class Answer:
    """`mcp run` as it streams; `change` is called, beside it, once `at` bytes of text are out."""

    def __init__(self, place, prompt, workers, flags, at=None, change=None):
        self.chunks, self.changed_at, changing = [], None, None
        text, log = b"", tempfile.TemporaryFile()
        command = place.base("--raw", "--temp", 0, "--ignore-eos", "-c", place.args.ctx, "-n",
                             place.args.tokens, "-f", prompt, *flags)
        for worker in workers:
            command += ["--worker", worker]
        with wan.on_cores(place.here):
            self.process = subprocess.Popen(
                [common.cluster.mcp_program(), "run", *command], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, env=common.cluster.clean_environment())
        beside = concurrent.futures.ThreadPoolExecutor(1)  # reading goes on: it tells the time
        try:
            while data := os.read(self.process.stdout.fileno(), 65536):
                text += data
                self.chunks.append((time.monotonic(), len(text)))
                if change is not None and changing is None and len(text) >= at:
                    changing = beside.submit(lambda: (change(), time.monotonic()))
            if changing is not None:
                self.changed_at = changing.result()[1]
            status = self.process.wait(timeout=common.START_S)
        finally:
            beside.shutdown()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            log.seek(0)
            self.log = log.read().decode(errors="replace")
            log.close()
        if status != 0:
            raise common.Failed(self.log.strip()[-300:])
        self.text = text.removesuffix(b"\n")
        self.plan = self._said(r"^plan: (.*)")  # as it ended; None where flags fixed it
        self.moves = int(self._said(r"^moved (\d+) time") or 0)
        self.move_why = self._said(r"^moved .* because it (.*)")

    def _said(self, pattern):
        found = re.search(pattern, self.log, re.M)
        return found.group(1) if found else None

    def times(self, model):
        """Seconds at which its tokens were out."""
        ends, end = [], 0
        for token in model.tokenize(self.text, 0):
            end += len(model.token_bytes(token))
            ends.append(min(end, len(self.text)))
        return plans.token_times(self.chunks, ends)


class Load:
    """Other agents, each with one answer after another from the worker, until it is left."""

    def __init__(self, place, port, prompt, count):
        self.place, self.prompt, self.over = place, prompt, threading.Event()
        self.command = place.base("--raw", "--ignore-eos", "-c", place.args.ctx, "-n",
                                  place.args.ctx // 2, "-f", prompt, "--mode", "cloud", "--worker",
                                  f"127.0.0.1:{port}")
        self.threads = [threading.Thread(target=self._work) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _work(self):
        while not self.over.is_set():
            with wan.on_cores(self.place.there):  # none of the agent's
                process = subprocess.Popen(
                    [common.cluster.mcp_program(), "run", *self.command],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL, env=common.cluster.clean_environment())
            while process.poll() is None and not self.over.wait(0.05):
                pass
            if process.poll() is None:
                process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


# ---- what changes ------------------------------------------------------------------------------

class Scene:
    """Begins as it was; `change` makes the new condition."""

    def __init__(self, place, prompt):
        self.place, self.prompt, self.args = place, prompt, place.args
        self.stack = contextlib.ExitStack()
        self.workers = [place.link.endpoint]  # the better one last

    def __enter__(self):
        self.place.set_link(self.args.rtt, self.args.mbit)
        return self

    def __exit__(self, *_):
        self.stack.close()


class RttDoubles(Scene):
    def change(self):
        self.place.set_link(2 * self.args.rtt, self.args.mbit)


class RateToATenth(Scene):
    def change(self):
        self.place.set_link(self.args.rtt, self.args.mbit / 10)


class WorkerBusy(Scene):
    def change(self):
        self.stack.enter_context(Load(self.place, self.place.worker.port, self.prompt,
                                      self.args.load))


class BetterWorker(Scene):
    """Its address is known before; nobody answers there."""

    def __enter__(self):
        self.port = common.free_port()
        link = self.stack.enter_context(self.place.start_link(self.port))
        self.place.set_link(self.args.rtt / 4, self.args.mbit, link)
        self.workers.append(link.endpoint)
        return super().__enter__()

    def change(self):
        self.stack.enter_context(self.place.start_worker(self.port))


SCENES = {"RTT doubles": RttDoubles, "rate to a tenth": RateToATenth, "worker busy": WorkerBusy,
          "better worker": BetterWorker}


# ---- measuring ---------------------------------------------------------------------------------

class Bench:
    def __init__(self, args, place, folder):
        self.args, self.place = args, place
        self.model = Model(wan.library(), args.model)
        self.prompt = os.path.join(folder, "prompt.txt")
        with open(self.prompt, "w", encoding="utf-8") as file:
            file.write(plans.prompt_of(self.model, args.text, args.prompt))
        place.set_link(0, 0)
        place.plan(64)  # both profiles
        truth = Answer(place, self.prompt, (), ("--mode", "local", "--even-windows", "--chunk", 64))
        self.truth = self.model.tokenize(truth.text, 0)
        self.at = sum(len(self.model.token_bytes(t)) for t in self.truth[:args.at])

    def by_hand(self):
        """name -> flags, of the plans that privacy and --mode allow."""
        hand = {"local": ("--mode", "local"), "cloud": ("--mode", "cloud")}
        for where, cuts in plans.cuts_by_hand(self.model.info().layers).items():
            hand[f"split {where}"] = ("--mode", "split", "--cuts", "{},{}".format(*cuts),
                                      "--codec", self.args.codec)
        return {name: flags for name, flags in hand.items()
                if plans.allowed(name, self.args.privacy)
                and self.args.mode in ("auto", flags[1])}

    def static(self, scene):
        """name -> times of each plan by hand, under the condition of now."""
        return {name: Answer(self.place, self.prompt, scene.workers[-1:], flags).times(self.model)
                for name, flags in self.by_hand().items()}

    def moving(self, scene):
        """The answer in whose middle the condition changes."""
        return Answer(self.place, self.prompt, scene.workers,
                      ("--mode", self.args.mode, "--codec", self.args.codec, *self.args.flags),
                      self.at, scene.change)

    def round(self, kind):
        """The changing answer against static ones, which follow it."""
        foreign = self.place.foreign()
        with SCENES[kind](self.place, self.prompt) as scene:
            answer = self.moving(scene)
            if answer.changed_at is None or answer.changed_at > answer.chunks[-1][0]:
                raise common.Failed(f"{kind}: the answer ended before that: raise -n")
            static = self.static(scene)
        busy = foreign.cores()
        times = answer.times(self.model)
        count = min(len(times), *map(len, static.values()))
        shown = {name: other[:count] for name, other in static.items()}
        tokens = self.model.tokenize(answer.text, 0)
        same = next((i for i, (a, b) in enumerate(zip(tokens, self.truth)) if a != b),
                    min(len(tokens), len(self.truth)))
        return {"recovered_s": plans.recovered(times[:count], answer.changed_at, shown.values()),
                "moves": answer.moves, "move_why": answer.move_why, "plan": answer.plan,
                "same": same, "tokens": len(self.truth), "foreign": busy,
                **later(times[:count], answer.changed_at + RECOVERED_BAR, shown),
                "changed_at_s": answer.changed_at - times[0],
                "rates": [(t - times[0], r) for t, r in plans.rates(times)]}


def later(times, since, static):
    """Speed from `since` on, over the best static plan's for the same tokens, and which that is;
    None where the answer has ended by then."""
    first = next((i for i, t in enumerate(times) if t >= since), len(times) - 1)
    spans = {name: other[-1] - other[first] for name, other in static.items()}
    best = min(spans, key=spans.get)
    took = times[-1] - times[first]
    return {"best": best, "speed": spans[best] / took if took > 0 else None}


def add_row(report, kind, rounds):
    known = [r["recovered_s"] for r in rounds if r["recovered_s"] is not None]
    speeds = [r["speed"] for r in rounds if r["speed"] is not None]
    row = {"recovered": plans.median(known) if known else None,
           "worst": max(known, default=None), "never": len(rounds) - len(known),
           "speed": plans.median(speeds) if speeds else None, "best": rounds[-1]["best"],
           "plan": rounds[-1]["plan"], "foreign": max(r["foreign"] or 0 for r in rounds),
           "moves": max(r["moves"] for r in rounds),
           "same": min(r["same"] for r in rounds), "tokens": rounds[0]["tokens"]}
    bars = [("never", "<=", 0), ("moves", "<=", MOVES_BAR)]
    if known:
        bars.append(("worst", "<=", RECOVERED_BAR))
    if report.args.codec == "f32":
        bars.append(("same", ">=", row["tokens"]))
    report.add(bars, kind=kind, **row, rounds=rounds)


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("--scenes", type=lambda t: t.split(","), default=",".join(SCENES))
    p.add_argument("--rtt", type=float, default=20, help="ms, before (default %(default)s)")
    p.add_argument("--mbit", type=float, default=100, help="before (default %(default)s)")
    p.add_argument("--prompt", type=int, default=128, help="tokens (default %(default)s)")
    p.add_argument("--text", choices=plans.TEXTS, default="continued")
    p.add_argument("--at", type=int, default=150, help="token at which it changes")
    p.add_argument("--load", type=int, default=3, help="sessions that make the worker busy")
    p.add_argument("--mode", default="auto", help="restrict planner and peers to a mode")
    p.add_argument("--codec", default="f32", help="restrict both to it (default %(default)s)")
    p.add_argument("--privacy", choices=("split", "open"), default="split")
    wan.options(p)
    p.set_defaults(tokens=600, sessions=8)
    return p


def main():
    args = common.parse(parser())
    wan.complete(args, args.prompt)
    args.flags = ("--privacy", args.privacy) if args.privacy != "split" else ()
    report = common.Report("change", args)
    report.table(f"The condition changes at token {args.at} of {args.tokens}: from {args.rtt:g} "
                 f"ms, {args.mbit:g} Mbit/s; codec {args.codec}, load {os.getloadavg()[0]:.1f}",
                 [("kind", "change", "%s"), ("recovered", "recovered s", "%.1f"),
                  ("worst", "worst", "%.1f"), ("never", "never", "%d"), ("speed", "speed", "%.2f"),
                  ("best", "best static plan", "%s"), ("plan", "plan at the end", "%s"),
                  ("moves", "moves", "%d"),
                  ("same", "same", "%d"), ("tokens", "of tokens", "%d"),
                  ("foreign", "foreign", "%.2f")])
    with common.keys_folder() as keys, tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder, \
            wan.Place(args, keys, wan.places_of(args)[0]) as place:
        os.environ["MCP_CACHE"] = os.path.join(folder, "cache")
        bench = Bench(args, place, folder)
        for kind in args.scenes:
            add_row(report, kind, [bench.round(kind) for _ in range(args.rounds)])
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=2 * 3600))
