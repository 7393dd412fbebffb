# SPDX-License-Identifier: MIT
"""Run a program under limits and say exactly how it ended."""

import functools
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections import namedtuple

CPU_S = 2               # of processor time, so that a busy machine does not fail the test
WALL_S = 20             # a program that waits for something burns no processor time
RSS_BYTES = 300 << 20
ADDRESS_BYTES = 4 << 30 # keeps a runaway allocation from hurting the machine

Result = namedtuple("Result", "status signal timed_out cpu_s wall_s rss_bytes out err")


@functools.lru_cache(maxsize=None)
def sanitized(path):
    """AddressSanitizer reserves terabytes of addresses: no such limit then."""
    with open(path, "rb") as file:
        return b"__asan_init" in file.read()


def run(args, stdin=None, wall_s=WALL_S, address_bytes=ADDRESS_BYTES, env=None):
    unlimited = sanitized(str(args[0]))

    def limits():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if not unlimited:
            resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = subprocess.Popen([str(a) for a in args], stdin=stdin or subprocess.DEVNULL,
                                 stdout=out, stderr=err, preexec_fn=limits, env=env)
        timed_out = False
        pause = 0.001
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if not timed_out and time.monotonic() - began > wall_s:
                timed_out = True
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        child.returncode = 0  # reaped here, not by Popen
        wall = time.monotonic() - began
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return Result(os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                  signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None,
                  timed_out, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024,
                  *texts)
