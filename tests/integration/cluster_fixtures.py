# SPDX-License-Identifier: MIT
"""Fixtures for tests with workers: import the names that a test file uses."""

import subprocess

import pytest
from cluster import clean_environment, make_keys, synth_program

LAYERS, EMBD, VOCAB, CTX = 6, 128, 384, 1024


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys") / "authority")


def make_tiny(path, *arguments):
    """A model of six small layers: a forward takes less than its round trip."""
    subprocess.run([synth_program(), "--shape", "tiny-llama", "--set", f"layers={LAYERS}", "--set",
                    f"ctx={CTX}", "--quant", "q8_0", *arguments, "-o", str(path)], check=True,
                   env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf")
