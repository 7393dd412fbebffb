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
and never read, and that open sessions in a loop.  One `normal` user, for whom two sessions are
reserved, must not notice: p99 of the time from token to token <= 3 x p50.  The worker's resident
memory must not grow, and who is refused must be told when to come again.  All but the normal user
run at a lower priority, since they share the worker's cores here as they would not elsewhere.

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
LONG_MINUTES = 5.0  # by then all that fills is full, and who waited has had a turn
REGULAR = "regular"  # the normal user's name


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


def speed(report, args, keys):
    report.table(f"{args.sessions} sessions at once, prompt {PROMPT}, answer {ANSWER}, "
                 f"{args.threads} threads, context {args.ctx}",
                 [("ours", "ours tok/s", "%.1f"), ("theirs", "llama-server tok/s", "%.1f"),
                  ("ratio", "ratio", "%.3f"), ("low", "least", "%.3f"), ("high", "most", "%.3f"),
                  ("ours_us", "our client us/token", "%.0f"),
                  ("theirs_us", "their client us/token", "%.0f")])
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
    report.add([("ratio", ">=", SPEED_BAR)], ours=common.median(rates[0]),
               theirs=common.median(rates[1]), ratio=common.median(ratios), low=min(ratios),
               high=max(ratios), ours_us=common.median(r["client_us"] for r in results[0]),
               theirs_us=common.median(r["client_us"] for r in results[1]))


# ---- the soak ------------------------------------------------------------------------------

def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Company:
    """Processes of sessions_common.py."""

    def __init__(self, args, seconds):
        self.args, self.until, self.running = args, time.monotonic() + seconds, []

    def start(self, role, endpoint, keys):
        seconds = max(1.0, self.until - time.monotonic())
        nice = [] if role == "normal" else ["nice", "-n", "10"]
        process = subprocess.Popen(
            [*nice, sys.executable, clients.__file__, role, endpoint, str(keys), str(self.args.ctx),
             str(self.args.sessions), f"{seconds:.1f}"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


def soak(report, args, keys):
    seconds = args.minutes * 60
    regular = os.path.join(os.path.dirname(str(keys)), REGULAR)
    subprocess.run([common.cluster.mcp_program(), "keys", "issue", "client", REGULAR, "--keys",
                    str(keys), "-o", regular], check=True, timeout=30, stdout=subprocess.DEVNULL,
                   env=common.cluster.clean_environment())
    memory, kills, resets = [], 0, 0
    with common.cluster.Worker(args.model, keys, "-np", args.sessions, "-c", args.ctx, "--reserve",
                               f"{REGULAR}=2", threads=args.threads) as w, \
            common.cluster.Link(w.port) as cut, Company(args, seconds) as company:
        start = resident_bytes(w.pid)
        normal = company.start("normal", w.endpoint, regular)
        others = {role: company.start(role, w.endpoint, keys)
                  for role in ("batch", "flood", "stall")}
        others["reset"] = company.start("generate", cut.endpoint, keys)
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
            victim = company.start("generate", w.endpoint, keys)
            fault = time.monotonic() + FAULT_EVERY_S
            report.progress(f"{company.until - time.monotonic():.0f} s left, worker "
                            f"{memory[-1] >> 20} MiB")
        if victim is not None:
            company.kill(victim)
        seen = {name: company.result(process) for name, process in others.items()}
        seen["normal"] = company.result(normal)
        after = clients.describe(w.endpoint, keys)  # it still answers
        assert after.layers > 0
        status = w.stop()
    soak_rows(report, args, seen, kills, resets)
    soak_summary(report, args, seen, start, memory, status)


def soak_rows(report, args, seen, kills, resets):
    report.table(f"{args.minutes:g} minutes of {args.sessions} sessions: who came",
                 [("who", "who", "%s"), ("opened", "opened", "%d"), ("answers", "answers", "%d"),
                  ("tokens", "tokens", "%d"), ("refused", "refused", "%d"),
                  ("without_retry", "without retry-after", "%d"),
                  ("ended", "ended by worker or link", "%d"), ("last_end", "the last", "%s")])
    names = {"normal": "normal, 2 reserved",
             "batch": f"{clients.OVERLOAD * args.sessions} batch",
             "flood": f"{clients.FLOODS} that open in a loop", "stall": f"{clients.STALLS} that "
             "never read", "reset": f"{clients.RESETS} behind a link reset {resets} times"}
    for who, name in names.items():
        report.add([("without_retry", "<=", 0)], **{**seen[who], "who": name, "times_ms": None})
    report.note(f"{clients.RESETS} more were killed at work {kills} times.")


def soak_summary(report, args, seen, start, memory, status):
    times = seen["normal"]["times_ms"] or [0.0]
    half = len(memory) // 2
    p50, p99 = common.percentile(times, 50), common.percentile(times, 99)
    report.table("What came of it",
                 [("p50_ms", "normal p50 ms", "%.1f"), ("p99_ms", "p99", "%.1f"),
                  ("ratio", "p99 / p50", "%.2f"),
                  ("least", "least answers of a batch client", "%d"),
                  ("start_mib", "worker MiB at the start", "%.0f"), ("held", "most beyond", "%.0f"),
                  ("first_mib", "peak of the first half", "%.0f"),
                  ("second_mib", "of the second", "%.0f"), ("growth", "growth", "%.3f"),
                  ("status", "exit status", "%d")])
    bars = [("ratio", "<=", P99_BAR), ("held", "<=", HELD_MIB), ("status", "<=", 0)]
    if args.minutes >= LONG_MINUTES:
        bars += [("least", ">=", 1), ("growth", "<=", GROWTH_BAR)]
    report.add(bars,
               p50_ms=p50, p99_ms=p99, ratio=p99 / p50 if p50 else 1e9,
               least=seen["batch"]["least_answers"], start_mib=start / 2**20,
               held=(max(memory) - start) / 2**20,
               first_mib=max(memory[:half]) / 2**20, second_mib=max(memory[half:]) / 2**20,
               growth=max(memory[half:]) / max(memory[:half]), status=abs(status),
               memory_mib=[value >> 20 for value in memory])


def parser():
    p = common.parser_of(__doc__, rounds=3)
    p.add_argument("-np", "--sessions", type=int, default=64, help="(default %(default)s)")
    p.add_argument("-c", "--ctx", type=int, default=512, help="of a session (default %(default)s)")
    p.add_argument("-t", "--threads", type=int,
                   default=max(1, len(os.sched_getaffinity(0)) - 1), help="(default %(default)s)")
    p.add_argument("--minutes", type=float, default=1.0, help="of soak; 0 = none (default "
                   "%(default)s; 10 for the record)")
    return p


def main():
    args = common.parse(parser())
    report = common.Report("sessions", args)
    with common.keys_folder() as keys:
        speed(report, args, keys)
        if args.minutes > 0:
            soak(report, args, keys)
    report.note(f"Bars: ratio >= {SPEED_BAR:g}; normal p99 / p50 <= {P99_BAR:g}; no more than "
                f"{HELD_MIB} MiB beyond the worker's start; no refusal without retry-after; from "
                f"{LONG_MINUTES:g} minutes on, growth <= {GROWTH_BAR:g} and an answer for each "
                "batch client.")
    report.save()


if __name__ == "__main__":
    sys.exit(common.run_bench(main, limit_s=3600))
