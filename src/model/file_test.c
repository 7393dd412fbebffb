/* model/file_test.c - the files of a model: mapped, whole, and belonging together.
 *
 * SPDX-License-Identifier: MIT */
#include "model/file.h"

#include "model/edit_test.h"

#include <sys/stat.h>

static void must_refuse(const char *path, int code, const char *about)
{
    struct model_file file;
    mcp_error         err;

    memset(&file, 0x5a, sizeof(file));
    unit_refused(model_file_open(&file, path, &err), code, &err, about);
    assert_null(file.parts); /* closed and zeroed */
    assert_null(file.tensors);
    assert_int_equal(model_file_open(&file, path, NULL), code);
}

/* Goal:   every tensor of a file is found by name, its bytes inside the mapping.
 * Method: against ggml's own reader, byte by byte. */
static void tensors_lie_where_ggml_says(void **state)
{
    const char       *path = unit_synth("whole.gguf", "tiny-llama", "q4_0", NULL);
    struct edit       e = edit_open(path);
    struct model_file file;
    mcp_error         err;

    (void)state;
    unit_ok(model_file_open(&file, path, &err), &err);
    assert_int_equal(file.part_count, 1);
    assert_string_equal(file.parts[0].path, path);
    assert_true(file.tensor_count > 30);
    for (uint32_t i = 0; i < file.tensor_count; i++) {
        const struct model_tensor *t = &file.tensors[i];
        const struct ggml_tensor  *own = edit_tensor(&e, t->name);

        assert_ptr_equal(model_file_find(&file, t->name), t);
        assert_int_equal(t->type, own->type);
        assert_memory_equal(t->ne, own->ne, sizeof(t->ne));
        assert_int_equal(t->bytes, ggml_nbytes(own));
        assert_memory_equal(t->data, own->data, t->bytes);
        assert_int_equal((uintptr_t)t->data % MODEL_ALIGN_MIN, 0);
        assert_true(i == 0 || strcmp(file.tensors[i - 1].name, t->name) < 0);
    }
    assert_null(model_file_find(&file, "blk.0.attn_q"));
    assert_null(model_file_find(&file, ""));
    model_file_close(&file);
    model_file_close(&file); /* a zeroed one is fine */
    gguf_free(e.gguf);
    ggml_free(e.ctx);
}

/* Goal:   what is no readable regular file is said to be that; a FIFO must not block. */
static void what_is_no_regular_file_is_refused(void **state)
{
    const char *fifo = unit_path("fifo.gguf"), *folder = unit_path("folder.gguf");

    (void)state;
    must_refuse(unit_path("absent.gguf"), MCP_ENOTFOUND, "absent.gguf: cannot be opened");
    must_refuse("", MCP_ENOTFOUND, "cannot be opened");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    must_refuse(fifo, MCP_EIO, "not a regular file");
    assert_int_equal(mkdir(folder, 0700), 0);
    must_refuse(folder, MCP_EIO, "not a regular file");
    must_refuse("/dev/null", MCP_EIO, "not a regular file");
    must_refuse("/dev/null/x", MCP_EIO, "cannot be opened");
}

/* Goal:   a file cut anywhere is refused before a byte behind its end is touched.
 * Method: every length up to the end of a small header, then around each tensor's end. */
static void a_truncated_file_is_refused(void **state)
{
    const char *path = unit_synth("long.gguf", "tiny-llama", "f32", "--set", "layers=1", NULL);
    const char *cut = unit_path("cut.gguf");
    struct model_file file;
    mcp_error         err;
    size_t            count, tails[32], tail_count = 0;
    uint8_t          *bytes = unit_read(path, &count);

    (void)state;
    for (size_t length = 0; length < 24; length++) {
        unit_write(cut, bytes, length);
        must_refuse(cut, MCP_EFORMAT, "too few for a GGUF header");
    }
    unit_ok(model_file_open(&file, path, &err), &err);
    for (uint32_t i = 0; i < file.tensor_count && tail_count < 32; i++)
        tails[tail_count++] = (size_t)(file.tensors[i].data - file.parts[0].base) +
                              file.tensors[i].bytes;
    model_file_close(&file);
    assert_true(tail_count > 5);
    for (size_t i = 0; i < tail_count; i++) {
        unit_write(cut, bytes, tails[i] - 1);
        must_refuse(cut, MCP_EFORMAT, "cut short or damaged");
    }
    for (size_t length = 24; length < 20000; length += 997) {
        unit_write(cut, bytes, length);
        assert_int_equal(model_file_open(&file, cut, &err), MCP_EFORMAT);
        assert_null(file.parts);
    }
    free(bytes);
}

