/* base/starve_test.h - make the Nth allocation of our own code fail.
 *
 * The program that includes this replaces malloc, calloc, realloc and free.  While armed,
 * calls are counted whose caller is this program (our archives are linked into it) or libc
 * (strdup, asprintf, open_memstream, fopen: on our behalf); ggml and libllama abort without
 * memory, so theirs are left alone.  The call with the chosen number fails, and with
 * `all_after` every later one too.  What was given out while armed is remembered until it is
 * freed: whatever is left after closing has leaked.
 *
 *     STARVE_EACH(n) {
 *         starve_arm(n, false);
 *         rc = open_something(...);
 *         close_something(...);
 *         starve_disarm(rc, &err);
 *     }
 *
 * glibc only.  SPDX-License-Identifier: MIT */
#ifndef BASE_STARVE_TEST_H
#define BASE_STARVE_TEST_H

#include "base/unit_test.h"

#include <link.h>
#include <pthread.h>
#include <stdatomic.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STARVE_REAL(name) __interceptor_##name
#else
#define STARVE_REAL(name) __libc_##name
#endif

extern void *STARVE_REAL(malloc)(size_t bytes);
extern void *STARVE_REAL(calloc)(size_t count, size_t bytes);
extern void *STARVE_REAL(realloc)(void *memory, size_t bytes);
extern void  STARVE_REAL(free)(void *memory);

/* An opening makes a few hundred allocations of its own; a power of two. */
enum { STARVE_LIVE_MAX = 1 << 14 };

static struct {
    struct {
        uintptr_t first, last;
    } code[8]; /* of this program and of libc */
    int        code_count;
    atomic_int armed;
    atomic_int calls;
    int        chosen; /* 0: none fails */
    bool       all_after;
    atomic_int failed;

    pthread_mutex_t lock;                  /* guards live */
    void           *live[STARVE_LIVE_MAX]; /* open addressing; 1 = was freed */
    atomic_int      live_count;
} starve = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int starve_note_object(struct dl_phdr_info *info, size_t bytes, void *ctx)
{
    bool ours = info->dlpi_name == NULL || info->dlpi_name[0] == '\0';

    (void)bytes;
    (void)ctx;
    if (!ours && strstr(info->dlpi_name, "/libc.so") == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && starve.code_count < 8; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type != PT_LOAD || (p->p_flags & PF_X) == 0)
            continue;
        starve.code[starve.code_count].first = info->dlpi_addr + p->p_vaddr;
        starve.code[starve.code_count++].last = info->dlpi_addr + p->p_vaddr + p->p_memsz;
    }
    return 0;
}

static bool starve_counts(const void *caller)
{
    if (!atomic_load(&starve.armed))
        return false;
    for (int i = 0; i < starve.code_count; i++)
        if ((uintptr_t)caller >= starve.code[i].first && (uintptr_t)caller < starve.code[i].last)
            return true;
    return false;
}

static bool starve_fails(void)
{
    int call = atomic_fetch_add(&starve.calls, 1) + 1;

    if (starve.chosen == 0 || call < starve.chosen || (call > starve.chosen && !starve.all_after))
        return false;
    atomic_fetch_add(&starve.failed, 1);
    errno = ENOMEM;
    return true;
}

static size_t starve_hash(const void *memory)
{
    return ((uintptr_t)memory >> 4) * 0x9e3779b97f4a7c15u >> 50;
}

static void *starve_keep(void *memory)
{
    size_t at = starve_hash(memory);

    if (memory == NULL)
        return NULL;
    pthread_mutex_lock(&starve.lock);
    for (size_t i = 0; i < STARVE_LIVE_MAX; i++, at = (at + 1) % STARVE_LIVE_MAX) {
        if ((uintptr_t)starve.live[at] > 1)
            continue;
        starve.live[at] = memory;
        starve.live_count++;
        break;
    }
    pthread_mutex_unlock(&starve.lock);
    return memory;
}

static void starve_forget(const void *memory)
{
    size_t at = starve_hash(memory);

    pthread_mutex_lock(&starve.lock);
    for (size_t i = 0; i < STARVE_LIVE_MAX && starve.live[at] != NULL;
         i++, at = (at + 1) % STARVE_LIVE_MAX) {
        if (starve.live[at] != memory)
            continue;
        starve.live[at] = (void *)1;
        starve.live_count--;
        break;
    }
    pthread_mutex_unlock(&starve.lock);
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): libc's are __reserved */
void *malloc(size_t bytes)
{
    if (!starve_counts(__builtin_return_address(0)))
        return STARVE_REAL(malloc)(bytes);
    return starve_fails() ? NULL : starve_keep(STARVE_REAL(malloc)(bytes));
}

void *calloc(size_t count, size_t bytes)
{
    if (!starve_counts(__builtin_return_address(0)))
        return STARVE_REAL(calloc)(count, bytes);
    return starve_fails() ? NULL : starve_keep(STARVE_REAL(calloc)(count, bytes));
}

void *realloc(void *memory, size_t bytes)
{
    void *moved;

    if (!starve_counts(__builtin_return_address(0)))
        return STARVE_REAL(realloc)(memory, bytes);
    if (starve_fails())
        return NULL;
    if (memory != NULL)
        starve_forget(memory);
    moved = STARVE_REAL(realloc)(memory, bytes);
    return starve_keep(moved);
}

void free(void *memory)
{
    if (memory != NULL && starve.live_count > 0)
        starve_forget(memory);
    STARVE_REAL(free)(memory);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

/* From now on the call number `chosen` fails (0: none), and all later ones if asked. */
static inline void starve_arm(int chosen, bool all_after)
{
    if (starve.code_count == 0)
        dl_iterate_phdr(starve_note_object, NULL);
    assert_true(starve.code_count >= 2);
    memset(starve.live, 0, sizeof(starve.live));
    starve.live_count = 0;
    starve.chosen = chosen;
    starve.all_after = all_after;
    atomic_store(&starve.calls, 0);
    atomic_store(&starve.failed, 0);
    atomic_store(&starve.armed, 1);
}

/* Everything is closed again: nothing may be left.  Returns how many calls failed. */
static inline int starve_disarm(void)
{
    atomic_store(&starve.armed, 0);
    if (starve.live_count != 0)
        fail_msg("with allocation %d%s failing, %d pieces of memory leak", starve.chosen,
                 starve.all_after ? " and all after it" : "", starve.live_count);
    return atomic_load(&starve.failed);
}

/* A failure for want of memory is MCP_ENOMEM with a sentence, nothing else. */
static inline void starve_check(int rc, const mcp_error *err)
{
    if (rc >= 0)
        return;
    if (rc != MCP_ENOMEM || err->code != rc || err->text[0] == '\0')
        fail_msg("with allocation %d%s failing: %s (%s), not MCP_ENOMEM", starve.chosen,
                 starve.all_after ? " and all after it" : "", mcp_code_name(rc), err->text);
}

#endif
