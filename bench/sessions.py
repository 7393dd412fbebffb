#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Many sessions on one worker: tokens/s beside llama-server, and a soak with bad company.

Speed: 64 sessions, each on a connection of its own, send a prompt at the same moment and are
answered by the worker alone (cloud mode), all with 32 tokens of prompt and 48 of answer; then the
same from llama-server with 64 slots, same file, threads, context, prompts (as token ids), greedy,
streamed.  Both clients are one Python process with asyncio; what it costs a token is shown.
With -t one below the number of cores (the default) neither side computes where the client runs.

Soak: for --minutes the worker has twice as many batch clients as sessions, and beside them ones
that are killed at work, that lose their connection to an RST, that ask for logits by the megabyte
and never read, and that open sessions in a loop and leave them; each kind a subject of its own.
One `normal` user, for whom two sessions are reserved, must not notice: p99 of the time from token
to token <= 3 x p50.  Nor may a batch session starve, the worker's resident memory grow, or anybody be
refused without being told when to come again.

Needs llama-server ($MCP_LLAMA_BIN).
"""
import asyncio
import json
import os
import resource
import subprocess
import sys
import time

import remote_common as common
import sessions_common as clients

SPEED_BAR = 1.0
P99_BAR = 3.0
GROWTH_BAR = 1.1  # peak of the second half of a long soak / peak of the first
HELD_MIB = 64 + 256 * clients.STALLS  # queues, and what a session may hold that does not read
PROMPT, ANSWER = 32, 48
RUN_S = 240
FAULT_EVERY_S = 3.0
STARVED_S = 240  # a batch session that waits longer for a token is starved; all 64 begin at once
LONG_MINUTES = 5.0  # by then all that fills is full
ROUND_S = 150  # of speed, both sides; on the slowest machine that this was run on, with room


# ---- speed ---------------------------------------------------------------------------------

def client_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(work, count):
    """tokens/s of `work`, which waits for all its answers, and the client's us a token."""
    busy, (seconds, tokens) = client_s(), asyncio.run(asyncio.wait_for(work(), RUN_S))
    if tokens != count * ANSWER:
        raise common.Failed(f"{tokens} tokens came where {count * ANSWER} were asked for")
    return {"rate": tokens / seconds, "client_us": (client_s() - busy) * 1e6 / tokens}


def ours(endpoint, keys, model, prompts, ctx):
    async def work():
        sessions = [clients.Session(endpoint, keys, model) for _ in prompts]
        await asyncio.gather(*(session.open(ctx) for session in sessions))
        began = time.perf_counter()
        times = await asyncio.gather(*(session.generate(tokens, ANSWER)
                                       for session, tokens in zip(sessions, prompts)))
        seconds = time.perf_counter() - began
        await asyncio.gather(*(session.close() for session in sessions))
        return seconds, sum(map(len, times))

    return timed(work, len(prompts))


async def completion(reader, writer, tokens):
    """POST /completion, streamed; the number of tokens that it says it gave."""
    body = json.dumps({"prompt": tokens, "n_predict": ANSWER, "stream": True, "temperature": 0,
                       "ignore_eos": True, "cache_prompt": False}).encode()
    writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
                 b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    while True:
        line = await reader.readline()
        if not line:
            raise common.Failed("llama-server ended a connection")
        if line.startswith(b"data: ") and b'"stop":true' in line:
            writer.close()
            return json.loads(line[6:])["tokens_predicted"]


def theirs(port, prompts):
    async def work():
        connections = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port)
                                             for _ in prompts))
        began = time.perf_counter()
        counts = await asyncio.gather(*(completion(*pair, tokens)
                                        for pair, tokens in zip(connections, prompts)))
        return time.perf_counter() - began, sum(counts)

    return timed(work, len(prompts))


class LlamaServer(common.Server):
    def ready(self):
        return b"model loaded" in self.whole() and super().ready()

    def whole(self):
        self.log.seek(0)
        return self.log.read()


