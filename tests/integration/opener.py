# SPDX-License-Identifier: MIT
"""Ask libmcp about files from a process of its own, and survive its death."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from confined import ADDRESS_BYTES, sanitized

HERE = Path(__file__).resolve().parent


def sanitizer_env(lib):
    """A sanitized library needs its runtime loaded before python, and C++'s with it: the
    runtime looks for __cxa_throw at its start."""
    env = dict(os.environ, PYTHONPATH=str(HERE), GGML_NO_BACKTRACE="1")
    if sanitized(str(lib)):
        runtimes = [subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True,
                                   text=True, check=True).stdout.strip()
                    for name in ("libasan.so", "libstdc++.so.6")]
        env.update(LD_PRELOAD=" ".join(runtimes),
                   ASAN_OPTIONS="detect_leaks=0:abort_on_error=1")
    return env


class Opener:
    """One open_files.py child, replaced after each death."""

    def __init__(self, lib, answer_s=20):
        self.lib = lib
        self.answer_s = answer_s
        self.child = None

    def start(self):
        limit = [] if sanitized(str(self.lib)) else [str(ADDRESS_BYTES)]
        self.child = subprocess.Popen(
            [sys.executable, str(HERE / "open_files.py"), str(self.lib), *limit],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=sanitizer_env(self.lib))

    def ask(self, path, **what):
        """The answer as open_files.py gives it, or {"died": ...}, or {"hung": seconds}."""
        if self.child is None:
            self.start()
        line = json.dumps(dict(path=str(path), **what)) + "\n"
        self.child.stdin.write(line.encode())
        self.child.stdin.flush()
        ready, _, _ = select.select([self.child.stdout], [], [], self.answer_s)
        if not ready:
            self.stop()
            return {"hung": self.answer_s}
        answer = self.child.stdout.readline()
        if not answer.startswith(b"{") or not answer.endswith(b"\n"):
            said = (answer + self.child.stderr.read()).decode(errors="replace")
            status = self.child.wait()
            self.child = None
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            return {"died": how, "said": said[-2000:]}
        return json.loads(answer)

    def stop(self):
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None
