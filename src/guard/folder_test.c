/* guard/folder_test.c - files that only their owner touches, and folders made whole or not.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/folder.h"

#include "guard/made_test.h"
#include "guard/stage.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static struct guard_folder opened(const char *path)
{
    struct guard_folder folder;
    mcp_error           err;

    unit_ok(guard_folder_open(&folder, path, &err), &err);
    return folder;
}

static const char *new_folder(const char *name)
{
    const char *path = made_fresh(name);

    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

/* Writing more than so many bytes fails, as on a full disk. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* ---- folders and files -------------------------------------------------------------- */

/* Goal:   a folder is opened only when nobody else can enter it.
 * Method: each bit for group and others; a file, nothing, and a link to a good folder. */
static void a_folder_that_others_can_enter_is_refused(void **state)
{
    const char         *path = new_folder("f");
    struct guard_folder folder;
    mcp_error           err;

    (void)state;
    for (mode_t bit = 1; bit <= 040; bit <<= 1) {
        assert_int_equal(chmod(path, 0700 | bit), 0);
        unit_refused(guard_folder_open(&folder, path, &err), MCP_EIO, &err, "chmod 700");
        assert_int_equal(folder.fd, -1);
    }
    assert_int_equal(chmod(path, 0700), 0);
    guard_folder_close(&(struct guard_folder)GUARD_FOLDER_CLOSED);
    folder = opened(path);
    guard_folder_close(&folder);

    assert_int_equal(symlink(path, made_fresh("link")), 0);
    folder = opened(made_path("link"));
    guard_folder_close(&folder);
    unit_refused(guard_folder_open(&folder, made_path("none"), &err), MCP_ENOTFOUND, &err,
                 "mcp keys init");
    made_file(path, "file", 0600, "");
    unit_refused(guard_folder_open(&folder, made_in(path, "file"), &err), MCP_EIO, &err,
                 "Not a directory");
}

/* Goal:   a secret that others can read is refused, and a public file that others can change.
 * Method: each bit for group and others, for both kinds. */
static void a_file_that_others_can_touch_is_refused(void **state)
{
    struct guard_folder folder = opened(new_folder("f"));
    struct guard_bytes  bytes;
    mcp_error           err;

    (void)state;
    for (mode_t bit = 1; bit <= 040; bit <<= 1) {
        made_file(folder.path, "x", 0600 | bit, "text");
        unit_refused(guard_folder_read(&folder, "x", GUARD_SECRET, 100, &bytes, &err), MCP_EIO,
                     &err, "chmod 600");
        assert_null(bytes.data);
        if ((bit & 022) != 0)
            unit_refused(guard_folder_read(&folder, "x", GUARD_PUBLIC, 100, &bytes, &err), MCP_EIO,
                         &err, "chmod 644");
        else
            unit_ok(guard_folder_read(&folder, "x", GUARD_PUBLIC, 100, &bytes, &err), &err);
        guard_bytes_fini(&bytes);
    }
    guard_folder_close(&folder);
}

/* Goal:   what is no regular file in the folder is refused at once, and so is a large one.
 * Method: a link, also to a good file; a pipe nobody writes to; a folder; sizes at the limit. */
static void what_is_no_small_regular_file_is_refused(void **state)
{
    struct guard_folder folder = opened(new_folder("f"));
    struct guard_bytes  bytes;
    mcp_error           err;

    (void)state;
    made_file(folder.path, "good", 0600, "0123456789");
    assert_int_equal(symlink("good", made_in(folder.path, "link")), 0);
    assert_int_equal(mkfifo(made_in(folder.path, "pipe"), 0600), 0);
    assert_int_equal(mkdir(made_in(folder.path, "dir"), 0700), 0);
    unit_refused(guard_folder_read(&folder, "link", GUARD_SECRET, 100, &bytes, &err), MCP_EIO, &err,
                 "symbolic link");
    unit_refused(guard_folder_read(&folder, "pipe", GUARD_SECRET, 100, &bytes, &err), MCP_EIO, &err,
                 "no regular file");
    unit_refused(guard_folder_read(&folder, "dir", GUARD_SECRET, 100, &bytes, &err), MCP_EIO, &err,
                 "dir");
    unit_refused(guard_folder_read(&folder, "none", GUARD_SECRET, 100, &bytes, &err), MCP_ENOTFOUND,
                 &err, "there is no");
    unit_refused(guard_folder_read(&folder, "good", GUARD_SECRET, 9, &bytes, &err), MCP_EFORMAT,
                 &err, "has 10 bytes, at most 9");
    unit_ok(guard_folder_read(&folder, "good", GUARD_SECRET, 10, &bytes, &err), &err);
    assert_int_equal(bytes.count, 10);
    assert_string_equal(bytes.data, "0123456789");
    guard_bytes_fini(&bytes);
    unit_refused(guard_file_read(made_in(folder.path, "pipe"), 100, &bytes, &err), MCP_EIO, &err,
                 "no regular file");
    unit_ok(guard_file_read(made_in(folder.path, "link"), 100, &bytes, &err), &err);
    guard_bytes_fini(&bytes);
    guard_folder_close(&folder);
}

