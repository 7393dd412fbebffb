# SPDX-License-Identifier: MIT
"""Workers, links and agents as processes of their own, for tests and benchmarks.

Everything listens on loopback, on ports that the kernel chose; everything is ended by the
process id that was started here.
"""

import json
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_S = 60


def _program(variable, name):
    return os.environ.get(variable) or str(ROOT / "build/bin" / name)


def mcp_program():
    return _program("MCP_BIN", "mcp")


def synth_program():
    return _program("MCP_SYNTH", "mcp-synth")


# What is measured of these short-lived workers is no business of the user's cache.
_CACHE = tempfile.TemporaryDirectory(prefix="mcp-cache-")


def clean_environment(**more):
    """Without the variables that would be options."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("MCP_") or k == "MCP_MODELS"}
    env["XDG_CACHE_HOME"] = _CACHE.name
    env.update(more)
    return env


def make_keys(folder, *arguments):
    """A keys folder made by `mcp keys init`."""
    subprocess.run([mcp_program(), "keys", "init", "--dir", str(folder), *arguments], check=True,
                   env=clean_environment(), stdout=subprocess.DEVNULL, timeout=START_S)
    return Path(folder)


class Process:
    """A child whose first line on standard output says that it is ready."""

    def __init__(self, command, **popen):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True,
                                        env=clean_environment(), **popen)
        self.lines = queue.Queue()
        self.errors = []
        self._readers = [threading.Thread(target=self._read_out, daemon=True),
                         threading.Thread(target=self._read_err, daemon=True)]
        for reader in self._readers:
            reader.start()
        try:
            self.ready = self.line(START_S)
        except queue.Empty:
            self.kill()
            raise RuntimeError(f"{command[:3]} was not ready: {''.join(self.errors)}") from None

    def _read_out(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _read_err(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def line(self, timeout_s=10):
        line = self.lines.get(timeout=timeout_s)
        if line is None:
            self.process.wait(timeout=10)
            self._readers[1].join(timeout=5)
            raise RuntimeError(f"{self.command[:3]} ended with {self.process.returncode}: "
                               f"{''.join(self.errors)}")
        return line

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def stop(self, timeout_s=30):
        """SIGTERM, then the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.kill()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
        self.kill()


class Worker(Process):
    def __init__(self, model, keys, *arguments, listen="127.0.0.1:0", threads=1):
        super().__init__([mcp_program(), "worker", "-m", str(model), "--keys", str(keys),
                          "--listen", listen, "-t", str(threads), "--json",
                          *map(str, arguments)])
        self.facts = json.loads(self.ready)
        self.endpoint = self.facts["ready"]
        self.port = int(self.endpoint.rpartition(":")[2])

    def metrics(self):
        """The page for Prometheus, of a worker with `--metrics 127.0.0.1:0`."""
        with urllib.request.urlopen(f"http://{self.facts['metrics']}/metrics", timeout=10) as page:
            return page.read().decode()

    def rss(self):
        """Bytes of memory that it holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M).group(1)) << 10


class Link(Process):
    """The project's relay in front of a port."""

    def __init__(self, port, rtt=0.0, mbit=0.0, **more):
        command = [_program("MCP_WAN", "mcp-wan"), "--to", str(port), "--rtt", str(rtt), "--mbit",
                   str(mbit)]
        for name, value in more.items():
            command += [f"--{name}", str(value)]
        super().__init__(command)
        self.port = int(self.ready.split()[1])
        self.endpoint = f"127.0.0.1:{self.port}"

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.line()
        assert answer.startswith("ok"), (command, answer)
        return answer

    def stats(self):
        words = self.tell("stats").split()[1:]
        return {name: int(value) for name, value in zip(words[::2], words[1::2])}


def run_args(model, keys, *arguments, threads=1):
    return [mcp_program(), "run", "-m", str(model), "--keys", str(keys), "-t", str(threads),
            "--json", *map(str, arguments)]


def try_run(model, keys, *arguments, threads=1, timeout_s=60):
    """`mcp run --json` as it ended: returncode, stdout, stderr."""
    return subprocess.run(run_args(model, keys, *arguments, threads=threads), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s,
                          env=clean_environment(), check=False)


def run(model, keys, *arguments, threads=1, timeout_s=60):
    """`mcp run --json`; its object."""
    done = try_run(model, keys, *arguments, threads=threads, timeout_s=timeout_s)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout.splitlines()[-1])


class Agent:
    """`mcp run --json` under way."""

    def __init__(self, model, keys, *arguments, threads=1):
        self.process = subprocess.Popen(run_args(model, keys, *arguments, threads=threads),
                                        text=True, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=clean_environment())

    def wait_for_bytes(self, link, count, timeout_s=30):
        """Until `link` has carried so many bytes to it."""
        end = time.monotonic() + timeout_s
        while link.stats()["down"] < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, link.stats()
            time.sleep(0.005)

    def end(self, timeout_s=60):
        """Its exit status, JSON object (None: none) and standard error."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, json.loads(out.splitlines()[-1]) if out else None, err

    def result(self, timeout_s=60):
        status, shown, err = self.end(timeout_s)
        if status != 0:
            raise RuntimeError(err.strip())
        return shown
