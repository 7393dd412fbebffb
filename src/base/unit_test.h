/* base/unit_test.h - what unit tests share: cmocka in the right order, seeded numbers,
 * files in a folder that goes away, and tiny models from mcp-synth.
 *
 * A helper that cannot do its work fails the running test with a sentence.  One thread,
 * one translation unit a program.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BASE_UNIT_TEST_H
#define BASE_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mcp/error.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNIT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- failures ------------------------------------------------------------------- */

/* The sentence of a failure: right code, not empty, one line, and about `about`. */
static inline void unit_refused(int rc, int code, const mcp_error *err, const char *about)
{
    if (rc != code)
        fail_msg("%s (%s), not %s: looking for '%s'", mcp_code_name(rc), rc < 0 ? err->text : "",
                 mcp_code_name(code), about);
    assert_int_equal(err->code, code);
    assert_non_null(memchr(err->text, '\0', sizeof(err->text)));
    if (err->text[0] == '\0' || strchr(err->text, '\n') != NULL || strstr(err->text, about) == NULL)
        fail_msg("the sentence '%s' does not say '%s'", err->text, about);
}

static inline void unit_ok(int rc, const mcp_error *err)
{
    if (rc < 0)
        fail_msg("%s: %s", mcp_code_name(rc), err->text);
}

/* ---- numbers -------------------------------------------------------------------- */

/* MCP_SEED when set, else a fixed number; a failure that depends on it prints it. */
static inline uint64_t unit_seed(void)
{
    const char *text = getenv("MCP_SEED");

    return text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : 20240607;
}

/* splitmix64 */
static inline uint64_t unit_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint32_t unit_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((unit_next(state) >> 32) * limit) >> 32);
}

/* ---- files ---------------------------------------------------------------------- */

static char unit_folder[256];

static inline void unit_folder_remove(void)
{
    DIR           *dir = opendir(unit_folder);
    struct dirent *entry;
    char           path[600];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", unit_folder, entry->d_name);
        if (entry->d_name[0] != '.')
            remove(path);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(unit_folder);
}

/* The path of a file in this program's own folder, to be freed by nobody: it lives until
 * 256 others have been asked for. */
static inline const char *unit_path(const char *name)
{
    static char     paths[256][512];
    static unsigned next;
    char           *path = paths[next++ % 256];
    const char     *base = getenv("TMPDIR");

    if (unit_folder[0] == '\0') {
        snprintf(unit_folder, sizeof(unit_folder), "%s/mcp-unit-XXXXXX",
                 base != NULL && *base != '\0' ? base : "/tmp");
        if (mkdtemp(unit_folder) == NULL) {
            unit_folder[0] = '\0';
            fail_msg("no folder for files: %s", strerror(errno));
        }
        atexit(unit_folder_remove);
    }
    snprintf(path, sizeof(paths[0]), "%s/%s", unit_folder, name);
    return path;
}

static inline void unit_write(const char *path, const void *bytes, size_t count)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, count, f), count);
    assert_int_equal(fclose(f), 0);
}

/* The whole file, to be freed. */
static inline uint8_t *unit_read(const char *path, size_t *count)
{
    FILE    *f = fopen(path, "rb");
    uint8_t *bytes;
    long     end;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    end = ftell(f);
    assert_true(end >= 0);
    rewind(f);
    bytes = malloc((size_t)end + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)end, f), end);
    fclose(f);
    *count = (size_t)end;
    return bytes;
}

/* ---- models --------------------------------------------------------------------- */

/* Run mcp-synth to write `name` in our folder; more arguments follow, NULL ends them. */
static inline const char *unit_synth(const char *name, const char *shape, const char *quant, ...)
{
    const char *program = getenv("MCP_SYNTH"), *path = unit_path(name);
    const char *argv[24] = { program, "--shape", shape, "--quant", quant, "-o", path };
    size_t      count = 7;
    int         status = 0, rc;
    pid_t       pid;
    va_list     more;

    posix_spawn_file_actions_t actions;

    if (program == NULL || *program == '\0')
        fail_msg("MCP_SYNTH must name the mcp-synth program: run this test with ./dev test");
    va_start(more, quant);
    while (count < 23 && (argv[count] = va_arg(more, const char *)) != NULL)
        count++;
    va_end(more);
    argv[count] = NULL;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    rc = posix_spawn(&pid, program, &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc != 0)
        fail_msg("%s does not start: %s", program, strerror(rc));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("mcp-synth --shape %s failed with status 0x%x", shape, (unsigned)status);
    return path;
}

#endif