/* Goal:   a file has its mode whatever the umask, and is replaced whole or not at all.
 * Method: umask 0 and 0777; then a write that fails half-way as on a full disk. */
static void a_file_is_replaced_whole_or_not_at_all(void **state)
{
    struct guard_folder folder = opened(new_folder("f"));
    static char         large[5000];
    struct guard_bytes  bytes;
    mcp_error           err;
    mode_t              umask_was = umask(0);

    (void)state;
    unit_ok(guard_folder_write(&folder, "s", GUARD_SECRET, "one", 3, &err), &err);
    umask(0777);
    unit_ok(guard_folder_write(&folder, "p", GUARD_PUBLIC, "one", 3, &err), &err);
    umask(umask_was);
    assert_int_equal(mode_of(made_in(folder.path, "s")), 0600);
    assert_int_equal(mode_of(made_in(folder.path, "p")), 0644);

    unit_ok(guard_folder_write(&folder, "s", GUARD_SECRET, "second", 6, &err), &err);
    limit_files(4096);
    unit_refused(guard_folder_write(&folder, "s", GUARD_SECRET, large, sizeof(large), &err),
                 MCP_EIO, &err, "File too large");
    limit_files(RLIM_INFINITY);
    assert_int_equal(made_entries(folder.path), 2); /* no half of a file is left */
    unit_ok(guard_folder_read(&folder, "s", GUARD_SECRET, 100, &bytes, &err), &err);
    assert_string_equal(bytes.data, "second");
    guard_bytes_fini(&bytes);

    unit_refused(guard_folder_add(&folder, "s", GUARD_SECRET, "x", 1, &err), MCP_EIO, &err,
                 "File exists");
    unit_ok(guard_folder_remove(&folder, "s", &err), &err);
    unit_ok(guard_folder_remove(&folder, "s", &err), &err);
    assert_int_equal(made_entries(folder.path), 1);
    guard_folder_close(&folder);
}

static void *count_locked(void *arg)
{
    struct guard_folder folder = opened(arg);
    static int          inside; /* guarded by nothing but the lock that is tested */

    for (int i = 0; i < 50; i++) {
        mcp_error err;
        int       lock;

        unit_ok(guard_folder_lock(&folder, &lock, &err), &err);
        __atomic_add_fetch(&inside, 1, __ATOMIC_RELAXED);
        if (__atomic_load_n(&inside, __ATOMIC_RELAXED) != 1)
            abort();
        sched_yield();
        __atomic_sub_fetch(&inside, 1, __ATOMIC_RELAXED);
        close(lock);
    }
    guard_folder_close(&folder);
    return NULL;
}

/* Goal:   one at a time changes a folder. */
static void the_lock_lets_one_in(void **state)
{
    const char *path = new_folder("f");
    pthread_t   threads[3];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_locked, (void *)(uintptr_t)path),
                         0);
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(mode_of(made_in(path, "lock")), 0600);
}

/* ---- stages ------------------------------------------------------------------------- */

/* Goal:   a folder appears with all its files or not at all.
 * Method: commit; fini without commit; a write that fails; each time the parent is counted. */
static void a_stage_leaves_all_or_nothing(void **state)
{
    const char        *parent = new_folder("p"), *target = made_in(parent, "deep/er/keys/");
    static char        large[5000];
    struct guard_stage stage = GUARD_STAGE_NONE;
    mcp_error          err;

    (void)state;
    guard_stage_fini(&stage);
    unit_ok(guard_stage_begin(&stage, target, &err), &err);
    unit_ok(guard_stage_add(&stage, "a", GUARD_SECRET, "1", 1, &err), &err);
    assert_int_equal(access(target, F_OK), -1);
    unit_ok(guard_stage_commit(&stage, &err), &err);
    guard_stage_fini(&stage);
    assert_int_equal(mode_of(made_in(parent, "deep")), 0700);
    assert_int_equal(mode_of(made_in(parent, "deep/er/keys")), 0700);
    assert_int_equal(mode_of(made_in(parent, "deep/er/keys/a")), 0600);
    assert_int_equal(made_entries(made_in(parent, "deep/er")), 1);

    target = made_in(parent, "other");
    unit_ok(guard_stage_begin(&stage, target, &err), &err);
    unit_ok(guard_stage_add(&stage, "a", GUARD_SECRET, "1", 1, &err), &err);
    limit_files(4096);
    unit_refused(guard_stage_add(&stage, "b", GUARD_SECRET, large, sizeof(large), &err), MCP_EIO,
                 &err, "File too large");
    limit_files(RLIM_INFINITY);
    guard_stage_fini(&stage);
    assert_int_equal(made_entries(parent), 1);
}