/* Goal:   a tensor announced to begin behind the end, or so far that sums wrap, is refused.
 * Method: the offsets of the table of tensors overwritten with large numbers. */
static void an_offset_that_wraps_is_refused(void **state)
{
    static const uint64_t bad[] = { (uint64_t)1 << 40, UINT64_MAX - 31, (uint64_t)1 << 63 };
    const char           *path = unit_synth("off.gguf", "tiny-llama", "f32", NULL);
    const char           *changed = unit_path("off-changed.gguf");
    size_t                count;
    uint8_t              *bytes = unit_read(path, &count), *name = NULL;
    struct model_file     file;
    mcp_error             err;

    (void)state;
    for (size_t i = 0; i + 16 < count && name == NULL; i++)
        if (memcmp(bytes + i, "output_norm.weight", 18) == 0)
            name = bytes + i;
    assert_non_null(name);
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) { /* name, dims u32, one u64, type u32, offset */
        memcpy(name + 18 + 4 + 8 + 4, &bad[i], 8);
        unit_write(changed, bytes, count);
        assert_int_equal(model_file_open(&file, changed, &err), MCP_EFORMAT);
        assert_true(err.text[0] != '\0');
    }
    free(bytes);
}

/* Goal:   a file of keys alone is no model, and odd alignment is not run. */
static void a_file_without_tensors_or_alignment_is_refused(void **state)
{
    const char          *path = unit_synth("base.gguf", "tiny-llama", "f32", NULL);
    const char          *changed = unit_path("changed.gguf");
    struct gguf_context *keys = gguf_init_empty();
    struct edit          e;

    (void)state;
    gguf_set_val_str(keys, "general.architecture", "llama");
    assert_true(gguf_write_to_file(keys, changed, false));
    gguf_free(keys);
    must_refuse(changed, MCP_EFORMAT, "has no tensors");
    e = edit_open(path);
    gguf_set_val_u32(e.gguf, "general.alignment", 16);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_ENOTSUP, "general.alignment is 16");
}

/* ---- several parts -------------------------------------------------------------- */

static uint32_t parts;

/* "NAME-00002-of-00005.gguf" in our folder, for part 1. */
static const char *part(const char *name, uint32_t index)
{
    char file[128];

    snprintf(file, sizeof(file), "%s-%05u-of-%05u.gguf", name, index + 1, parts);
    return unit_path(file);
}

static void copy(const char *from, const char *to)
{
    size_t   count;
    uint8_t *bytes = unit_read(from, &count);

    unit_write(to, bytes, count);
    free(bytes);
}

/* Write the parts as `name`. */
static void split(const char *name)
{
    char out[64];
    char glob[128];

    if (parts == 0) {
        unit_synth("split.gguf", "tiny-llama", "f32", "--split-max-bytes", "900K", NULL);
        for (parts = 1; parts < 20; parts++) {
            snprintf(glob, sizeof(glob), "split-00001-of-%05u.gguf", parts);
            if (access(unit_path(glob), R_OK) == 0)
                break;
        }
        assert_true(parts > 2 && parts < 20);
    }
    snprintf(out, sizeof(out), "%s", name);
    for (uint32_t i = 0; strcmp(name, "split") != 0 && i < parts; i++)
        copy(part("split", i), part(out, i));
}

/* Goal:   any part's path opens the whole model, and the parts are in order. */
static void any_part_opens_the_whole_model(void **state)
{
    const char       *path = unit_synth("one.gguf", "tiny-llama", "f32", NULL);
    struct model_file whole, file;
    mcp_error         err;

    (void)state;
    split("split");
    unit_ok(model_file_open(&whole, path, &err), &err);
    for (uint32_t i = 0; i < parts; i++) {
        unit_ok(model_file_open(&file, part("split", i), &err), &err);
        assert_int_equal(file.part_count, parts);
        for (uint32_t p = 0; p < parts; p++)
            assert_string_equal(file.parts[p].path, part("split", p));
        assert_true(gguf_find_key(file.parts[0].gguf, "llama.block_count") >= 0);
        assert_int_equal(file.tensor_count, whole.tensor_count);
        for (uint32_t t = 0; t < file.tensor_count; t++) {
            assert_string_equal(file.tensors[t].name, whole.tensors[t].name);
            assert_memory_equal(file.tensors[t].data, whole.tensors[t].data, file.tensors[t].bytes);
        }
        model_file_close(&file);
    }
    model_file_close(&whole);
}

