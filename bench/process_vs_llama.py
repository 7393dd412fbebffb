#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whole processes against llama.cpp: time to the first token, and peak memory.

Two small twins, load_mcp and load_llama, do the same job on the two libraries: load the
model, run a prompt, pick a token, end (bench/load.h).  They are started in turns, A B, B A,
..., so that a machine that drifts, drifts for both.  Measured from outside:

  time    from fork to the moment the first token's line arrives, with the file in the page
          cache (warm) and, where the kernel drops it on request, read from disk (cold)
  memory  ru_maxrss of the whole process: context 4096, micro-batch 512, a prompt of 512
          tokens.  Pages of the mapped file count for both; the anonymous part, which no
          other process can share, is shown beside it without a bar.

`mcp run` itself is compared with llama-completion where $MCP_LLAMA_BIN holds one.
Only the standard library is needed.  The exit status is 0 unless something cannot run.
"""
import argparse
import errno
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPEED_BAR = 0.97  # theirs / ours in time: below it, a defect
MEMORY_BAR = 1.05  # ours / theirs in bytes: above it, a defect
MIB = 1 << 20


class Failed(Exception):
    """A program that could not do its part; the text is for the user."""


def run_once(command, first_line=True):
    """Run a command to its end: seconds to its first line (or its exit), peak bytes, output."""
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads could fill up
        start = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=log)
        head = child.stdout.readline() if first_line else b""
        seconds = time.monotonic() - start
        rest = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if not first_line:
            seconds = time.monotonic() - start
        log.seek(0)
        complaint = log.read()
    if child.returncode != 0:
        raise Failed("%s: exit status %d: %s" % (
            " ".join(command), child.returncode,
            complaint.decode(errors="replace").strip()[-500:] or "no message"))
    return seconds, usage.ru_maxrss * 1024, (head + rest).decode(errors="replace")


def file_parts(path):
    """The files of a model: one, or all parts of a split one."""
    name = os.path.basename(path)
    mark = name.rfind("-of-")
    if mark < 6:
        return [path]
    stem, end = name[:mark - 5], name[mark:]
    return [os.path.join(os.path.dirname(path), f)
            for f in sorted(os.listdir(os.path.dirname(path) or "."))
            if f.startswith(stem) and f.endswith(end)]


def drop_from_cache(path):
    """Ask the kernel to forget a file's pages; True when it did.

    Needs no privilege, but pages that somebody has mapped stay, and some file systems take
    no such advice.  A read that may not block tells: it fails on what is not in memory.
    """
    for part in file_parts(path):
        fd = os.open(part, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(fd).st_size
            for offset in range(0, size, max(size // 16, 1)):
                try:
                    os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
                    return False
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        return False
        finally:
            os.close(fd)
    return True


def read_through(path):
    for part in file_parts(path):
        with open(part, "rb", buffering=0) as f:
            while f.read(16 * MIB):
                pass


def in_turns(ours, theirs, rounds, before=lambda: True, first_line=True):
    """Both commands `rounds` times in the order A B, B A, ...; two lists of run_once()."""
    results = ([], [])
    for i in range(rounds):
        for side in ((0, 1) if i % 2 == 0 else (1, 0)):
            if not before():
                return None
            results[side].append(run_once((ours, theirs)[side], first_line))
    return results


class Table:
    """Rows on standard output as they come, kept for --json."""

    def __init__(self, as_json):
        self.rows = []
        self.out = sys.stderr if as_json else sys.stdout

    def head(self):
        print("| %-26s | %11s | %11s | %5s | %-12s | %-12s |\n|%s|" % (
            "row", "ours", "llama", "ratio", "spread", "bar",
            "|".join("-" * n for n in (28, 13, 13, 7, 14, 14))), file=self.out, flush=True)

    def add(self, name, unit, ours, theirs, bar):
        """ours, theirs: one value a round, less is better.  bar: "speed", "memory" or None."""
        if bar == "speed":
            ratios = sorted(t / o for o, t in zip(ours, theirs))
        else:
            ratios = sorted(o / t for o, t in zip(ours, theirs))
        ratio = statistics.median(ratios)
        ok = {"speed": ratio >= SPEED_BAR, "memory": ratio <= MEMORY_BAR, None: True}[bar]
        limit = {"speed": ">= %.2f" % SPEED_BAR, "memory": "<= %.2f" % MEMORY_BAR, None: "-"}[bar]
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        self.rows.append({"row": name, "unit": unit, "ours": ours, "theirs": theirs,
                          "ratio": ratio, "spread": [ratios[0], ratios[-1]], "bar": limit,
                          "ok": ok})
        print("| %-26s | %7.1f %-3s | %7.1f %-3s | %5.3f | %5.3f..%5.3f | %-12s |" % (
            name, ours, unit, theirs, unit, ratio, ratios[0], ratios[-1],
            limit + ("" if ok else " MISS")), file=self.out, flush=True)

    def skip(self, name, why):
        self.rows.append({"row": name, "skipped": why})
        print("| %-26s | skipped: %s" % (name, why), file=self.out, flush=True)


def last_json(output):
    return json.loads(output.strip().splitlines()[-1])


def load_rows(table, args, ours, theirs):
    """Time to the first token, warm and cold."""
    for name, before, rounds in (
            ("first token, warm", lambda: True, args.rounds),
            ("first token, cold", lambda: drop_from_cache(args.model), args.cold_rounds)):
        if rounds == 0:
            continue
        if name.endswith("warm"):
            read_through(args.model)
            run_once(ours)  # libraries come into the page cache too
            run_once(theirs)
        results = in_turns(ours, theirs, rounds, before)
        if results is None:
            table.skip(name, "the kernel keeps the file in its page cache")
            continue
        table.add(name, "ms", *([r[0] * 1e3 for r in side] for side in results), "speed")


def memory_rows(table, args, ours, theirs):
    prompt = ["-p", "512"]
    results = in_turns(ours + prompt, theirs + prompt, min(args.rounds, 3))
    table.add("peak memory, 512 tokens", "MiB", *([r[1] / MIB for r in side] for side in results),
              "memory")
    table.add("anonymous part at the end", "MiB",
              *([last_json(r[2])["anonymous_bytes"] / MIB for r in side] for side in results),
              None)


def command_row(table, args):
    """The commands that a user types, from start to exit after one token."""
    name = "mcp run -n 1, to its exit"
    mcp = os.environ.get("MCP_BIN", os.path.join(ROOT, "build", "bin", "mcp"))
    peer = os.path.join(os.environ.get("MCP_LLAMA_BIN", ""), "llama-completion")
    for program in (mcp, peer):
        if not os.access(program, os.X_OK):
            table.skip(name, "no %s" % os.path.basename(program))
            return
    common = ["-m", args.model, "-p", "Hello", "-n", "1", "--temp", "0", "-t", str(args.threads),
              "-c", "4096", "-fa", "on"]
    results = in_turns([mcp, "run", "--raw", "--device", args.device] + common,
                       [peer, "-no-cnv", "--no-warmup", "--no-display-prompt"]
                       + (["-ngl", "0"] if args.device == "cpu" else []) + common,
                       args.rounds, first_line=False)
    table.add(name, "ms", *([r[0] * 1e3 for r in side] for side in results), "speed")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default=os.environ.get("MCP_MODEL_SMOLLM2"),
                        help="GGUF file (default: $MCP_MODEL_SMOLLM2)")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3, help="0 = no cold row")
    parser.add_argument("--device", default="cpu", help="cpu, cuda0, ...")
    parser.add_argument("--json", action="store_true", help="an object on standard output")
    args = parser.parse_args()
    if args.model is None:
        parser.error("-m is required, or MCP_MODEL_SMOLLM2 in the environment")
    if args.rounds < 1 or args.cold_rounds < 0 or args.threads < 1:
        parser.error("-r and -t must be at least 1, --cold-rounds at least 0")
    if not os.path.isfile(args.model):
        parser.error("%s: no such file" % args.model)

    folder = os.environ.get("MCP_BENCH_BIN", os.path.join(ROOT, "build", "bench"))
    options = ["-m", args.model, "-t", str(args.threads), "-c", "4096", "--device", args.device]
    ours = [os.path.join(folder, "load_mcp")] + options
    theirs = [os.path.join(folder, "load_llama")] + options

    for program in (ours[0], theirs[0]):
        if not os.access(program, os.X_OK):
            parser.error("no %s: build first (./dev build), or set MCP_BENCH_BIN" % program)

    table = Table(args.json)
    print("%s on %s, %d threads, context 4096\n" % (args.model, args.device, args.threads),
          file=table.out)
    if os.getloadavg()[0] > 0.5:
        print("warning: load average %.1f, something else is running; the times below mean little"
              % os.getloadavg()[0], file=sys.stderr)
    table.head()
    try:
        load_rows(table, args, ours, theirs)
        memory_rows(table, args, ours, theirs)
        command_row(table, args)
    except (Failed, OSError) as error:
        print("bench: %s" % error, file=sys.stderr)
        return 1
    if args.json:
        json.dump({"bench": "process_vs_llama", "model": args.model, "device": args.device,
                   "threads": args.threads, "rows": table.rows}, sys.stdout, indent=1)
        print()
    missed = sum(not row.get("ok", True) for row in table.rows)
    print("\n%d of %d rows miss their bar" % (missed, len(table.rows)), file=table.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