/* Goal:   an empty safe folder may be taken, anything else at the target is left as it is.
 * Method: each kind of thing at the target, and its content afterwards. */
static void a_target_that_is_taken_is_left_alone(void **state)
{
    const char        *parent = new_folder("p");
    struct guard_stage stage = GUARD_STAGE_NONE;
    mcp_error          err;

    (void)state;
    assert_int_equal(mkdir(made_in(parent, "empty"), 0700), 0);
    unit_ok(guard_stage_begin(&stage, made_in(parent, "empty"), &err), &err);
    unit_ok(guard_stage_commit(&stage, &err), &err);
    guard_stage_fini(&stage);

    assert_int_equal(mkdir(made_in(parent, "open"), 0755), 0);
    assert_int_equal(chmod(made_in(parent, "open"), 0755), 0);
    unit_refused(guard_stage_begin(&stage, made_in(parent, "open"), &err), MCP_EIO, &err,
                 "has mode 0755");
    made_file(parent, "file", 0600, "");
    unit_refused(guard_stage_begin(&stage, made_in(parent, "file"), &err), MCP_EINVAL, &err,
                 "no folder");
    assert_int_equal(symlink("empty", made_in(parent, "link")), 0);
    unit_refused(guard_stage_begin(&stage, made_in(parent, "link"), &err), MCP_EINVAL, &err,
                 "symbolic link");
    assert_int_equal(mkdir(made_in(parent, "full"), 0700), 0);
    made_file(made_in(parent, "full"), "notes.txt", 0600, "");
    unit_refused(guard_stage_begin(&stage, made_in(parent, "full"), &err), MCP_EINVAL, &err,
                 "is not empty (notes.txt)");
    made_file(made_in(parent, "full"), "client.key", 0600, "");
    unit_refused(guard_stage_begin(&stage, made_in(parent, "full"), &err), MCP_EINVAL, &err,
                 "holds keys already (client.key)");
    unit_refused(guard_stage_begin(&stage, "", &err), MCP_EINVAL, &err, "is empty");
    unit_refused(guard_stage_begin(&stage, "/proc/none/keys", &err), MCP_EIO, &err, "/proc/none");
    guard_stage_fini(&stage);
    assert_int_equal(made_entries(parent), 5);
    assert_int_equal(made_entries(made_in(parent, "full")), 2);
}

/* Goal:   of two that make the same folder at once one wins whole, the other is told.
 * Method: both have everything ready before either commits. */
static void of_two_stages_one_wins(void **state)
{
    const char        *parent = new_folder("p"), *target = made_in(parent, "keys");
    struct guard_stage one = GUARD_STAGE_NONE, two = GUARD_STAGE_NONE;
    mcp_error          err;

    (void)state;
    unit_ok(guard_stage_begin(&one, target, &err), &err);
    unit_ok(guard_stage_begin(&two, target, &err), &err);
    unit_ok(guard_stage_add(&one, "ca.pem", GUARD_PUBLIC, "1", 1, &err), &err);
    unit_ok(guard_stage_add(&two, "ca.pem", GUARD_PUBLIC, "2", 1, &err), &err);
    unit_ok(guard_stage_commit(&two, &err), &err);
    unit_refused(guard_stage_commit(&one, &err), MCP_EINVAL, &err, "holds keys already (ca.pem)");
    guard_stage_fini(&one);
    guard_stage_fini(&two);
    assert_int_equal(made_entries(parent), 1);
    assert_int_equal(made_entries(target), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_that_others_can_enter_is_refused),
        cmocka_unit_test(a_file_that_others_can_touch_is_refused),
        cmocka_unit_test(what_is_no_small_regular_file_is_refused),
        cmocka_unit_test(a_file_is_replaced_whole_or_not_at_all),
        cmocka_unit_test(the_lock_lets_one_in),
        cmocka_unit_test(a_stage_leaves_all_or_nothing),
        cmocka_unit_test(a_target_that_is_taken_is_left_alone),
        cmocka_unit_test(of_two_stages_one_wins),
    };

    return cmocka_run_group_tests_name("guard/folder", tests, NULL, NULL);
}
