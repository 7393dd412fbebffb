# SPDX-License-Identifier: MIT
"""What benches about plans run on: cores divided between agent, worker and link, and the runs.

Agent and worker never share a core: each process inherits the cores of the thread that starts
it.  What others took of these cores meanwhile is measured, not guessed from a load average.
"""
import contextlib
import json
import os
import resource
import shlex
import subprocess
import time

import cluster  # found through remote_common
from remote_common import Failed

RUN_S = 600  # no single request takes longer


# ---- cores -------------------------------------------------------------------------------------

def cores_of(text):
    """"0-3,8" -> [0, 1, 2, 3, 8]"""
    cores = []
    for word in text.split(","):
        first, _, last = word.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return cores


def divide(cores, jobs):
    """(agent's, worker's, link's) cores of each job: a third for the agent, from three cores on
    one for the link; of two it shares both, and sleeps but for its bytes."""
    each = len(cores) // jobs
    if each < 2:
        raise Failed(f"{len(cores)} cores are too few for --jobs {jobs}: each takes two or more")
    here, spare = max(1, each // 3), int(each > 2)
    parts = [cores[i * each:(i + 1) * each] for i in range(jobs)]
    return [(p[:here], p[here:each - spare], p[each - spare:] if spare else p) for p in parts]


@contextlib.contextmanager
def on_cores(cores):
    """Processes started inside run there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Foreign:
    """Cores, on average, that others kept busy among `cores`; None where the kernel hides it."""

    def __init__(self, cores, pids):
        self.names, self.pids = {f"cpu{c}" for c in cores}, pids
        self.start = self._read()

    def _read(self):
        tick = os.sysconf("SC_CLK_TCK")
        busy = total = 0
        with open("/proc/stat", encoding="ascii") as file:
            for words in map(str.split, file):
                if words[0] in self.names:
                    ticks = list(map(int, words[1:9]))
                    total += sum(ticks)
                    busy += sum(ticks) - ticks[3] - ticks[4]  # idle, waiting for a disk
        own = sum(sum(resource.getrusage(who)[:2])
                  for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        for pid in self.pids:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                words = file.read().rpartition(")")[2].split()
            own += (int(words[11]) + int(words[12])) / tick
        return busy / tick, own, total / tick

    def cores(self):
        busy, own, total = (b - a for a, b in zip(self.start, self._read()))
        return max(0.0, busy - own) / total * len(self.names) if total > 0 else None


# ---- processes ---------------------------------------------------------------------------------

class BenchWorker(cluster.Process):
    """`mcp worker` of another program or with other options than tests need."""

    def __init__(self, model, keys, *arguments, program=None, port=0):
        super().__init__([program or cluster.mcp_program(), "worker", "-m", str(model), "--keys",
                          str(keys), "--listen", f"127.0.0.1:{port}", "--json",
                          *map(str, arguments)])
        self.port = int(json.loads(self.ready)["ready"].rpartition(":")[2])


class Place:
    """One agent's surroundings: keys, cores, a worker, and a link to it that can be changed."""

    def __init__(self, args, keys, cores):
        self.args, self.keys = args, keys
        self.here, self.there, self.between = cores
        self.threads = args.here_threads or len(self.here)
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.worker = self.stack.enter_context(self.start_worker())
            self.link = self.stack.enter_context(self.start_link(self.worker.port))
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start_worker(self, port=0):
        threads = () if "-t" in self.args.worker_args else ("-t", len(self.there))
        with on_cores(self.there):
            return BenchWorker(self.args.model, self.keys, "-np", self.args.sessions, "-c",
                               self.args.ctx, *threads, *self.args.worker_args,
                               program=self.args.worker_bin, port=port)

    def start_link(self, port):
        with on_cores(self.between):
            return cluster.Link(port)

    def foreign(self):
        """From now on; see Foreign."""
        return Foreign(self.here + self.there + self.between, [self.worker.pid, self.link.pid])

    def set_link(self, rtt, mbit, link=None):
        link = link or self.link
        link.tell(f"rtt {rtt:g}")
        link.tell(f"mbit {mbit:g}")

    def base(self, *arguments):
        return ["-m", str(self.args.model), "--keys", str(self.keys), "-t", str(self.threads),
                *self.args.here_args, *map(str, arguments)]

    def mcp(self, verb, *arguments):
        """Standard output of `mcp VERB`; Failed with its sentence."""
        try:
            with on_cores(self.here):
                done = subprocess.run([cluster.mcp_program(), verb, *self.base(*arguments)],
                                      text=True, stdin=subprocess.DEVNULL, capture_output=True,
                                      env=cluster.clean_environment(), timeout=RUN_S, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"mcp {verb} took longer than {RUN_S} s") from None
        if done.returncode != 0:
            raise Failed(done.stderr.strip()[-300:] or f"mcp {verb}: status {done.returncode}")
        return done.stdout

    def plan(self, prompt_tokens, *flags):
        """mode -> what the planner says of its best plan under these flags."""
        out = self.mcp("plan", "--json", "--worker", self.link.endpoint, "--prompt-tokens",
                       prompt_tokens, "--gen", self.args.tokens, *flags)
        return {mode["mode"]: mode for mode in json.loads(out)["modes"]}

    def run(self, prompt_file, *flags):
        """A request as a user makes it; what it took."""
        start = time.monotonic()
        answer = json.loads(self.mcp(
            "run", "--json", "--raw", "--temp", 0, "--ignore-eos", "-c", self.args.ctx, "-n",
            self.args.tokens, "-f", prompt_file, "--worker", self.link.endpoint,
            *flags).splitlines()[-1])
        return {**measured_of(answer), "wall_ms": (time.monotonic() - start) * 1e3}


def measured_of(answer):
    """Of the object of `mcp run --json`: times, bytes, and the plan that it followed."""
    tokens, rate = answer["generated_tokens"], answer["predicted_per_second"]
    token_ms = 1e3 / rate if rate else 0.0
    return {"prompt_tokens": answer["prompt_tokens"], "tokens": tokens,
            "ttft_ms": answer["ttft_ms"], "token_ms": token_ms,
            "total_ms": answer["ttft_ms"] + (tokens - 1) * token_ms,
            "bytes": answer["bytes_out"] + answer["bytes_in"], "text": answer["text"],
            "plan": answer["plan"], "codec": answer["codec"]}


def options(p):
    """Of where things run; `complete` fills in what depends on others."""
    p.add_argument("-n", "--tokens", type=int, default=128, help="generated (default %(default)s)")
    p.add_argument("--cores", type=cores_of, help="to be divided (default: all allowed ones)")
    p.add_argument("--here-cores", type=cores_of, metavar="LIST", help="the agent's, such as 0-3; "
                   "the worker has the others")
    p.add_argument("--here-threads", type=int, default=0, metavar="N", help="default: its cores")
    p.add_argument("--here-args", type=shlex.split, default="", metavar="'...'",
                   help="more options for the agent, such as '--device cpu'")
    p.add_argument("--worker-bin", metavar="FILE", help="another mcp program for the worker")
    p.add_argument("--worker-args", type=shlex.split, default="", metavar="'...'",
                   help="more options for the worker, such as '-ngl 99'")
    p.add_argument("--sessions", type=int, default=4, help="of the worker (default %(default)s)")
    p.add_argument("--bundle", metavar="DIR", help="a folder of ready programs (build-portable)")


def complete(args, prompt_tokens):
    """Cores, context and programs."""
    args.cores = args.cores or sorted(os.sched_getaffinity(0))
    args.ctx = -(-(prompt_tokens + args.tokens + 64) // 256) * 256
    if args.bundle:
        for variable, path in (("MCP_BIN", "bin/mcp"), ("MCP_WAN", "bin/mcp-wan"),
                               ("MCP_LIB", "lib/libmcp.so")):
            os.environ[variable] = os.path.join(os.path.abspath(args.bundle), path)
        os.environ.setdefault("LD_LIBRARY_PATH", "/usr/local/cuda/lib64")


def places_of(args, jobs=1):
    """Cores of each job."""
    if args.here_cores is None:
        return divide(args.cores, jobs)
    rest = [c for c in args.cores if c not in args.here_cores]
    if jobs != 1 or not rest:
        raise Failed("--here-cores goes with --jobs 1 and leaves cores for the worker")
    return [(args.here_cores, rest, rest)]


def library():
    """libmcp, for its tokenizer."""
    import libmcp  # found through remote_common
    path = os.environ.get("MCP_LIB") or os.path.join(
        os.path.dirname(os.path.dirname(cluster.mcp_program())), "lib", "libmcp.so")
    if not os.path.isfile(path):
        raise Failed(f"no {path}: build first (./dev build), or set MCP_LIB")
    return libmcp.Library(path)
