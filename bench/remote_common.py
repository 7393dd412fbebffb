# SPDX-License-Identifier: MIT
"""What the benches with a network in them share: peers, chats, turns, tables, an end in any case.

Workers and links are tests/integration/cluster.py's.  Everything listens on loopback.  Each wait
has a limit, and `run_bench` ends the whole at one: a bench that runs unattended never hangs.
"""
import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

import cluster  # noqa: E402  (found by the line above)

START_S = 60  # a program that is not ready by then never will be
LOAD_QUIET = 0.5


class Failed(Exception):
    """Something that could not do its part; the text is for the user."""


# ---- numbers -------------------------------------------------------------------------------

median = statistics.median


def percentile(values, part):
    """Nearest rank: one of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * part // 100) - 1))]


def in_turns(rounds, ours, theirs):
    """Call both `rounds` times in the order A B, B A, ...; two lists of results."""
    results = ([], [])
    for i in range(rounds):
        for side in ((0, 1) if i % 2 == 0 else (1, 0)):
            results[side].append((ours, theirs)[side]())
    return results


# ---- options, tables, the end --------------------------------------------------------------

def parser_of(doc, rounds=None, model=True):
    """Options that a bench of this kind has; rounds: the default of -r, None = it has none."""
    parser = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if model:
        parser.add_argument("-m", "--model", default=os.environ.get("MCP_MODEL_SMOLLM2"),
                            help="GGUF file (default: $MCP_MODEL_SMOLLM2)")
    if rounds is not None:
        parser.add_argument("-r", "--rounds", type=int, default=rounds)
    parser.add_argument("--json", metavar="FILE", help="write the rows there as an object")
    return parser


def numbers(text):
    """An option's "0,5.5,20"."""
    return [float(word) for word in text.split(",")]


def parse(parser):
    args = parser.parse_args()
    if "model" in args and args.model is None:
        parser.error("-m is required, or MCP_MODEL_SMOLLM2 in the environment")
    if "model" in args and not os.path.isfile(args.model):
        parser.error(f"{args.model}: no such file")
    if "rounds" in args and args.rounds < 1:
        parser.error("-r must be at least 1")
    return args


class Report:
    """Markdown tables on standard output as their rows come, kept for --json."""

    def __init__(self, name, args):
        self.name, self.args, self.rows, self.columns = name, args, [], []

    def say(self, text=""):
        print(text, flush=True)

    def progress(self, text):
        """On one line, where somebody looks."""
        if sys.stderr.isatty():
            print(f"\r\033[K{text}\r", end="", file=sys.stderr, flush=True)

    def table(self, title, columns):
        """columns: (key, heading, format) in order; a key that a row lacks shows as "-"."""
        self.columns, self.title = columns, title
        self.say(f"\n{title}\n\n| " + " | ".join(c[1] for c in columns) + " |")
        self.say("| " + " | ".join("---" for _ in columns) + " |")

    def add(self, bars=(), **values):
        """bars: (key, ">=" or "<=", limit); one that is not met is marked in its cell."""
        missed = {key for key, sign, limit in bars
                  if (values[key] < limit if sign == ">=" else values[key] > limit)}
        cells = []
        for key, _, form in self.columns:
            value = values.get(key)
            cells.append("-" if value is None else form % value)
            if key in missed:
                cells[-1] += " **MISS**"
        self.say("| " + " | ".join(cells) + " |")
        self.rows.append({"table": self.title, **values, "bars": [list(b) for b in bars],
                          "ok": not missed})

    def note(self, text):
        self.say(f"\n{text}")

    def save(self):
        barred = [row for row in self.rows if row["bars"]]
        self.say(f"\n{sum(not row['ok'] for row in barred)} of {len(barred)} rows with a bar "
                 "miss it")
        if self.args.json:
            options = {k: v for k, v in vars(self.args).items() if k != "json"}
            with open(self.args.json, "w", encoding="utf-8") as file:
                json.dump({"bench": self.name, "options": options, "rows": self.rows}, file,
                          indent=1)
                file.write("\n")


def on_alarm(*_):
    raise Failed("the bench took too long and was ended: is the machine busy?")


