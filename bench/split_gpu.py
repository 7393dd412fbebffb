#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A 7B model split between a laptop's cores and a GPU worker, over links of several lengths.

    split_gpu.py BUNDLE [--model FILE] [--threads 4] [--device cuda0] [--json FILE]

BUNDLE is build-portable/ (mcp, mcp-wan, mcp-synth).  The agent keeps layers [0, 2) and [28, 30),
tokenizer and sampler on so many CPU threads; the worker has [2, 28) on the GPU.  The peer in the
same run is the whole model on those threads, which is what the agent's user would do without a
worker.  Without --model a model of DeepSeek-LLM-7B's shape with random weights is made from
VOCAB, a tokenizer file such as llama.cpp's models/ggml-vocab-deepseek-llm.gguf.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LINKS = ((0, 0), (5, 1000), (20, 100), (80, 100))  # RTT ms, Mbit/s; 0 = unlimited
DECODE_TOKENS = 64
PROMPT = "Once upon a time"
LONG_WORDS = 260  # about 930 tokens of DeepSeek's tokenizer
TIMEOUT_S = 240


def start(command):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line.startswith("ready"):
        process.kill()
        sys.exit(f"{command[0]} did not start")
    return process, line


class Agent:
    def __init__(self, args, model, keys):
        self.base = [args.bundle / "bin/mcp", "run", "-m", model, "--raw", "--json", "--temp", "0",
                     "--ignore-eos", "-c", "2048", "-t", str(args.threads), "--device", "cpu",
                     "--keys", keys]

    def run(self, *more):
        done = subprocess.run([*self.base, *map(str, more)], capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr.strip())
        return json.loads(done.stdout.splitlines()[-1])


def per_window(answer, key):
    return [round(s[key] / max(s["windows"], 1), 2) for s in answer["plan"]["stages"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--vocab")
    parser.add_argument("--quant", default="q4_k_m")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--device", default="cuda0")
    parser.add_argument("--json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model, keys, prompt = args.model, folder / "keys", folder / "prompt"
        if model is None:
            model = folder / "model.gguf"
            subprocess.run([args.bundle / "bin/mcp-synth", "--shape", "deepseek-llm-7b", "--quant",
                            args.quant, "--vocab", args.vocab, "-o", model], check=True)
        subprocess.run([args.bundle / "bin/mcp", "keys", "init", "--dir", keys], check=True,
                       stdout=subprocess.DEVNULL)
        prompt.write_text(" ".join(f"word{i}" for i in range(LONG_WORDS)))
        agent = Agent(args, model, keys)
        worker, line = start([args.bundle / "bin/mcp", "worker", "-m", model, "--layers", "2-28",
                              "--keys", keys, "--listen", "127.0.0.1:0", "-np", "2", "-c", "2048",
                              "--device", args.device])
        port = line.split()[1].rsplit(":", 1)[1]
        rows = []
        try:
            local = agent.run("--mode", "local", "-p", PROMPT, "-n", 32)
            local_long = agent.run("--mode", "local", "-f", prompt, "-n", 1)
            for rtt, mbit in LINKS:
                link, line = start([args.bundle / "bin/mcp-wan", "--to", port, "--rtt", str(rtt),
                                    "--mbit", str(mbit)])
                via = ("--worker", "127.0.0.1:" + line.split()[1], "--cuts", "2,28")
                for codec in ("f16", "q8r"):
                    decode = agent.run(*via, "--codec", codec, "-p", PROMPT, "-n", DECODE_TOKENS)
                    long = agent.run(*via, "--codec", codec, "-f", prompt, "-n", 1)
                    rows.append({"rtt_ms": rtt, "mbit": mbit, "codec": codec,
                                 "decode_per_s": decode["predicted_per_second"],
                                 "stage_ms": per_window(decode, "elapsed_ms"),
                                 "compute_ms": per_window(decode, "compute_ms"),
                                 "prompt_tokens": long["prompt_tokens"],
                                 "ttft_ms": long["ttft_ms"], "bytes_out": long["bytes_out"]})
                link.kill()
                link.wait()
        finally:
            worker.terminate()
            worker.wait(30)
    here = local["predicted_per_second"]
    print(f"all here, {args.threads} threads: {here:.2f} tokens/s, first token after "
          f"{local_long['ttft_ms']:.0f} ms of {local_long['prompt_tokens']} tokens\n")
    print("| link | codec | tokens/s | of all here | ms a token: here, worker (computing), here | "
          "long prompt, first token ms | of all here |\n| --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        stage, compute = r["stage_ms"], r["compute_ms"]
        print(f"| {r['rtt_ms']} ms, {r['mbit'] or 'unlimited'} Mbit/s | {r['codec']} | "
              f"{r['decode_per_s']:.2f} | {r['decode_per_s'] / here:.2f} | {stage[0]:.1f}, "
              f"{stage[1]:.1f} ({compute[1]:.1f}), {stage[2]:.1f} | {r['ttft_ms']:.0f} | "
              f"{local_long['ttft_ms'] / r['ttft_ms']:.2f} |")
    if args.json:
        Path(args.json).write_text(json.dumps({"local": local, "rows": rows}) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("LD_LIBRARY_PATH", "/usr/local/cuda/lib64")
    main()
