/* guard/keys.c - making folders: a whole authority, and one identity to be carried away.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/keyring.h"
#include "guard/lists.h"
#include "guard/stage.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* How a worker is reached from its own machine. */
static const char loopback[] = "localhost,127.0.0.1,::1";

static int add_bytes(struct guard_stage *stage, const char *name, enum guard_mode mode,
                     const struct guard_bytes *bytes, mcp_error *err)
{
    return guard_stage_add(stage, name, mode, bytes->data, bytes->count, err);
}

/* NAME.pem and NAME.key */
static int add_pair(struct guard_stage *stage, const char *name, const struct guard_pair *pair,
                    mcp_error *err)
{
    char file[32];
    int  rc;

    snprintf(file, sizeof(file), "%s.pem", name);
    rc = add_bytes(stage, file, GUARD_PUBLIC, &pair->certificate_pem, err);
    if (rc < 0)
        return rc;
    snprintf(file, sizeof(file), "%s.key", name);
    return add_bytes(stage, file, GUARD_SECRET, &pair->key_pem, err);
}

/* ---- init --------------------------------------------------------------------------- */

/* What the first worker's certificate is good for: the given names and this machine. */
static int first_hosts(struct guard_hosts *hosts, const char *list, mcp_error *err)
{
    char machine[256] = "";
    int  rc = MCP_OK;

    if (list != NULL)
        rc = guard_hosts_add(hosts, list, err);
    if (rc == MCP_OK)
        rc = guard_hosts_add(hosts, loopback, err);
    if (rc == MCP_OK && gethostname(machine, sizeof(machine) - 1) == 0)
        (void)guard_hosts_add(hosts, machine, NULL); /* not every machine's name is a DNS name */
    return rc;
}

static int add_token_key(struct guard_stage *stage, mcp_error *err)
{
    struct guard_bytes private = { 0 }, public = { 0 };
    EVP_PKEY *key;
    int       rc = guard_key_new(&key, GUARD_ED25519, err);

    if (rc == MCP_OK)
        rc = guard_key_private_pem(key, &private, err);
    if (rc == MCP_OK)
        rc = guard_key_public_pem(key, &public, err);
    if (rc == MCP_OK)
        rc = add_bytes(stage, "token.key", GUARD_SECRET, &private, err);
    if (rc == MCP_OK)
        rc = add_bytes(stage, "token.pub", GUARD_PUBLIC, &public, err);
    guard_bytes_fini(&private);
    guard_bytes_fini(&public);
    EVP_PKEY_free(key);
    return rc;
}

/* One certificate a role, called like the role, each noted in `issued`. */
static int add_roles(struct guard_stage *stage, const struct guard_pair *authority,
                     const struct guard_hosts *hosts, int64_t now_s, json_t *issued, mcp_error *err)
{
    int rc = MCP_OK;

    for (int role = 0; rc == MCP_OK && role < GUARD_ROLES; role++) {
        struct guard_pair pair;
        const char       *name = guard_role_names[role];

        rc = guard_pair_make(&pair, (mcp_role)role, name, role == MCP_ROLE_WORKER ? hosts : NULL,
                             authority, now_s, err);
        if (rc == MCP_OK)
            rc = add_pair(stage, name, &pair, err);
        if (rc == MCP_OK)
            rc = guard_issued_add(issued, &pair.who, err);
        guard_pair_fini(&pair);
    }
    return rc;
}

static int add_lists(struct guard_stage *stage, const json_t *issued, mcp_error *err)
{
    static const char  nothing_revoked[] = "{\n \"certificates\": [],\n \"tokens\": []\n}\n";
    struct guard_bytes text;
    int                rc = guard_list_text(issued, &text, err);

    if (rc == MCP_OK)
        rc = add_bytes(stage, "issued.json", GUARD_PUBLIC, &text, err);
    if (rc == MCP_OK)
        rc = guard_stage_add(stage, "revoked.json", GUARD_PUBLIC, nothing_revoked,
                             strlen(nothing_revoked), err);
    guard_bytes_fini(&text);
    return rc;
}

