/* cli/list.c - `mcp list` and `mcp devices`: what there is to run, and to run it on.
 *
 * A file that cannot be opened is listed with the reason rather than left out.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/out.h"

#include <mcp/engine.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* ---- a table of text, columns as wide as their widest cell ------------------------ */

enum {
    COLUMNS = 5,
    CELL_BYTES = 512,
};

struct table {
    char (*rows)[COLUMNS][CELL_BYTES]; /* (count); owned */
    size_t count;
};

static size_t cell_width(const char *text)
{
    size_t   width = 0, count = strlen(text);
    uint32_t code;

    while (count > 0) {
        size_t n = cli_utf8_next(text, count, &code); /* cells are valid UTF-8 */
        int    columns = n > 0 ? wcwidth((wchar_t)code) : 1;
        width += columns > 0 ? (size_t)columns : 0;
        n = n == 0 ? code : n;
        text += n;
        count -= n;
    }
    return width;
}

static int table_add(struct table *table, const char *const cells[COLUMNS])
{
    void *rows = realloc(table->rows, (table->count + 1) * sizeof(table->rows[0]));

    if (rows == NULL)
        return cli_fail("out of memory for the list"), -1;
    table->rows = rows;
    for (size_t i = 0; i < COLUMNS; i++)
        cli_text_field(table->rows[table->count][i], CELL_BYTES, cells[i] != NULL ? cells[i] : "");
    table->count++;
    return 0;
}

/* A row whose second cell is "!" tells a reason in its third instead of figures. */
static void table_print(const struct table *table)
{
    size_t width[COLUMNS] = { 0 };

    for (size_t r = 0; r < table->count; r++)
        for (size_t c = 0; c < COLUMNS; c++) {
            size_t w = cell_width(table->rows[r][c]);
            bool   reason = c > 0 && strcmp(table->rows[r][1], "!") == 0;
            if (!reason && w > width[c])
                width[c] = w;
        }
    for (size_t r = 0; r < table->count; r++) {
        bool reason = strcmp(table->rows[r][1], "!") == 0;
        for (size_t c = 0; c < COLUMNS; c++) {
            const char *cell = table->rows[r][c];
            if (reason && c > 0) {
                cli_printf("%s", table->rows[r][2]);
                break;
            }
            bool last = c + 1 == COLUMNS || table->rows[r][c + 1][0] == '\0';
            cli_printf("%s%*s", cell, last ? 0 : (int)(width[c] - cell_width(cell)) + 2, "");
            if (last)
                break;
        }
        cli_printf("\n");
    }
}

/* ---- list ------------------------------------------------------------------------- */

struct list_args {
    struct cli_args args;
    const char     *models;
    bool            json;
};

static const struct cli_option list_options[] = {
    { .name = "models",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct list_args, models),
      .value = "DIR",
      .help = "folder to look in; default: models in the cache folder" },
    { .name = "json",
      .type = CLI_FLAG,
      .at = offsetof(struct list_args, json),
      .help = "a JSON array, one object a file" },
};

/* NAME-00002-of-00003.gguf: a later part, shown with its first. */
static bool is_later_part(const char *name)
{
    enum { TAIL = sizeof("-00002-of-00003.gguf") - 1 };
    size_t   bytes = strlen(name);
    unsigned part, parts;
    int      end = 0;

    if (bytes <= TAIL)
        return false;
    if (sscanf(name + bytes - TAIL, "-%5u-of-%5u.gguf%n", &part, &parts, &end) != 2)
        return false;
    return end == TAIL && part > 1 && part <= parts;
}

static int is_model(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');

    return dot != NULL && strcmp(dot, ".gguf") == 0 && dot != entry->d_name;
}

static json_t *entry_json(const char *path, const char *name, const mcp_model *model,
                          const char *reason)
{
    json_t *object = json_object();

    json_object_set_new(object, "file", cli_json_string(name));
    json_object_set_new(object, "path", cli_json_string(path));
    if (model == NULL) {
        json_object_set_new(object, "error", cli_json_string(reason));
        return object;
    }
    const mcp_model_info *info = mcp_model_get_info(model);
    json_object_set_new(object, "name", cli_json_string(info->name));
    json_object_set_new(object, "architecture", cli_json_string(info->architecture));
    json_object_set_new(object, "layers", json_integer(info->layers));
    json_object_set_new(object, "parts", json_integer(info->parts));
    json_object_set_new(object, "file_bytes", json_integer((json_int_t)info->file_bytes));
    json_object_set_new(object, "quantisation", cli_json_string(info->quantisation));
    return object;
}