/* Goal:   a part that is missing, exchanged, of another split or badly named is refused. */
static void parts_that_do_not_belong_together_are_refused(void **state)
{
    const char *odd = unit_path("odd.gguf"), *almost = unit_path("a-00001_of-00004.gguf");
    struct edit e;

    (void)state;
    split("gone");
    remove(part("gone", 1));
    must_refuse(part("gone", 0), MCP_ENOTFOUND, "gone-00002-of-");
    must_refuse(part("gone", 2), MCP_ENOTFOUND, "gone-00002-of-");

    split("swapped");
    copy(part("split", 2), part("swapped", 1));
    must_refuse(part("swapped", 0), MCP_EFORMAT, "is not part 2 of");

    split("other");
    e = edit_open(part("split", 1));
    gguf_set_val_u16(e.gguf, "split.count", (uint16_t)(parts + 1));
    edit_write(&e, part("other", 1), NULL);
    must_refuse(part("other", 0), MCP_EFORMAT, "is not part 2 of");

    copy(part("split", 1), odd);
    must_refuse(odd, MCP_EFORMAT, "the name does not end in -NNNNN-of-00004.gguf");
    copy(part("split", 1), almost);
    must_refuse(almost, MCP_EFORMAT, "the name does not end in");

    split("lost");
    e = edit_open(part("split", 1));
    edit_write(&e, part("lost", 1),
               ggml_get_next_tensor(e.ctx, ggml_get_first_tensor(e.ctx))->name);
    must_refuse(part("lost", 0), MCP_EFORMAT, "split.tensors.count is");
}

/* Goal:   the split keys have the one type that libllama takes, and sane numbers. */
static void split_keys_are_checked(void **state)
{
    const char *path = unit_synth("keys.gguf", "tiny-llama", "f32", NULL);
    const char *changed = unit_path("keys-00001-of-00002.gguf");
    struct edit e;

    (void)state;
    e = edit_open(path);
    gguf_set_val_u32(e.gguf, "split.count", 1);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.count must be of type u16");
    e = edit_open(path);
    gguf_set_val_u16(e.gguf, "split.count", 0);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.count is 0");
    e = edit_open(path);
    gguf_set_val_u16(e.gguf, "split.count", MODEL_PARTS_MAX + 1);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.count is 1001");
    e = edit_open(path);
    gguf_set_val_u16(e.gguf, "split.count", 2);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.no is missing");
    e = edit_open(path);
    gguf_set_val_u16(e.gguf, "split.count", 2);
    gguf_set_val_u16(e.gguf, "split.no", 2);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.no is missing or not below");
    e = edit_open(path);
    gguf_set_val_u16(e.gguf, "split.count", 1);
    gguf_set_val_i32(e.gguf, "split.no", 0);
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.no must be of type u16");
    e = edit_open(path);
    gguf_set_val_str(e.gguf, "split.tensors.count", "39");
    edit_write(&e, changed, NULL);
    must_refuse(changed, MCP_EFORMAT, "split.tensors.count must be of type i32");
}

/* Goal:   one name in two parts is refused: which one counts would be chance. */
static void a_tensor_in_two_parts_is_refused(void **state)
{
    struct edit first, second;

    (void)state;
    split("twice");
    first = edit_open(part("split", 0));
    second = edit_open(part("split", 1));
    gguf_set_val_i32(
        first.gguf, "split.tensors.count",
        gguf_get_val_i32(first.gguf, gguf_find_key(first.gguf, "split.tensors.count")) + 1);
    gguf_add_tensor(second.gguf, edit_tensor(&first, "token_embd.weight"));
    edit_write(&second, part("twice", 1), NULL);
    edit_write(&first, part("twice", 0), NULL);
    must_refuse(part("twice", 0), MCP_EFORMAT, "tensor token_embd.weight is in two parts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_lie_where_ggml_says),
        cmocka_unit_test(what_is_no_regular_file_is_refused),
        cmocka_unit_test(a_truncated_file_is_refused),
        cmocka_unit_test(an_offset_that_wraps_is_refused),
        cmocka_unit_test(a_file_without_tensors_or_alignment_is_refused),
        cmocka_unit_test(any_part_opens_the_whole_model),
        cmocka_unit_test(parts_that_do_not_belong_together_are_refused),
        cmocka_unit_test(split_keys_are_checked),
        cmocka_unit_test(a_tensor_in_two_parts_is_refused),
    };

    return cmocka_run_group_tests_name("model/file", tests, NULL, NULL);
}