int guard_keys_init(const char *folder, const char *hosts, mcp_error *err)
{
    struct guard_stage stage = GUARD_STAGE_NONE;
    struct guard_pair  authority = { 0 };
    struct guard_hosts names = { .count = 0 };
    json_t            *issued = NULL;
    int64_t            now_s = time(NULL);
    int                rc = first_hosts(&names, hosts, err);

    if (rc == MCP_OK)
        rc = guard_stage_begin(&stage, folder, err);
    if (rc < 0)
        goto out;
    issued = json_pack("{s:[]}", "certificates");
    if (issued == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "out of memory for the list of certificates");
        goto out;
    }
    rc = guard_pair_make_authority(&authority, now_s, err);
    if (rc == MCP_OK)
        rc = add_pair(&stage, "ca", &authority, err);
    if (rc == MCP_OK)
        rc = add_roles(&stage, &authority, &names, now_s, issued, err);
    if (rc == MCP_OK)
        rc = add_token_key(&stage, err);
    if (rc == MCP_OK)
        rc = add_lists(&stage, issued, err);
    if (rc == MCP_OK)
        rc = guard_stage_commit(&stage, err);
out:
    json_decref(issued);
    guard_pair_fini(&authority);
    guard_stage_fini(&stage);
    return rc;
}

/* ---- issue -------------------------------------------------------------------------- */

static int copy(struct guard_stage *stage, const struct guard_folder *from, const char *file,
                size_t bytes_max, mcp_error *err)
{
    struct guard_bytes bytes;
    int                rc = guard_folder_read(from, file, GUARD_PUBLIC, bytes_max, &bytes, err);

    if (rc == MCP_OK)
        rc = add_bytes(stage, file, GUARD_PUBLIC, &bytes, err);
    guard_bytes_fini(&bytes);
    return rc;
}

/* What every member of the cluster should know: the authority, its token keys, revocations. */
static int copy_public(struct guard_stage *stage, const struct guard_folder *from, mcp_error *err)
{
    char      files[GUARD_KEYS_MAX][GUARD_KEY_FILE_BYTES];
    size_t    count;
    mcp_error why = { 0 };
    int       rc = copy(stage, from, "ca.pem", GUARD_PEM_BYTES, err);

    if (rc == MCP_OK)
        rc = guard_key_files(files, &count, from, err);
    for (size_t i = 0; rc == MCP_OK && i < count; i++)
        rc = copy(stage, from, files[i], GUARD_PEM_BYTES, err);
    if (rc < 0)
        return rc;
    rc = copy(stage, from, "revoked.json", GUARD_LIST_BYTES, &why);
    return rc < 0 && rc != MCP_ENOTFOUND ? base_fail(err, rc, "%s", why.text) : MCP_OK;
}

static int issue_hosts(struct guard_hosts *hosts, mcp_role role, const char *name, const char *list,
                       mcp_error *err)
{
    int rc;

    if (role != MCP_ROLE_WORKER)
        return list == NULL ? MCP_OK
                            : base_fail(err, MCP_EINVAL,
                                        "host names are for a worker's certificate, not for a "
                                        "%s's",
                                        guard_role_names[role]);
    rc = guard_hosts_add(hosts, list != NULL ? list : name, err);
    return rc < 0 ? rc : guard_hosts_add(hosts, loopback, err);
}

int guard_keys_issue(const char *folder, mcp_role role, const char *name, const char *hosts,
                     const char *target, mcp_error *err)
{
    struct guard_authority authority = GUARD_AUTHORITY_NONE;
    struct guard_stage     stage = GUARD_STAGE_NONE;
    struct guard_hosts     names = { .count = 0 };
    struct guard_pair      pair = { 0 };
    int                    rc = guard_name_check(name, err);

    if (rc == MCP_OK)
        rc = issue_hosts(&names, role, name, hosts, err);
    if (rc == MCP_OK)
        rc = guard_authority_open(&authority, folder, err);
    if (rc == MCP_OK)
        rc = guard_stage_begin(&stage, target, err);
    if (rc == MCP_OK)
        rc = guard_pair_make(&pair, role, name, &names, &authority.pair, time(NULL), err);
    if (rc == MCP_OK)
        rc = add_pair(&stage, guard_role_names[role], &pair, err);
    if (rc == MCP_OK)
        rc = copy_public(&stage, &authority.folder, err);
    /* Before the key can be used: what is not in the list cannot be revoked by its name.  Should
     * the last step fail, the list names a key that nobody has, which harms nothing. */
    if (rc == MCP_OK)
        rc = guard_authority_record(&authority, &pair.who, err);
    if (rc == MCP_OK)
        rc = guard_stage_commit(&stage, err);
    guard_pair_fini(&pair);
    guard_stage_fini(&stage);
    guard_authority_close(&authority);
    return rc;
}
