# SPDX-License-Identifier: MIT
"""Running the `mcp` command in tests: without the caller's MCP_* settings, and with
the result as something that can be asked questions."""

import json
import os
import subprocess

# Generous: on a busy machine of two cores a few tokens can take a minute.
SECONDS = 300


def clean_env(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
    env["GGML_NO_BACKTRACE"] = "1"
    # Threads wait for each other spinning: beside other work, two are far slower than one.
    env["MCP_THREADS"] = "1"
    env.update(extra)
    return env


class Result:
    def __init__(self, process):
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr.decode("utf-8")

    @property
    def text(self):
        return self.out.decode("utf-8")

    @property
    def json(self):
        assert self.status == 0, self.err
        return json.loads(self.text)

    @property
    def err_lines(self):
        return self.err.splitlines()

    def __repr__(self):
        return f"status {self.status}\nout {self.out[:2000]!r}\nerr {self.err!r}"


def mcp(binary, *args, stdin=b"", env=None, cwd=None):
    """Run to the end; `env` adds to a clean environment."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    return Result(subprocess.run([str(binary), *map(str, args)], input=stdin, capture_output=True,
                                 env=clean_env(**(env or {})), cwd=cwd, timeout=SECONDS,
                                 check=False))


def refused(result, sentence_start, *parts):
    """Exit status 1, nothing on stdout, one line on stderr that begins and goes on so."""
    assert result.status == 1, result
    assert result.out == b"", result
    assert len(result.err_lines) == 1, result
    assert result.err.startswith(sentence_start), result
    for part in parts:
        assert part in result.err, (part, result)
    return result


def answer(binary, model, *args, **kwargs):
    """One greedy answer as JSON, short and with a small context."""
    return mcp(binary, "run", "-m", model, "--temp", "0", "-c", "512", "--json", *args,
               **kwargs).json
