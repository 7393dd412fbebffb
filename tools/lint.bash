# shellcheck shell=bash
# The checks of ./dev lint; sourced by it.  All of them run, then the sum is said.

c_files() { # FOLDER...
    local folder
    for folder in "$@"; do
        [ ! -d "$folder" ] || find "$folder" -name '*.[ch]'
    done | sort
}

lint_format() {
    local files
    mapfile -t files < <(c_files include src tests tools bench fuzz)
    [ ${#files[@]} = 0 ] || clang-format --dry-run -Werror --ferror-limit=1 "${files[@]}"
}

# Every #include "folder/..." in src/ against the rows of cmake/layers.cmake.
# <mcp/...> is the public ABI and open to all; its headers include only each other.
lint_layers() {
    local files
    mapfile -t files < <(c_files include src)
    [ ${#files[@]} != 0 ] || return 0
    awk '
        FILENAME == "cmake/layers.cmake" {
            if ($0 !~ /^mcp_(layer|above)\(/) next
            row = $0
            sub(/^mcp_[a-z]+\(/, "", row); sub(/\).*/, "", row)
            count = split(row, word, / +/)
            known[word[1]] = 1
            for (i = 1; i <= count; i++) may[word[1], word[i]] = 1 # itself too
            next
        }
        /^[ \t]*#[ \t]*include/ {
            path = $0
            sub(/^[ \t]*#[ \t]*include[ \t]*[<"]/, "", path); sub(/[>"].*/, "", path)
            split(FILENAME, at, "/"); split(path, to, "/")
            if (at[1] == "include") {
                if ($0 ~ /"/ || to[1] in known) complain("a public header may include only <mcp/...> and libc")
            } else if (!(at[2] in known)) complain("src/" at[2] " has no row in cmake/layers.cmake")
            else if (to[1] in known && !((at[2], to[1]) in may))
                complain(at[2] " may not include " to[1] " (cmake/layers.cmake)")
            else if ($0 ~ /"/ && path !~ /\//) complain("write the folder: \"" at[2] "/" path "\"")
            else if (path ~ /\.\./) complain("no relative paths")
        }
        function complain(why) { printf "%s:%d: %s: %s\n", FILENAME, FNR, path, why; bad = 1 }
        END { exit bad }
    ' cmake/layers.cmake "${files[@]}"
}

# The public headers stand alone, in C11 and in C++.
lint_headers() {
    local header bad=0
    for header in include/mcp/*.h; do
        [ -f "$header" ] || continue
        cc -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c "$header" || bad=1
        c++ -std=c++11 -Wall -Wextra -Werror -Iinclude -fsyntax-only -x c++ "$header" || bad=1
    done
    return $bad
}

lint_cppcheck() {
    # Its own preprocessor: unknown macros of libraries are no fault, tests do as they like.
    cppcheck --quiet --std=c11 --language=c --error-exitcode=1 --inline-suppr -j "$(nproc)" \
        --enable=warning,portability --suppress=missingIncludeSystem --suppress=invalidPointerCast \
        --suppress='*:*_test.c' --suppress='*:*_test.h' \
        -D_GNU_SOURCE -Iinclude -Isrc src tools
}

lint_tidy() {
    local files
    release # after the cheap checks: the compiler stops at its first fault
    # What the release build compiles, without generated or foreign files.
    mapfile -t files < <(sed -nE 's/^ *"file": "(.*)",?$/\1/p' build/compile_commands.json | sort -u)
    [ ${#files[@]} != 0 ] || return 0
    printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p build --quiet \
        --extra-arg=-Wno-unknown-warning-option 2> >(grep -v -E 'warnings? (generated|treated)|^Suppressed|^Use -header' >&2)
}

lint_shell() {
    command -v shellcheck >/dev/null || return 0 # where it is there anyway
    shellcheck -x dev tools/*.bash .ci/run
}

lint_all() {
    local check bad=""
    [ $# != 0 ] || set -- format layers headers cppcheck tidy shell
    for check in "$@"; do
        declare -F "lint_$check" >/dev/null || die "lint: there is no check \"$check\""
        say "lint: $check"
        "lint_$check" || bad="$bad $check"
    done
    [ -z "$bad" ] || die "lint found something to mend in:$bad (clang-format -i FILE mends formatting)"
    say "lint: nothing to mend"
}
