/* guard/keyring.c - see keyring.h and token.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keyring.h"

#include "base/fail.h"
#include "guard/json.h"
#include "guard/lists.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- token keys --------------------------------------------------------------------- */

static bool is_key_file(const char *name)
{
    size_t bytes = strlen(name);

    if (strcmp(name, "token.pub") == 0)
        return true;
    return strncmp(name, "token-", 6) == 0 && bytes > 10 && strcmp(name + bytes - 4, ".pub") == 0;
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(a, b);
}

int guard_key_files(char files[GUARD_KEYS_MAX][GUARD_KEY_FILE_BYTES], size_t *count,
                    const struct guard_folder *folder, mcp_error *err)
{
    int            fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = MCP_OK;
    DIR           *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    *count = 0;
    if (dir == NULL) {
        int failed = errno;

        if (fd >= 0)
            (void)close(fd);
        return base_fail(err, failed == ENOMEM ? MCP_ENOMEM : MCP_EIO, "%s: %s", folder->path,
                         strerror(failed));
    }
    while (rc == MCP_OK && (entry = readdir(dir)) != NULL) {
        if (!is_key_file(entry->d_name))
            continue;
        if (*count == GUARD_KEYS_MAX)
            rc = base_fail(err, MCP_EFORMAT, "%s holds more than %d token keys: remove old ones",
                           folder->path, GUARD_KEYS_MAX);
        else if (strlen(entry->d_name) >= GUARD_KEY_FILE_BYTES)
            rc = base_fail(err, MCP_EFORMAT, "%s/%s: a token key's name has at most %d characters",
                           folder->path, entry->d_name, GUARD_KEY_FILE_BYTES - 1);
        else
            memcpy(files[(*count)++], entry->d_name, strlen(entry->d_name) + 1);
    }
    (void)closedir(dir);
    qsort(files, *count, GUARD_KEY_FILE_BYTES, compare_files);
    return rc;
}

static int load_key(struct guard_keyring *ring, const struct guard_folder *folder, const char *file,
                    mcp_error *err)
{
    struct guard_key  *slot = &ring->keys[ring->key_count];
    struct guard_bytes pem;
    char               path[GUARD_PATH_BYTES + GUARD_KEY_FILE_BYTES];
    int rc = guard_folder_read(folder, file, GUARD_PUBLIC, GUARD_PEM_BYTES, &pem, err);

    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "%s/%s", folder->path, file);
    rc = guard_key_read_public(&slot->key, &pem, path, err);
    guard_bytes_fini(&pem);
    if (rc < 0)
        return rc;
    ring->key_count++; /* from here on the ring frees it */
    memcpy(slot->file, file, strlen(file) + 1);
    return guard_key_id(slot->key, slot->id, err);
}

static int load_keys(struct guard_keyring *ring, const struct guard_folder *folder, mcp_error *err)
{
    char   files[GUARD_KEYS_MAX][GUARD_KEY_FILE_BYTES];
    size_t count;
    int    rc = guard_key_files(files, &count, folder, err);

    for (size_t i = 0; rc == MCP_OK && i < count; i++)
        rc = load_key(ring, folder, files[i], err);
    return rc;
}

const struct guard_key *guard_keyring_find(const struct guard_keyring *ring, const char *id)
{
    for (size_t i = 0; i < ring->key_count; i++)
        if (strcmp(ring->keys[i].id, id) == 0)
            return &ring->keys[i];
    return NULL;
}

/* ---- the authority ------------------------------------------------------------------ */

static int load_authority(struct guard_keyring *ring, const struct guard_folder *folder,
                          mcp_error *err)
{
    struct guard_bytes pem;
    mcp_error          why = { 0 };
    X509              *certificate;
    int rc = guard_folder_read(folder, "ca.pem", GUARD_PUBLIC, GUARD_PEM_BYTES, &pem, &why);

    if (rc == MCP_ENOTFOUND)
        return MCP_OK;
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    rc = guard_certificate_read(&certificate, &pem, "ca.pem", err);
    guard_bytes_fini(&pem);
    if (rc == MCP_OK)
        rc = guard_certificate_authority_id(certificate, ring->authority, err);
    X509_free(certificate);
    return rc;
}

/* ---- revocations -------------------------------------------------------------------- */

static int compare_serials(const void *a, const void *b)
{
    const struct guard_serial *x = a, *y = b;

    return x->count != y->count ? x->count - y->count : memcmp(x->bytes, y->bytes, x->count);
}

static int compare_jtis(const void *a, const void *b)
{
    return strcmp(a, b);
}