/* One file, as a table row or as an element of `array` when there is one. */
static int list_file(struct table *table, json_t *array, const char *folder, const char *name)
{
    char       path[CLI_PATH_BYTES];
    mcp_model *model = NULL;
    mcp_error  err = { 0 };
    int        rc = 0;

    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        snprintf(err.text, sizeof(err.text), "the path is longer than %d bytes", CLI_PATH_BYTES);
    else
        (void)mcp_model_open(&model, path, &err); /* a failure is shown in the row */

    if (array != NULL) {
        json_array_append_new(array, entry_json(path, name, model, err.text));
    } else if (model == NULL) {
        rc = table_add(table, (const char *const[COLUMNS]){ name, "!", err.text });
    } else {
        const mcp_model_info *info = mcp_model_get_info(model);
        char                  layers[CLI_BYTES_TEXT], size[CLI_BYTES_TEXT];

        snprintf(layers, sizeof(layers), "%u", info->layers);
        cli_bytes_text(size, info->file_bytes);
        rc = table_add(table, (const char *const[COLUMNS]){ name, info->architecture, layers, size,
                                                            info->quantisation });
    }
    mcp_model_close(model);
    return rc;
}

static int list_run(struct cli_args *args)
{
    const struct list_args *list = (const struct list_args *)args;
    char                    folder[CLI_PATH_BYTES];
    struct dirent         **entries = NULL;
    struct table            table = { 0 };
    json_t                 *array = NULL;
    int                     count = 0, status = CLI_FAILED;

    if (list->models != NULL) {
        if (snprintf(folder, sizeof(folder), "%s", list->models) >= (int)sizeof(folder))
            return cli_fail("the path is longer than %d bytes", CLI_PATH_BYTES);
    } else if (cli_models_folder(folder) < 0) {
        return CLI_FAILED;
    }
    count = scandir(folder, &entries, is_model, alphasort);
    if (count < 0) {
        /* Only the folder we chose ourselves may be missing: nothing was kept yet. */
        if (errno != ENOENT || list->models != NULL)
            return cli_fail("%.300s: %s", folder, strerror(errno));
        count = 0;
    }
    array = list->json ? json_array() : NULL;
    if (array == NULL && count > 0 &&
        table_add(&table, (const char *const[COLUMNS]){ "file", "architecture", "layers", "size",
                                                        "quantisation" }) < 0)
        goto out;
    for (int i = 0; i < count; i++)
        if (!is_later_part(entries[i]->d_name) &&
            list_file(&table, array, folder, entries[i]->d_name) < 0)
            goto out;

    status = CLI_OK;
    if (array != NULL) {
        status = cli_print_json(array);
        array = NULL; /* taken */
    } else if (count == 0) {
        cli_note("no .gguf files in %.300s", folder);
    } else {
        table_print(&table);
    }
out:
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    free(table.rows);
    json_decref(array);
    return status;
}

const struct cli_verb cli_verb_list = {
    .name = "list",
    .summary = "model files in a folder",
    .usage = "[DIR] [--json]",
    .groups = { { "Options", list_options, sizeof(list_options) / sizeof(list_options[0]), 0 } },
    .args_bytes = sizeof(struct list_args),
    .run = list_run,
};

/* ---- devices ---------------------------------------------------------------------- */

enum { DEVICES_MAX = 64 }; /* a host has fewer */

struct devices_args {
    struct cli_args args;
    bool            json;
};

static const struct cli_option devices_options[] = {
    { .name = "json",
      .type = CLI_FLAG,
      .at = offsetof(struct devices_args, json),
      .help = "a JSON array, one object a device" },
};

static const char *bytes_or_unknown(char out[CLI_BYTES_TEXT], uint64_t bytes)
{
    return bytes > 0 ? cli_bytes_text(out, bytes) : "unknown";
}

static int devices_run(struct cli_args *args)
{
    static mcp_device devices[DEVICES_MAX];
    int               count = mcp_devices(devices, DEVICES_MAX);
    struct table      table = { 0 };
    int               status = CLI_OK;

    if (count < 0)
        return cli_fail("%s", mcp_code_text(count));
    if (((struct devices_args *)args)->json) {
        json_t *array = json_array();
        for (int i = 0; i < count; i++)
            json_array_append_new(
                array,
                json_pack("{s:o, s:o, s:b, s:I, s:I}", "name", cli_json_string(devices[i].name),
                          "description", cli_json_string(devices[i].description), "gpu",
                          devices[i].gpu, "memory_bytes", (json_int_t)devices[i].memory_bytes,
                          "memory_free_bytes", (json_int_t)devices[i].memory_free_bytes));
        return cli_print_json(array);
    }
    for (int i = -1; i < count && status == CLI_OK; i++) {
        char              total[CLI_BYTES_TEXT], unused[CLI_BYTES_TEXT];
        const mcp_device *d = i < 0 ? NULL : &devices[i];

        if (table_add(&table,
                      (const char *const[COLUMNS]){
                          d == NULL ? "device" : d->name,
                          d == NULL ? "memory" : bytes_or_unknown(total, d->memory_bytes),
                          d == NULL ? "free" : bytes_or_unknown(unused, d->memory_free_bytes),
                          d == NULL ? "description" : d->description }) < 0)
            status = CLI_FAILED;
    }
    if (status == CLI_OK)
        table_print(&table);
    free(table.rows);
    return status;
}

const struct cli_verb cli_verb_devices = {
    .name = "devices",
    .summary = "what this machine can compute on",
    .usage = "[--json]",
    .groups = { { "Options", devices_options, 1, 0 } },
    .args_bytes = sizeof(struct devices_args),
    .run = devices_run,
};
