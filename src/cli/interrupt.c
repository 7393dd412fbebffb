/* cli/interrupt.c - see interrupt.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/interrupt.h"

#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static _Atomic(mcp_session *) target;
static atomic_int             came;
static int                    wake[2] = { -1, -1 };

static void on_sigint(int signal_number)
{
    int          saved = errno;
    mcp_session *session = atomic_load(&target);

    (void)signal_number;
    atomic_store(&came, 1);
    if (session != NULL)
        mcp_session_cancel(session);
    (void)!write(wake[1], "", 1); /* a full pipe is as readable as one with a byte */
    errno = saved;
}

int cli_interrupt_init(void)
{
    /* SA_RESTART: files being read and text being written do not fail for it; whoever
     * waits for input uses poll, which returns anyway. */
    struct sigaction action = { .sa_handler = on_sigint, .sa_flags = SA_RESTART };

    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0 || sigaction(SIGINT, &action, NULL) < 0) {
        cli_fail("cannot take over Ctrl-C: %s", strerror(errno));
        return -1;
    }
    return 0;
}

void cli_interrupt_target(mcp_session *session)
{
    atomic_store(&target, session);
}

bool cli_interrupt_came(void)
{
    return atomic_load(&came) != 0;
}

void cli_interrupt_reset(void)
{
    char bytes[64];

    while (read(wake[0], bytes, sizeof(bytes)) > 0)
        ;
    atomic_store(&came, 0);
}

int cli_interrupt_fd(void)
{
    return wake[0];
}
