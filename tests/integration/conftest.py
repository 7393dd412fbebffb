# SPDX-License-Identifier: MIT
"""What every integration test is given: the program, the library, a real model.

./dev exports the paths; without it the usual build folder and cache are assumed, so
that `pytest tests/integration` works by itself after `./dev build`.
"""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


def _path(variable, fallback):
    return Path(os.environ.get(variable) or fallback)


CACHE = _path("MCP_CACHE", Path.home() / ".cache/mcp")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else an abort starts gdb


@pytest.fixture(scope="session")
def mcp_bin():
    path = _path("MCP_BIN", ROOT / "build/bin/mcp")
    assert path.is_file(), f"{path} is missing: run ./dev build"
    return path


@pytest.fixture(scope="session")
def mcp_lib():
    path = _path("MCP_LIB", ROOT / "build/lib/libmcp.so")
    assert path.is_file(), f"{path} is missing: run ./dev build"
    return path


@pytest.fixture(scope="session")
def smollm2():
    path = _path("MCP_MODEL_SMOLLM2", CACHE / "models/SmolLM2-135M-Instruct-Q4_1.gguf")
    if not path.is_file():
        pytest.skip(f"{path} is missing: ./dev test fetches it")
    return path


@pytest.fixture(scope="session")
def llama_src():
    """The pinned llama.cpp sources, for the vocabulary files in its models/."""
    path = _path("MCP_LLAMA_SRC",
                 CACHE / "src/llama_cpp_python-0.3.36/vendor/llama.cpp")
    if not path.is_dir():
        pytest.skip(f"{path} is missing: ./dev test fetches it")
    return path
