/* agent/profile_file_test.c - profiles out of files, of which not one byte is trusted.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile_test.h"

#include <dirent.h>
#include <sys/stat.h>

static struct mcp_model  *model, *other;
static struct plan_graph *graph;

static int begin(void **state)
{
    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    other = run_model(unit_synth("other.gguf", "tiny-qwen2", "q4_0", NULL));
    graph = must_graph(model);
    return 0;
}

static int end(void **state)
{
    (void)state;
    plan_graph_free(graph);
    model_close(model);
    model_close(other);
    return 0;
}

/* A measured profile of the model, with a number of its own in each place. */
static struct mcp_profile measured(void)
{
    struct mcp_profile p = { .threads = 3 };
    mcp_error          err;

    unit_ok(model_fingerprint(model, p.fingerprint, &err), &err);
    measure_begin(&p.p, model);
    snprintf(p.p.device, sizeof(p.p.device), "%s", "a test's \"device\" \xc3\xa9");
    p.p.memory_bytes = 123456789;
    for (uint32_t t = 0; t < p.p.token_count; t++) {
        for (uint32_t c = 0; c < p.p.context_count; c++)
            p.p.layer_ms[t][c] = 0.5 + t + 0.25 * c;
        p.p.head_ms[t] = 0.125 * (t + 1);
        p.p.embed_ms[t] = 0.0625 * t;
    }
    p.p.call_ms = 0.75;
    return p;
}

/* Goal:   what is written is what is read, and nothing else is left in the folder; another
 *         model's figures are refused. */
static void a_profile_comes_back_as_it_was_written(void **state)
{
    struct mcp_profile p = measured(), back;
    const char        *path = unit_path("kept.json");
    char               folder[512];
    mcp_error          err = { 0 };
    DIR               *dir;
    struct dirent     *entry;

    (void)state;
    unit_ok(profile_write(&p, path, &err), &err);
    unit_ok(profile_write(&p, path, &err), &err);
    unit_ok(profile_read(&back, path, model, graph, &err), &err);
    assert_string_equal(back.path, path);
    assert_int_equal(back.threads, p.threads);
    assert_memory_equal(back.fingerprint, p.fingerprint, sizeof(p.fingerprint));
    assert_memory_equal(&back.p, &p.p, sizeof(p.p));
    unit_refused(profile_read(&back, path, other, graph, &err), MCP_ENOTSUP, &err, "another model");

    snprintf(folder, sizeof(folder), "%s", path);
    *strrchr(folder, '/') = '\0';
    dir = opendir(folder);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, "kept.json.", 10) == 0)
            fail_msg("%s is left", entry->d_name);
    closedir(dir);
}