static uint8_t hex_value(char c)
{
    return (uint8_t)(c >= 'a' ? c - 'a' + 10 : c - '0');
}

/* Big-endian without leading zeros, as it is looked for. */
static void set_serial(struct guard_serial *serial, const char *hex)
{
    while (hex[0] == '0' && hex[1] == '0')
        hex += 2;
    for (; *hex != '\0'; hex += 2)
        serial->bytes[serial->count++] = (uint8_t)(hex_value(hex[0]) << 4 | hex_value(hex[1]));
}

static int load_revoked(struct guard_keyring *ring, const struct guard_folder *folder,
                        mcp_error *err)
{
    json_t *list;
    int     rc = guard_revoked_load(&list, folder, err);

    if (rc < 0)
        return rc;
    const json_t *certificates = json_object_get(list, "certificates");
    const json_t *tokens = json_object_get(list, "tokens");
    size_t        serials = json_array_size(certificates), jtis = json_array_size(tokens);

    ring->serials = calloc(serials + 1, sizeof(ring->serials[0]));
    ring->jtis = calloc(jtis + 1, sizeof(ring->jtis[0]));
    if (ring->serials == NULL || ring->jtis == NULL) {
        json_decref(list);
        return base_fail(err, MCP_ENOMEM, "out of memory for %zu revocations", serials + jtis);
    }
    for (size_t i = 0; i < serials; i++)
        set_serial(&ring->serials[i], guard_json_text(json_array_get(certificates, i), "serial"));
    for (size_t i = 0; i < jtis; i++)
        strcpy(ring->jtis[i], guard_json_text(json_array_get(tokens, i), "jti"));
    ring->serial_count = serials;
    ring->jti_count = jtis;
    qsort(ring->serials, serials, sizeof(ring->serials[0]), compare_serials);
    qsort(ring->jtis, jtis, sizeof(ring->jtis[0]), compare_jtis);
    json_decref(list);
    return MCP_OK;
}

bool guard_keyring_cert_revoked(const struct guard_keyring *ring, const uint8_t *serial,
                                size_t bytes)
{
    struct guard_serial wanted = { 0 };

    while (bytes > 0 && *serial == 0) {
        serial++;
        bytes--;
    }
    if (bytes > sizeof(wanted.bytes))
        return false; /* longer than any that the list may hold */
    memcpy(wanted.bytes, serial, bytes);
    wanted.count = (uint8_t)bytes;
    return ring->serial_count > 0 &&
           bsearch(&wanted, ring->serials, ring->serial_count, sizeof(wanted), compare_serials);
}

bool guard_keyring_token_revoked(const struct guard_keyring *ring, const char *jti)
{
    return ring->jti_count > 0 &&
           bsearch(jti, ring->jtis, ring->jti_count, sizeof(ring->jtis[0]), compare_jtis);
}

/* ---- the ring ----------------------------------------------------------------------- */

int guard_keyring_load_from(struct guard_keyring **out, const struct guard_folder *folder,
                            mcp_error *err)
{
    struct guard_keyring *ring = calloc(1, sizeof(*ring));
    int                   rc;

    *out = NULL;
    if (ring == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for the keys of %s", folder->path);
    atomic_init(&ring->refs, 1);
    rc = load_authority(ring, folder, err);
    if (rc == MCP_OK)
        rc = load_keys(ring, folder, err);
    if (rc == MCP_OK)
        rc = load_revoked(ring, folder, err);
    if (rc < 0) {
        guard_keyring_unref(ring);
        return rc;
    }
    *out = ring;
    return MCP_OK;
}

int guard_keyring_load(struct guard_keyring **out, const char *folder, mcp_error *err)
{
    struct guard_folder opened;
    int                 rc = guard_folder_open(&opened, folder, err);

    *out = NULL;
    if (rc == MCP_OK)
        rc = guard_keyring_load_from(out, &opened, err);
    guard_folder_close(&opened);
    return rc;
}

struct guard_keyring *guard_keyring_ref(struct guard_keyring *ring)
{
    if (ring != NULL)
        atomic_fetch_add(&ring->refs, 1);
    return ring;
}

void guard_keyring_unref(struct guard_keyring *ring)
{
    if (ring == NULL || atomic_fetch_sub(&ring->refs, 1) != 1)
        return;
    for (size_t i = 0; i < ring->key_count; i++)
        EVP_PKEY_free(ring->keys[i].key);
    free(ring->serials);
    free(ring->jtis);
    free(ring);
}
