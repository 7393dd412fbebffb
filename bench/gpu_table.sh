#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The table of engine_vs_llama on a GPU, for a model of DeepSeek-LLM-7B's shape in Q4_K_M and F16.
#
#   bench/gpu_table.sh FOLDER RESULTS [SCRATCH]
#
# FOLDER is what `./dev build --portable --cuda` made (build-portable), copied to the machine;
# this bench/ folder comes along.  No network, no compiler, no root; python3 with numpy for
# the parity step only.  SCRATCH (default: a new folder in $TMPDIR) needs 20 GB; models left
# there by an earlier run are used again.
#
# The machine may be rented by the minute: everything ends within MCP_GPU_SECONDS (default
# 470).  Every step has its own time limit, and a step that fails or runs out of time is
# noted in RESULTS/report.md while the next one starts.  Steps stand in the order of their
# worth.  MCP_GPU_DEVICE=cuda1 picks another card, MCP_GPU_QUANTS="q4_k_m" fewer models,
# MCP_GPU_SHAPE another shape.
set -u

die() { echo "gpu_table: $*" >&2; exit 1; }
[ $# -ge 2 ] || die "usage: bench/gpu_table.sh FOLDER RESULTS [SCRATCH]"
bench=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" 2>/dev/null && pwd) || die "$1: no such folder"
mkdir -p "$2" || die "$2: cannot be made"
results=$(cd "$2" && pwd)
if [ $# -ge 3 ]; then
    mkdir -p "$3" || die "$3: cannot be made"
    scratch=$(cd "$3" && pwd)
else
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/gpu_table.XXXXXX") || die "no scratch folder"
    trap 'rm -rf "$scratch"' EXIT
fi

export LD_LIBRARY_PATH=$folder/lib:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export GGML_NO_BACKTRACE=1 # else an abort starts gdb
export MCP_BIN=$folder/bin/mcp MCP_LLAMA_BIN=$folder/bin MCP_BENCH_BIN=$folder/bench
unset MCP_MODEL_SMOLLM2

device=${MCP_GPU_DEVICE:-cuda0}
quants=${MCP_GPU_QUANTS:-q4_k_m f16}
shape=${MCP_GPU_SHAPE:-deepseek-llm-7b}
rows=pp512,pp1024,pp2048,tg128,tg64@1024,tg32x8@128,tg32x32@128,tg32x64@128,tg128/4
report=$results/report.md
threads=$(nproc)
[ "$threads" -le 16 ] || threads=16
deadline=$((SECONDS + ${MCP_GPU_SECONDS:-470}))
failed=0

# step SECONDS TITLE COMMAND: run it, with its output in the report.  Returns its status.
step() {
    local limit=$1 title=$2 status=0 left begin=$SECONDS
    left=$((deadline - SECONDS))
    [ "$limit" -le "$left" ] || limit=$left
    printf '\n## %s\n\n' "$title" >>"$report"
    if [ "$limit" -lt 5 ]; then
        echo "skipped: no time left" | tee -a "$report"
        failed=$((failed + 1))
        return 1
    fi
    echo "gpu_table: $title" >&2
    echo '```' >>"$report"
    timeout -k 5 "$limit" bash -c "$3" >"$scratch/step.log" 2>&1 </dev/null || status=$?
    tail -c 20000 "$scratch/step.log" | tee -a "$report"
    printf '```\n' >>"$report"
    [ $status != 0 ] || { echo "($((SECONDS - begin)) s)" >>"$report"; return 0; }
    case $status in
    124 | 137) echo "FAILED: stopped after $limit s" ;;
    127) echo "FAILED: a program is missing" ;;
    *) echo "FAILED: exit status $status" ;;
    esac | tee -a "$report"
    failed=$((failed + 1))
    return $status
}

machine() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,utilization.gpu --format=csv
    lscpu | grep -E '^(Model name|CPU\(s\))'
    "$MCP_BIN" --version
}

synth() { # QUANT; the file appears under its name only when it is whole
    [ -s "$scratch/$1.gguf" ] && return 0
    "$folder/bin/mcp-synth" --shape "$shape" --quant "$1" -o "$scratch/$1.part" &&
        mv "$scratch/$1.part" "$scratch/$1.gguf"
}

