/* SPDX-License-Identifier: MIT */
/* digest_test.c - the cached digest is the one that was hashed, of this file and no other. */
#include "agent/digest.h"
#include "base/unit_test.h"

#include <sys/stat.h>

static void use_cache(const char *name)
{
    const char *folder = unit_path(name);

    assert_int_equal(mkdir(folder, 0755), 0);
    assert_int_equal(setenv("MCP_CACHE", folder, 1), 0);
}

/* The unit folder is emptied of files, not of folders. */
static int remove_caches(void **state)
{
    char command[700];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'/cache-*", unit_folder);
    return system(command);
}

static struct mcp_model *tiny(const char *name, const char *seed)
{
    struct mcp_model *m;
    mcp_error         err;

    unit_ok(model_open(&m, unit_synth(name, "tiny-llama", "q4_0", "--seed", seed, NULL), &err),
            &err);
    return m;
}

static unsigned files_in_cache(void)
{
    char           path[600];
    DIR           *dir;
    struct dirent *entry;
    unsigned       count = 0;

    snprintf(path, sizeof(path), "%s/fingerprints", getenv("MCP_CACHE"));
    dir = opendir(path);
    if (dir == NULL)
        return 0;
    while ((entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void a_digest_from_the_cache_is_the_hashed_one(void **state)
{
    struct mcp_model *m = tiny("a.gguf", "1");
    uint8_t           first[WIRE_DIGEST_BYTES], again[WIRE_DIGEST_BYTES];

    (void)state;
    use_cache("cache-a");
    assert_int_equal(agent_weights_digest(m, 0, 2, first, NULL), MCP_OK);
    assert_int_equal(files_in_cache(), 1);
    assert_int_equal(agent_weights_digest(m, 0, 2, again, NULL), MCP_OK);
    assert_memory_equal(first, again, sizeof(first));
    assert_int_equal(agent_weights_digest(m, 0, 1, again, NULL), MCP_OK);
    assert_memory_not_equal(first, again, sizeof(first));
    assert_int_equal(files_in_cache(), 2);
    model_close(m);
}

/* Goal: a file that was replaced under the same name is hashed anew. */
static void another_file_of_the_same_name_has_its_own_digest(void **state)
{
    struct mcp_model *m = tiny("b.gguf", "1");
    uint8_t           one[WIRE_DIGEST_BYTES], two[WIRE_DIGEST_BYTES];

    (void)state;
    use_cache("cache-b");
    assert_int_equal(agent_weights_digest(m, 0, 2, one, NULL), MCP_OK);
    model_close(m);
    m = tiny("b.gguf", "2");
    assert_int_equal(agent_weights_digest(m, 0, 2, two, NULL), MCP_OK);
    assert_memory_not_equal(one, two, sizeof(one));
    model_close(m);
}

static void without_a_cache_it_works_all_the_same(void **state)
{
    struct mcp_model *m = tiny("c.gguf", "1");
    uint8_t           with[WIRE_DIGEST_BYTES], without[WIRE_DIGEST_BYTES];

    (void)state;
    use_cache("cache-c");
    assert_int_equal(agent_weights_digest(m, 0, 2, with, NULL), MCP_OK);
    assert_int_equal(setenv("MCP_CACHE", "/proc/none", 1), 0);
    assert_int_equal(agent_weights_digest(m, 0, 2, without, NULL), MCP_OK);
    assert_memory_equal(with, without, sizeof(with));
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_digest_from_the_cache_is_the_hashed_one),
        cmocka_unit_test(another_file_of_the_same_name_has_its_own_digest),
        cmocka_unit_test(without_a_cache_it_works_all_the_same),
    };

    return cmocka_run_group_tests_name("agent/digest", tests, NULL, remove_caches);
}