def llama_server(args, port):
    """Its KV regions apart, as by default: unified (-kvu) it gives a third fewer tokens/s here."""
    return LlamaServer([common.llama_program("llama-server"), "-m", args.model, "--port", str(port),
                        "-np", str(args.sessions), "-c", str(args.sessions * args.ctx), "-t",
                        str(args.threads), "-tb", str(args.threads), "-ngl", "0", "-fa", "on",
                        "--no-webui", "--cache-ram", "0"], port)


def speed(table, args, keys):
    with common.cluster.Worker(args.model, keys, "-np", args.sessions, "-c", args.ctx, "-fa", "on",
                               threads=args.threads) as w, \
            llama_server(args, common.free_port()) as server:
        model = clients.describe(w.endpoint, keys)
        prompts = [clients.tokens_of(i, PROMPT, model.n_vocab) for i in range(args.sessions)]
        ours(w.endpoint, keys, model, prompts[:4], args.ctx)
        theirs(server.port, prompts[:4])
        results = common.in_turns(args.rounds,
                                  lambda: ours(w.endpoint, keys, model, prompts, args.ctx),
                                  lambda: theirs(server.port, prompts))
    rates = [[result["rate"] for result in side] for side in results]
    ratios = [a / b for a, b in zip(*rates)]
    client_us = [common.median(r["client_us"] for r in side) for side in results]
    table.add("all at once: ours, tokens/s", common.median(rates[0]))
    table.add("llama-server", common.median(rates[1]))
    table.add("ratio", common.median(ratios), (">=", SPEED_BAR))
    table.add("ratio, least of the rounds", min(ratios))
    table.add("ratio, most", max(ratios))
    table.add("cost of our client, us/token", client_us[0])
    table.add("of llama-server's", client_us[1])


# ---- the soak ------------------------------------------------------------------------------

def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Table:
    """A row for each figure, with what it has to be."""

    def __init__(self, report, title):
        self.report = report
        report.table(title, [("what", "", "%s"), ("value", "value", "%.6g"), ("bar", "bar", "%s")])

    def add(self, what, value, *bars):
        value = round(value, 3 if value < 10 else 1)
        self.report.add([("value", sign, limit) for sign, limit in bars], what=what, value=value,
                        bar=" ".join(f"{sign} {limit:.6g}" for sign, limit in bars) or None)


