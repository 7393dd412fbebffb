/* worker/access.c - see access.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/access.h"

#include "base/fail.h"
#include "base/log.h"
#include "guard/authority.h"

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

struct worker_access {
    char       *folder;
    bool        require_token;
    char        name[NET_NAME_BYTES];
    uint64_t    seen; /* signature of the folder that was loaded last; refresh's thread */
    atomic_uint version;

    pthread_mutex_t       lock; /* guards the rest */
    struct guard_keyring *ring;
    struct net_identity  *identity;
    char                  problem[WORKER_PROBLEM_BYTES];
};

/* ---- the folder --------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < count; i++) /* FNV-1a */
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* A number that is another when a file came, went, or was written or replaced.  Sums of the
 * files' numbers, for their order is not the same each time. */
static uint64_t folder_signature(const char *folder)
{
    DIR           *dir = opendir(folder);
    struct dirent *entry;
    struct stat    st;
    uint64_t       sum = dir != NULL ? 1 : 0;

    for (; dir != NULL && (entry = readdir(dir)) != NULL;) {
        uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), entry->d_name, strlen(entry->d_name));

        if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
            continue;
        hash = mix(hash, &st.st_mtim, sizeof(st.st_mtim));
        hash = mix(hash, &st.st_size, sizeof(st.st_size));
        sum += mix(hash, &st.st_ino, sizeof(st.st_ino));
    }
    if (dir != NULL)
        closedir(dir);
    return sum;
}

static int load(struct worker_access *a, struct guard_keyring **ring,
                struct net_identity **identity, mcp_error *err)
{
    int rc;

    *identity = NULL;
    rc = guard_keyring_load(ring, a->folder, err);
    if (rc == MCP_OK)
        rc = net_identity_load(identity, a->folder, "worker", *ring, err);
    if (rc < 0) {
        guard_keyring_unref(*ring);
        *ring = NULL;
    }
    return rc;
}

/* The CN of worker.pem. */
static int own_name(struct worker_access *a, mcp_error *err)
{
    struct guard_folder   folder = GUARD_FOLDER_CLOSED;
    struct guard_identity own;
    X509                 *certificate = NULL;
    int                   rc = guard_folder_open(&folder, a->folder, err);

    if (rc == MCP_OK)
        rc = guard_folder_certificate(&certificate, &folder, "worker.pem", err);
    if (rc == MCP_OK)
        rc = guard_certificate_identity(certificate, &own, err);
    if (rc == MCP_OK)
        snprintf(a->name, sizeof(a->name), "%s", own.name);
    X509_free(certificate);
    guard_folder_close(&folder);
    return rc;
}

int worker_access_open(struct worker_access **out, const char *folder, bool require_token,
                       mcp_error *err)
{
    struct worker_access *a = calloc(1, sizeof(*a));
    int                   rc = MCP_OK;

    *out = NULL;
    if (a == NULL)
        return base_fail(err, MCP_ENOMEM, "keys");
    pthread_mutex_init(&a->lock, NULL);
    atomic_init(&a->version, 1);
    a->require_token = require_token;
    a->folder = strdup(folder);
    if (a->folder == NULL)
        rc = base_fail(err, MCP_ENOMEM, "keys");
    if (rc == MCP_OK) {
        /* Before loading: what changes in between is seen by the first refresh. */
        a->seen = folder_signature(folder);
        rc = load(a, &a->ring, &a->identity, err);
    }
    if (rc == MCP_OK)
        rc = own_name(a, err);
    if (rc < 0) {
        worker_access_close(a);
        return rc;
    }
    *out = a;
    return MCP_OK;
}

void worker_access_close(struct worker_access *a)
{
    if (a == NULL)
        return;
    net_identity_unref(a->identity);
    guard_keyring_unref(a->ring);
    pthread_mutex_destroy(&a->lock);
    free(a->folder);
    free(a);
}

bool worker_access_refresh(struct worker_access *a)
{
    uint64_t              signature = folder_signature(a->folder);
    struct guard_keyring *ring = NULL;
    struct net_identity  *identity;
    mcp_error             error = { 0 };
    int                   rc;

    if (signature == a->seen)
        return false;
    rc = load(a, &ring, &identity, &error);
    a->seen = signature;

    pthread_mutex_lock(&a->lock);
    if (rc == MCP_OK) {
        struct guard_keyring *old_ring = a->ring;
        struct net_identity  *old_identity = a->identity;

        a->ring = ring;
        a->identity = identity;
        a->problem[0] = '\0';
        ring = old_ring;
        identity = old_identity;
    } else {
        snprintf(a->problem, sizeof(a->problem), "changed keys are not in use: %.200s", error.text);
    }
    pthread_mutex_unlock(&a->lock);

    if (rc < 0)
        base_log(BASE_LOG_WARN, "keys in %s: %s; those from before stay in use", a->folder,
                 error.text);
    else
        base_log(BASE_LOG_INFO, "keys in %s: loaded again", a->folder);
    net_identity_unref(identity);
    guard_keyring_unref(ring);
    atomic_fetch_add(&a->version, 1);
    return true;
}

