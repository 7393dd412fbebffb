# SPDX-License-Identifier: MIT
"""Open files with libmcp as fast as they come: a child process of the tests.

usage: open_files.py LIBMCP [ADDRESS_BYTES]

Reads a JSON object a line, answers with one a line.  Asked
    {"path": ..., "text": ..., "engine": true}
it opens the model, uses everything a model offers, and says how that went:
    {"code": "MCP_EFORMAT", "call": "mcp_model_open", "error": "...", "cpu_s": 0.01,
     "peak_bytes": ..., "fds": 5, "maps": 0, "logits": [...]}
maps counts mappings of the file that are still there after everything was closed.
When the library crashes so does this process; its answer is then its status.
"""

import json
import os
import resource
import sys
import time

from libmcp import Failed, Library, Model


def peak_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


def use(model, asked, answer):
    info = model.info()
    for name in ("path", "architecture", "name", "quantisation", "tokenizer"):
        assert getattr(info, name) is not None, f"info.{name} is NULL"
    model.fingerprint()
    if info.weight_bytes < 64 << 20:
        for layer in range(-2, info.layers):
            model.weights_fingerprint(layer)
    model.library.lib.mcp_model_range_bytes(model.handle, 0, info.layers)
    answer["layers"] = info.layers
    answer["parameters"] = info.parameters
    tokens = [0]
    if "text" in asked:
        tokens = model.tokenize(asked["text"].encode())
        for token in tokens:
            model.token_bytes(token)
        answer["tokens"] = tokens
    if asked.get("engine"):
        answer["logits"] = model.forward((tokens or [0])[:8])


def answer_to(library, asked):
    answer = {"code": "MCP_OK", "call": None, "error": None}
    model = None
    reset_peak()
    base = peak_bytes()
    began = time.process_time()
    try:
        model = Model(library, asked["path"])
        use(model, asked, answer)
    except Failed as failed:
        answer.update(code=failed.code, call=failed.call, agrees=failed.agrees,
                      error=failed.text.decode(errors="surrogateescape"))
    finally:
        if model is not None:
            model.close()
    answer["cpu_s"] = time.process_time() - began
    answer["peak_bytes"] = peak_bytes() - base
    answer["fds"] = len(os.listdir("/proc/self/fd"))
    with open("/proc/self/maps", errors="surrogateescape") as maps:
        answer["maps"] = sum(asked["path"] in line for line in maps)
    return answer


def main():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) > 2:
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    library = Library(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer_to(library, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