class Company:
    """Processes of sessions_common.py; a subject for each role, issued by `keys`."""

    def __init__(self, args, keys, seconds):
        self.args, self.running = args, []
        self.folder = os.path.dirname(str(keys))
        for role in clients.ROLES:
            subprocess.run([common.cluster.mcp_program(), "keys", "issue", "client", role, "--keys",
                            str(keys), "-o", os.path.join(self.folder, role)], check=True,
                           timeout=30, stdout=subprocess.DEVNULL,
                           env=common.cluster.clean_environment())
        self.until = time.monotonic() + seconds

    def start(self, role, endpoint):
        seconds = max(1.0, self.until - time.monotonic())
        process = subprocess.Popen(
            [sys.executable, clients.__file__, role, endpoint, os.path.join(self.folder, role),
             str(self.args.ctx), str(self.args.sessions), f"{seconds:.1f}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def kill(self, process):
        process.kill()
        process.communicate(timeout=30)
        self.running.remove(process)

    def result(self, process):
        out, err = process.communicate(timeout=clients.CALL_S)
        self.running.remove(process)
        if process.returncode != 0:
            raise common.Failed(f"a client failed: {err.strip()[-500:]}")
        return json.loads(out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in list(self.running):
            self.kill(process)


def soak(table, args, keys):
    memory, kills, resets = [], 0, 0
    with common.cluster.Worker(args.model, keys, "-np", args.sessions, "-c", args.ctx, "--reserve",
                               "normal=2", threads=args.threads) as w, \
            common.cluster.Link(w.port) as cut, Company(args, keys, args.minutes * 60) as company:
        start = resident_bytes(w.pid)
        running = {role: company.start(role, w.endpoint)
                   for role in ("normal", "batch", "flood", "stall")}
        running["generate"] = company.start("generate", cut.endpoint)
        victim, fault = None, time.monotonic() + FAULT_EVERY_S
        while time.monotonic() < company.until:
            time.sleep(0.5)
            memory.append(resident_bytes(w.pid))
            if time.monotonic() < fault:
                continue
            if victim is not None:
                company.kill(victim)
                kills += 1
            cut.tell("reset")
            resets += 1
            victim = company.start("generate", w.endpoint)
            fault = time.monotonic() + FAULT_EVERY_S
            table.report.progress(f"{company.until - time.monotonic():.0f} s left, worker "
                                  f"{memory[-1] >> 20} MiB")
        if victim is not None:
            company.kill(victim)
        seen = {name: company.result(process) for name, process in running.items()}
        after = clients.describe(w.endpoint, keys)  # it still answers
        assert after.layers > 0
        status = w.stop()
    soak_rows(table, args, seen, {"killed": kills, "reset": resets})
    memory_rows(table, args, start, memory)
    table.add("worker's exit status", abs(status), ("<=", 0))


def soak_rows(table, args, seen, faults):
    times = seen["normal"]["times_ms"] or [0.0]
    p50, p99 = common.percentile(times, 50), common.percentile(times, 99)
    tokens = sum(client["tokens"] for client in seen.values())
    refused = sum(client["refused"] for client in seen.values())
    silent = sum(client["without_retry"] for client in seen.values())
    table.add("soak, minutes", args.minutes)
    table.add("normal, token to token, p50 ms", p50)
    table.add("p99 ms", p99)
    table.add("p99 / p50", p99 / p50 if p50 else 1e9, ("<=", P99_BAR))
    table.add("tokens/s of all", tokens / (args.minutes * 60))
    table.add("of normal", seen["normal"]["tokens"] / (args.minutes * 60))
    table.add("of batch", seen["batch"]["tokens"] / (args.minutes * 60))
    table.add("longest wait of a batch session for a token, s", seen["batch"]["longest_wait_s"],
              ("<=", STARVED_S))
    table.add("sessions opened", sum(client["opened"] for client in seen.values()))
    table.add("refused with retry-after", refused - silent)
    table.add("refused without", silent, ("<=", 0))
    for name, count in faults.items():
        table.add(f"clients {name} at work, times", count)
    table.report.rows.append({"table": "clients", "seen": {
        name: {**client, "times_ms": None} for name, client in seen.items()}, "bars": []})


def memory_rows(table, args, start, memory):
    half = len(memory) // 2
    growth = max(memory[half:]) / max(memory[:half])
    table.add("worker at the start, MiB", start / 2**20)
    table.add("its peak, MiB", max(memory) / 2**20, ("<=", start / 2**20 + HELD_MIB))
    table.add("at the end, MiB", memory[-1] / 2**20)
    table.add("peak of the second half / of the first", growth,
              *([("<=", GROWTH_BAR)] if args.minutes >= LONG_MINUTES else []))


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("-np", "--sessions", type=int, default=64, help="(default %(default)s)")
    p.add_argument("-c", "--ctx", type=int, default=512, help="of a session (default %(default)s)")
    p.add_argument("-t", "--threads", type=int,
                   default=max(1, len(os.sched_getaffinity(0)) - 1), help="(default %(default)s)")
    p.add_argument("--minutes", type=float, default=1.0, help="of soak; 0 = none (default "
                   "%(default)s; 10 for the record)")
    return p


def main(args):
    report = common.Report("sessions", args)
    table = Table(report, f"{args.sessions} sessions, context {args.ctx}, {args.threads} threads; "
                  f"prompt {PROMPT} and answer {ANSWER} where all begin at once")
    with common.keys_folder() as keys:
        speed(table, args, keys)
        if args.minutes > 0:
            soak(table, args, keys)
    report.save()


if __name__ == "__main__":
    given = common.parse(parser())
    sys.exit(common.run_bench(lambda: main(given),
                              limit_s=120 + ROUND_S * given.rounds + 60 * given.minutes + 120))
