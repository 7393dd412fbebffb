# shellcheck shell=bash
# ./dev demo: a worker, an agent and a wide-area link between them on this machine; the worker is
# killed while it answers.  Sourced by ./dev.

DEMO_PIDS=()

demo_end() {
    local pid
    for pid in "${DEMO_PIDS[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    [ -z "${DEMO_DIR:-}" ] || rm -rf "$DEMO_DIR"
}

# demo_start NAME COMMAND...: in the background; its first line, "ready ...", goes to $DEMO_READY.
demo_start() {
    local name=$1 line
    shift
    mkfifo "$DEMO_DIR/$name.out" "$DEMO_DIR/$name.in"
    "$@" <"$DEMO_DIR/$name.in" >"$DEMO_DIR/$name.out" 2>"$DEMO_DIR/$name.err" &
    DEMO_PIDS+=($!)
    disown # its end is no news
    # shellcheck disable=SC2034  # held open, not used: its end would end the link
    exec {DEMO_KEEP}>"$DEMO_DIR/$name.in" {DEMO_READ}<"$DEMO_DIR/$name.out"
    read -r line <&"$DEMO_READ" || {
        cat "$DEMO_DIR/$name.err" >&2
        die "demo: $name did not start: the reason is above"
    }
    DEMO_READY=$line
}

# Show what comes, and kill process $2 after $1 bytes of it.
demo_show_and_kill() {
    local after=$1 victim=$2 seen=0 byte
    while IFS= read -r -d '' -n 1 byte; do
        printf '%s' "${byte:-}"
        seen=$((seen + 1))
        if [ "$seen" = "$after" ]; then
            kill -9 "$victim"
            say "<- here the worker was killed"
        fi
    done
}

demo_split() { # MODEL PROMPT [OPTIONS...]
    local model=$1 prompt=$2 port run
    shift 2
    DEMO_DIR=$(mktemp -d "${TMPDIR:-/tmp}/mcp-demo-XXXXXX")
    trap demo_end EXIT
    trap 'exit 130' INT TERM

    say "keys: a certificate authority, a worker's and a client's certificate"
    build/bin/mcp keys init --dir "$DEMO_DIR/keys" >/dev/null || die "demo: mcp keys init failed"
    say "worker: listening with TLS 1.3 and certificates both ways"
    demo_start worker build/bin/mcp worker -m "$model" --keys "$DEMO_DIR/keys" \
        --listen 127.0.0.1:0 -t 1
    port=${DEMO_READY#ready *:}
    port=${port%% *}
    say "link: 20 ms, 100 Mbit/s between the agent and the worker"
    demo_start link build/bin/mcp-wan --to "$port" --rtt 20 --mbit 100
    port=${DEMO_READY#ready }

    say "plan: what each way to answer would take; measured here and through the link, kept for later"
    build/bin/mcp plan -m "$model" -t 1 --keys "$DEMO_DIR/keys" --worker "127.0.0.1:$port" \
        --prompt-tokens 32 --gen 96 --privacy open || die "demo: mcp plan failed"
    say ""
    say "both ends are this machine, so no worker is faster than none; asked for a split all the same:"
    # shellcheck disable=SC2054  # the comma belongs to --cuts
    run=(build/bin/mcp run -m "$model" -p "$prompt" -n 96 --temp 0 -t 1 --keys "$DEMO_DIR/keys"
        --worker "127.0.0.1:$port" --cuts 2,28 --codec f32 "$@")
    say "agent: layers 0, 1, 28, 29, the tokenizer and the sampler; the prompt does not leave it"
    "${run[@]}" | tee "$DEMO_DIR/undisturbed" || die "demo: the split run failed"
    say ""
    say "once more, and now the worker dies half-way: this machine takes its layers over"
    "${run[@]}" > >(tee "$DEMO_DIR/killed" | demo_show_and_kill 200 "${DEMO_PIDS[0]}") ||
        die "demo: the run whose worker was killed failed"
    sleep 0.2 # the last bytes are still being shown
    cmp -s "$DEMO_DIR/undisturbed" "$DEMO_DIR/killed" ||
        die "demo: the two texts differ, which must not happen"
    say "the same text, to the last byte"
}