/* ---- what others ask ---------------------------------------------------------------- */

uint32_t worker_access_version(const struct worker_access *a)
{
    return atomic_load(&a->version);
}

bool worker_access_problem(struct worker_access *a, char text[WORKER_PROBLEM_BYTES])
{
    pthread_mutex_lock(&a->lock);
    memcpy(text, a->problem, WORKER_PROBLEM_BYTES);
    pthread_mutex_unlock(&a->lock);
    return text[0] != '\0';
}

struct net_identity *worker_access_identity(struct worker_access *a)
{
    struct net_identity *identity;

    pthread_mutex_lock(&a->lock);
    identity = net_identity_ref(a->identity);
    pthread_mutex_unlock(&a->lock);
    return identity;
}

const char *worker_access_name(const struct worker_access *a)
{
    return a->name;
}

static struct guard_keyring *ring_of(struct worker_access *a)
{
    struct guard_keyring *ring;

    pthread_mutex_lock(&a->lock);
    ring = guard_keyring_ref(a->ring);
    pthread_mutex_unlock(&a->lock);
    return ring;
}

/* ---- grants ------------------------------------------------------------------------- */

static int refuse(struct wire_status *status, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct wire_status *status, int code, const char *format, ...)
{
    char      text[MCP_ERROR_TEXT_BYTES];
    mcp_error error = { 0 };
    va_list   args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    base_fail(&error, MCP_EDENIED, "%s", text); /* names in certificates are cleaned by it */
    *status = wire_status_of(MCP_EDENIED, &error);
    status->code = code;
    return MCP_EDENIED;
}

static int check_peer(const struct guard_keyring *ring, const struct net_peer *peer,
                      struct wire_status *status)
{
    if (guard_keyring_cert_revoked(ring, peer->serial, peer->serial_bytes))
        return refuse(status, WIRE_UNAUTHENTICATED, "the certificate of %s was revoked",
                      peer->name);
    return MCP_OK;
}

int worker_access_peer(struct worker_access *a, const struct net_peer *peer,
                       struct wire_status *status)
{
    struct guard_keyring *ring = ring_of(a);
    int                   rc = check_peer(ring, peer, status);

    guard_keyring_unref(ring);
    return rc;
}

static int check_role(const struct net_peer *peer, struct wire_status *status)
{
    if (strcmp(peer->role, "client") != 0 && strcmp(peer->role, "admin") != 0)
        return refuse(status, WIRE_PERMISSION_DENIED,
                      "the certificate of %s is for the role '%s'; Execute takes client or admin",
                      peer->name, peer->role);
    return MCP_OK;
}

/* What a certificate alone is good for: everything but a class that takes from others. */
static int grant_certificate(const struct worker_access *a, const struct net_peer *peer,
                             struct guard_grant *grant, struct wire_status *status)
{
    if (a->require_token)
        return refuse(status, WIRE_UNAUTHENTICATED,
                      "this worker demands a token (--require-token): send authorization: Bearer");
    *grant = (struct guard_grant){ .scopes = GUARD_INFER | GUARD_GENERATE | GUARD_STATE,
                                   .any_model = true,
                                   .priority = GUARD_NORMAL };
    snprintf(grant->subject, sizeof(grant->subject), "%s", peer->name);
    return MCP_OK;
}

static int grant_token(const struct worker_access *a, const struct guard_keyring *ring,
                       const struct net_peer *peer, const char *authorization,
                       struct guard_grant *grant, struct wire_status *status)
{
    static const char scheme[] = "Bearer ";
    const char       *token = authorization + sizeof(scheme) - 1;
    mcp_error         error = { 0 };

    /* RFC 7235: the scheme's case does not matter. */
    if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
        return refuse(status, WIRE_UNAUTHENTICATED, "authorization must be: Bearer TOKEN");
    if (guard_token_verify(ring, token, strlen(token), peer->cert_sha256, a->name,
                           (int64_t)time(NULL), grant, &error) < 0)
        return refuse(status, WIRE_UNAUTHENTICATED, "%s", error.text);
    return MCP_OK;
}

int worker_access_grant(struct worker_access *a, const struct net_peer *peer,
                        const char *authorization, struct guard_grant *grant,
                        struct wire_status *status)
{
    struct guard_keyring *ring = ring_of(a);
    int                   rc = check_peer(ring, peer, status);

    if (rc == MCP_OK)
        rc = check_role(peer, status);
    if (rc == MCP_OK)
        rc = authorization != NULL ? grant_token(a, ring, peer, authorization, grant, status)
                                   : grant_certificate(a, peer, grant, status);
    guard_keyring_unref(ring);
    return rc;
}
