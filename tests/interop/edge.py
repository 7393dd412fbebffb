# SPDX-License-Identifier: MIT
"""An Envoy of deploy/envoy/*.yaml, filled in for one worker on this machine."""

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import ROOT, clean_environment, mcp_program

START_S = 20


def envoy_program():
    path = Path(sys.executable).parent / "envoy"
    if not path.exists():
        pytest.skip(f"{path} is missing: tests/requirements.txt installs it")
    return path


def issue(keys, role, name, folder, *arguments):
    subprocess.run([mcp_program(), "keys", "issue", role, name, "--keys", str(keys), "-o",
                    str(folder), *arguments], check=True, env=clean_environment(),
                   stdout=subprocess.DEVNULL)
    return folder


def edge_keys(keys, folder):
    """The two folders that the edge needs for ending TLS."""
    issue(keys, "worker", "edge", folder / "edge-server", "--hosts", "localhost,127.0.0.1")
    issue(keys, "client", "edge", folder / "edge-client")
    return folder


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Edge:
    """`changes`: pairs of old and new text, each of which must be there."""

    def __init__(self, template, worker_port, folder, changes=()):
        self.port = free_port()
        text = (ROOT / "deploy/envoy" / template).read_text()
        text = re.sub(r"^ *#.*\n", "", text, flags=re.M)
        changes = [*changes, ("address: 0.0.0.0, port_value: 7443",
                              f"address: 127.0.0.1, port_value: {self.port}"),
                   ("address: 10.0.0.11, port_value: 7070",
                    f"address: 127.0.0.1, port_value: {worker_port}"),
                   ("gpu-01.example.net", "localhost")]
        if "terminate" in template:
            changes.append(("/etc/mcp", str(folder)))
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = folder / f"{self.port}-{template}"  # Envoy looks at the ending
        path.write_text(text)
        self.log = folder / f"{self.port}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [envoy_program(), "-c", path, "--concurrency", "1",
                 "--disable-hot-restart", "-l", "warn"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment())
        self.endpoint = f"localhost:{self.port}"
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
                time.sleep(0.05)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