# The table for the eye goes to the report, the object with all numbers to its own file.
table() { # QUANT
    local options=(-m "$scratch/$1.gguf" --device "$device" -t "$threads" -r 9 --rows "$rows")
    echo "engine_vs_llama ${options[*]}"
    "$MCP_BENCH_BIN/engine_vs_llama" "${options[@]}" --json >"$results/table-$1.json"
}

# The same tokens in the same windows, a prompt and 16 single steps, on the GPU and on the CPU.
parity() { # QUANT
    local tokens windows dev
    tokens=$(for i in {1..256}; do echo $((i * 7919 % 40000)); done | paste -sd,)
    windows=240$(printf ',1%.0s' {1..16})
    for dev in "$device" cpu; do
        "$MCP_BIN" debug logits -m "$scratch/$1.gguf" --device "$dev" -t "$threads" -fa on \
            --tokens "$tokens" --windows "$windows" -o "$scratch/$dev.f32" || return
    done
    python3 - "$scratch/$device.f32" "$scratch/cpu.f32" 256 "$results/parity-$1.json" <<'PY'
import json, sys
import numpy as np
a, b = (np.fromfile(p, "<f4").reshape(int(sys.argv[3]), -1).astype(np.float64) for p in sys.argv[1:3])
log_softmax = lambda x: (x := x - x.max(1, keepdims=True)) - np.log(np.exp(x).sum(1, keepdims=True))
p, q = log_softmax(b), log_softmax(a)
kl = (np.exp(p) * (p - q)).sum(1)
r = {"positions": len(a), "kl_mean": kl.mean(), "kl_max": kl.max(), "kl_mean_single": kl[240:].mean(),
     "top1_equal": float((a.argmax(1) == b.argmax(1)).mean()),
     "rms_difference": float(np.sqrt(((a - b) ** 2).mean())), "rms_logits": float(np.sqrt((b ** 2).mean()))}
json.dump(r, open(sys.argv[4], "w"), indent=1)
print("\n".join("%-16s %.6g" % i for i in r.items()))
PY
}

# llama.cpp's own programs, as a check on how libllama was driven above.
peers() { # QUANT
    local common=(-m "$scratch/$1.gguf" -ngl 99 -t "$threads")
    if [ ! -x "$folder/bin/llama-bench" ]; then
        echo "llama-bench is not in $folder/bin: skipped"
        return 0
    fi
    "$folder/bin/llama-bench" "${common[@]}" -fa 1 -p 512,1024,2048 -n 128 -r 5 || return
    [ -x "$folder/bin/llama-batched-bench" ] || return 0
    "$folder/bin/llama-batched-bench" "${common[@]}" -fa on -c 16384 -b 2048 -ub 512 -npp 128 \
        -ntg 32 -npl 1,8,32,64 2>/dev/null
}

processes() { # QUANT
    python3 "$bench/process_vs_llama.py" -m "$scratch/$1.gguf" --device "$device" -t "$threads" \
        -r 3 --cold-rounds 0
}

# `timeout` starts programs, not functions: they reach bash through the environment.
export -f machine synth table parity peers processes
export bench folder results scratch shape device rows threads

{
    echo "# GPU table"
    date -u +%FT%TZ
} >"$report"
step 20 "Machine" machine
for quant in $quants; do
    step 120 "Writing $shape in $quant" "synth $quant" || continue
    step 120 "$quant: our engine against libllama" "table $quant"
    step 60 "$quant: $device against the CPU, logits" "parity $quant"
done
for quant in $quants; do
    [ -s "$scratch/$quant.gguf" ] || continue
    step 60 "$quant: llama.cpp's own programs" "peers $quant"
    step 60 "$quant: whole processes" "processes $quant"
done
printf '\n%d steps failed or were skipped; %d s in all\n' "$failed" "$SECONDS" | tee -a "$report"
rm -f "$scratch/step.log" "$scratch"/*.f32 "$scratch"/*.part
[ "$failed" = 0 ]