/* The text with `from` replaced by `to`; it must be there. */
static char *changed(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    size_t      bytes = strlen(text) + strlen(to) + 1;
    char       *out = malloc(bytes);

    if (at == NULL)
        fail_msg("there is no %s in %s", from, text);
    assert_non_null(out);
    snprintf(out, bytes, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

/* Goal:   every wrong member is a sentence that names it; nothing is filled in then. */
static void wrong_members_are_named(void **state)
{
    static const struct {
        const char *from, *to, *about;
    } rows[] = {
        { "mcp-profile 1", "mcp-profile 2", "format" },
        { "\"measured\"", "\"guessed\"", "kind" },
        { "\"measured\"", "\"roofline\"", "not known" },
        { "\"threads\"", "\"thread\"", "not known" },
        { "\"threads\": 3", "\"threads\": -3", "threads" },
        { "\"threads\": 3", "\"threads\": 3.5", "threads" },
        { "\"threads\": 3", "\"threads\": 1e99", "threads" },
        { "\"memory_bytes\": 123456789", "\"memory_bytes\": \"much\"", "memory_bytes" },
        { "\"layers\": 4", "\"layers\": 257", "layers" },
        { "\"layers\": 4", "\"layers\": 5", "another model" },
        { "\"call_ms\": 0.75", "\"call_ms\": -1", "call_ms" },
        { "\"call_ms\": 0.75", "\"call_ms\": null", "call_ms" },
        { "\"fingerprint\": \"", "\"fingerprint\": \"zz", "fingerprint" },
        { "\"tokens\": [", "\"tokens\": [0, ", "tokens" },
        { "\"tokens\": [", "\"tokens\": [1, 1, ", "" },
        { "\"tokens\": [", "\"tokens\": [1,1,1,1,1,1,1,1,1,1,1,1,", "tokens" },
        { "\"contexts\": [", "\"contexts\": [-1, ", "contexts" },
        { "\"layer_ms\": [", "\"layer_ms\": [[1],", "layer_ms" },
        { "0.5", "\"0.5\"", "layer_ms" },
        { "0.5", "-0.5", "" },
        { "0.5", "1e308", "" },
        { "0.5", "9.5", "" }, /* less work may not take longer */
        { "\"head_ms\": [", "\"head_ms\": [1,", "head_ms" },
    };
    struct mcp_profile p = measured(), untouched, out;
    char              *text = profile_text(&p);

    (void)state;
    assert_non_null(text);
    memset(&untouched, 0x5a, sizeof(untouched));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char     *bad = changed(text, rows[i].from, rows[i].to);
        mcp_error err = { 0 };
        int       rc;

        out = untouched;
        rc = profile_parse(&out, bad, strlen(bad), "bad.json", model, graph, &err);
        unit_refused(rc, strcmp(rows[i].about, "another model") == 0 ? MCP_ENOTSUP : MCP_EFORMAT,
                     &err, rows[i].about);
        assert_non_null(strstr(err.text, "bad.json"));
        assert_memory_equal(&out, &untouched, sizeof(out));
        free(bad);
    }
    free(text);
}

/* Goal:   no beginning of a file, and no byte exchanged in it, does harm: it is read as a
 *         profile that holds, or refused by a sentence. */
static void damaged_files_are_refused_or_sound(void **state)
{
    struct mcp_profile p = measured(), out;
    char              *text = profile_text(&p);
    size_t             bytes = strlen(text);
    uint64_t           rng = unit_seed();
    mcp_error          err;

    (void)state;
    for (size_t cut = 0; cut < bytes - 1; cut++)
        unit_refused(profile_parse(&out, text, cut, "cut.json", model, graph, &err), MCP_EFORMAT,
                     &err, "cut.json");
    for (int i = 0; i < 3000; i++) {
        size_t at = unit_below(&rng, (uint32_t)bytes);
        char   was = text[at];
        int    rc;

        text[at] = (char)unit_below(&rng, 256);
        rc = profile_parse(&out, text, bytes, "damaged.json", model, graph, &err);
        if (rc == MCP_OK)
            unit_ok(plan_profile_check(&out.p, &err), &err);
        else if (rc != MCP_ENOTSUP)
            unit_refused(rc, MCP_EFORMAT, &err, "damaged.json");
        text[at] = was;
    }
    free(text);
}

/* Goal:   a data sheet becomes a profile of the model at hand: a layer takes what its bytes and
 *         FLOPs say, and a device that is faster in both is never slower. */
static void data_sheets_become_profiles_of_the_model(void **state)
{
    struct mcp_profile slow = sheet(model, graph, "slow", 1, 0.01);
    struct mcp_profile fast = sheet(model, graph, "fast", 100, 1);
    struct plan_work   layer = plan_graph_layer(graph, 1, 1, ENGINE_KV_PAD);

    (void)state;
    assert_int_equal(slow.p.kind, PLAN_ROOFLINE);
    assert_int_equal(slow.p.layers, model->hp.n_layer);
    assert_string_equal(slow.source, "a test");
    assert_true(slow.p.layer_ms[0][0] >= layer.weight_bytes / 1e9 * 1e3);
    assert_true(slow.p.layer_ms[0][0] <=
                2.0 * (layer.weight_bytes + layer.activation_bytes) / 1e9 * 1e3 +
                    layer.flops / 1e10 * 1e3 + 0.001 * layer.launches);
    for (uint32_t t = 0; t < slow.p.token_count; t++)
        for (uint32_t c = 0; c < slow.p.context_count; c++)
            assert_true(fast.p.layer_ms[t][c] < slow.p.layer_ms[t][c]);
}

static void what_is_no_file_is_refused(void **state)
{
    struct mcp_profile out;
    char              *large = malloc(PROFILE_FILE_BYTES_MAX + 1);
    mcp_error          err = { 0 };

    (void)state;
    assert_non_null(large);
    memset(large, ' ', PROFILE_FILE_BYTES_MAX + 1);
    unit_write(unit_path("large.json"), large, PROFILE_FILE_BYTES_MAX + 1);
    unit_refused(profile_read(&out, unit_path("large.json"), model, graph, &err), MCP_EFORMAT, &err,
                 "more than 65536 bytes");
    unit_refused(profile_read(&out, unit_path("none.json"), model, graph, &err), MCP_ENOTFOUND,
                 &err, "none.json");
    unit_refused(profile_read(&out, "/", model, graph, &err), MCP_EIO, &err, "/");
    unit_refused(profile_find(&out, "no-such-gpu", model, graph, &err), MCP_ENOTFOUND, &err,
                 "no-such-gpu");
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_profile_comes_back_as_it_was_written),
        cmocka_unit_test(wrong_members_are_named),
        cmocka_unit_test(damaged_files_are_refused_or_sound),
        cmocka_unit_test(data_sheets_become_profiles_of_the_model),
        cmocka_unit_test(what_is_no_file_is_refused),
    };

    return cmocka_run_group_tests_name("agent/profile_file", tests, begin, end);
}
