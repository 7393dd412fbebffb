# SPDX-License-Identifier: MIT
"""What a worker has to answer: rows of `mcp debug logits` and text of `mcp run --mode local`."""

import json
import subprocess

import numpy as np
from cluster import clean_environment, mcp_program

SECONDS = 300


def _mcp(*arguments):
    done = subprocess.run([mcp_program(), *map(str, arguments)], capture_output=True, check=False,
                          env=clean_environment(), timeout=SECONDS, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def rows(model, tokens, layers=0, windows=None):
    """Hidden states behind the first `layers` layers (0: logits), a float32 row a position, with
    the arithmetic that workers have."""
    more = ["--windows", ",".join(map(str, windows))] if windows else []
    out = _mcp("debug", "logits", "-m", model, "--tokens", ",".join(map(str, tokens)), "--hidden",
               layers, "--even-windows", "-t", 1, *more)
    return np.frombuffer(out, "<f4").reshape(len(tokens), -1)


def shown(model):
    return json.loads(_mcp("show", model, "--json", "--fingerprints"))


def answer(model, prompt, *arguments):
    """The object of a local `mcp run`, greedy unless told otherwise, computed as workers do."""
    return json.loads(_mcp("run", "-m", model, "-p", prompt, "--mode", "local", "--even-windows",
                           "--chunk", 64, "-t", 1, "--temp", 0, "--json", *arguments))