def run_bench(main, limit_s):
    """main() with an end after limit_s, whatever hangs; its children end with it."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.alarm(int(limit_s))
    if os.getloadavg()[0] > LOAD_QUIET:
        print(f"warning: load average {os.getloadavg()[0]:.1f}, something else is running; the "
              "times below mean little", file=sys.stderr)
    try:
        main()
    except (Failed, OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        signal.alarm(0)
    return 0


@contextlib.contextmanager
def keys_folder():
    with tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder:
        yield cluster.make_keys(os.path.join(folder, "keys"))


def bench_program(name):
    """A program made of bench/NAME.c."""
    folder = os.environ.get("MCP_BENCH_BIN") or os.path.join(
        os.path.dirname(os.path.dirname(cluster.mcp_program())), "bench")
    path = os.path.join(folder, name)
    if not os.access(path, os.X_OK):
        raise Failed(f"no {path}: build first (./dev build), or set MCP_BENCH_BIN")
    return path


def run_json_lines(command, timeout_s=120):
    """The objects that a program prints, one a line."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise Failed(f"{os.path.basename(command[0])}: {done.stderr.strip()[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def model_made(folder, **sizes):
    """A model of random weights in f16, of few and small layers: its time is in its links."""
    path = os.path.join(folder, "made.gguf")
    changes = [word for key, value in sizes.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([cluster.synth_program(), "--shape", "tiny-llama", *changes, "-o", path],
                   check=True, timeout=START_S, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return path


# ---- ours: one conversation ----------------------------------------------------------------

class Chat:
    """`mcp run` on a pipe: a turn a line, an object an answer.

    The process, its connections and the session stay from turn to turn, so all but the first
    are warm.  `turn` gives the answer's object, with the sums of each stage for this turn alone.
    """

    def __init__(self, model, keys, *arguments, threads=1):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            cluster.run_args(model, keys, "--raw", "--temp", "0", "--ignore-eos", *arguments,
                             threads=threads),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=cluster.clean_environment())
        self.sums = {}

    def turn(self, text, clear=True):
        """clear: the conversation begins anew, so that nothing of the last turn is reused."""
        try:
            self.process.stdin.write(("/clear\n" if clear else "") + text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        line = self.process.stdout.readline()
        if not line:
            self._fail()
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"mcp run: {answer['error']}")
        self._take_off(answer)
        return answer

    def _take_off(self, answer):
        """What the answer says of the whole session, less what it said last time."""
        sums = {key: answer[key] for key in ("bytes_out", "bytes_in", "windows")}
        for i, stage in enumerate(answer["plan"]["stages"]):
            for key in ("windows", "elapsed_ms", "queue_ms", "compute_ms"):
                sums[i, key] = stage[key]
                stage[key] -= self.sums.get((i, key), 0)
        for key in ("bytes_out", "bytes_in", "windows"):
            answer[key] -= self.sums.get(key, 0)
        self.sums = sums

    def _fail(self):
        self.process.wait(timeout=START_S)
        self.log.seek(0)
        raise Failed("mcp run: " + (self.log.read().decode(errors="replace").strip()[-500:]
                                    or f"exit status {self.process.returncode}"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=START_S)
        self.process.stdout.close()
        self.log.close()


def compute_ms(answer, where):
    """Of a turn, in all its windows: `where` is "here" or "worker"."""
    return sum(stage["compute_ms"] for stage in answer["plan"]["stages"]
               if stage["where"] == where)


def generate_ms(answer):
    """From the first token to the last."""
    rate = answer["predicted_per_second"]
    return (answer["generated_tokens"] - 1) * 1e3 / rate if rate else 0.0


# ---- theirs: llama.cpp's programs ----------------------------------------------------------

def llama_program(name):
    path = os.path.join(os.environ.get("MCP_LLAMA_BIN") or os.path.join(
        os.environ.get("MCP_CACHE") or os.path.expanduser("~/.cache/mcp"),
        "deps", "native", "build", "bin"), name)
    if not os.access(path, os.X_OK):
        raise Failed(f"no {path}: ./dev bench builds it, or set MCP_LLAMA_BIN")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A program that listens on a port it was told, until it is left."""

    def __init__(self, command, port):
        self.port = port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        until = time.monotonic() + START_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                text = self.said()
                self.__exit__()
                raise Failed(f"{command[0]} did not start: {text}")
            time.sleep(0.05)

    def ready(self):
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-500:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=START_S)
        self.log.close()


def rpc_server(threads):
    port = free_port()
    return Server([llama_program("ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port), "-t",
                   str(threads)], port)


def llama_bench(model, port, layers, *arguments, timeout_s=60):
    """llama-bench with its last `layers` layers (the output counts as one) on an rpc server;
    the average tokens/s of its one test."""
    command = [llama_program("llama-bench"), "-m", model, "--rpc", f"127.0.0.1:{port}", "-ngl",
               str(layers), "-t", "1", "-r", "1", "-o", "json", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise Failed(f"llama-bench: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)[0]["avg_ts"]
