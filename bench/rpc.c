/* bench/rpc.c - our gRPC by itself: round trips, and how many small messages a core carries.
 *
 *     rpc --keys DIR                       server and client in one process
 *     rpc --keys DIR --role server         prints {"listening": "127.0.0.1:PORT"}, serves until
 *                                          its standard input ends, then prints its own costs
 *     rpc --keys DIR --role client --connect HOST:PORT
 *
 * DIR is made (mcp_keys_init) when it does not exist; a Python peer can use the same files.  The
 * method /bench.Rpc/Echo is bidirectional and returns every message as it is; messages are
 * plain bytes, so that what is measured is the transport.
 *
 * Rows, one JSON object a line:
 *     round_trip   one call, one message at a time: microseconds from send to receipt
 *     pipelined    --streams calls a connection, --depth messages in flight on each
 * CPU time is that of the loops' threads alone, wire bytes are TLS records both ways. */
/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include "base/clock.h"
#include "net/net.h"

#include <mcp/keys.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SIZES_MAX = 16,
    BYTES_MAX = NET_MESSAGE_BYTES,
    CONNS_MAX = 256,
    STREAMS_MAX = 256,
    LOOPS_MAX = 64,
    WARM_UP = 200, /* round trips */
};

static const char METHOD[] = "/bench.Rpc/Echo";

struct opts {
    const char *keys, *role, *listen, *connect;
    uint32_t    sizes[SIZES_MAX], size_count;
    uint32_t    threads, conns, client_threads, streams, depth, rounds;
    double      seconds;
};

/* ---- server ------------------------------------------------------------------------- */

/* Threads that have served a call, and what they have used until the row began. */
static struct {
    pthread_mutex_t lock;
    pthread_t       threads[LOOPS_MAX];
    clockid_t       clocks[LOOPS_MAX];
    uint32_t        count;
    atomic_ullong   messages;
} served = { .lock = PTHREAD_MUTEX_INITIALIZER };

static double clock_us(clockid_t clock)
{
    struct timespec used;

    if (clock_gettime(clock, &used) != 0)
        bench_die("a thread's CPU time cannot be read");
    return (double)used.tv_sec * 1e6 + (double)used.tv_nsec * 1e-3;
}

static void remember_thread(void)
{
    static _Thread_local bool known;

    if (known)
        return;
    known = true;
    pthread_mutex_lock(&served.lock);
    if (served.count < LOOPS_MAX) {
        served.threads[served.count] = pthread_self();
        pthread_getcpuclockid(pthread_self(), &served.clocks[served.count++]);
    }
    pthread_mutex_unlock(&served.lock);
}

static double served_us(void)
{
    double sum = 0;

    pthread_mutex_lock(&served.lock);
    for (uint32_t i = 0; i < served.count; i++)
        sum += clock_us(served.clocks[i]);
    pthread_mutex_unlock(&served.lock);
    return sum;
}

static void echo_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    mcp_error err;

    (void)ctx;
    if (net_stream_send(stream, bytes, count, NET_URGENT, &err) < 0)
        bench_die("server: %s", err.text);
    atomic_fetch_add_explicit(&served.messages, 1, memory_order_relaxed);
}

static void echo_half_closed(struct net_stream *stream, void *ctx)
{
    struct wire_status ok = { 0 };

    (void)ctx;
    net_stream_finish(stream, &ok);
}

static void echo_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    (void)stream;
    (void)ctx;
    (void)status;
}

static const struct net_stream_ops *echo_open(struct net_stream *stream, const char *path,
                                              void *ctx, void **stream_ctx,
                                              struct wire_status *status)
{
    static const struct net_stream_ops ops = { echo_message, echo_half_closed, NULL, echo_closed };

    (void)stream;
    (void)ctx;
    (void)stream_ctx;
    (void)status;
    remember_thread();
    return strcmp(path, METHOD) == 0 ? &ops : NULL;
}

static struct net_identity *server_identity(void *ctx)
{
    return net_identity_ref(ctx);
}

static struct net_identity *identity_of(const struct opts *o, const char *role)
{
    struct net_identity *identity;
    struct stat          st;
    mcp_error            err;

    if (stat(o->keys, &st) != 0 && mcp_keys_init(o->keys, NULL, &err) < 0)
        bench_die("%s", err.text);
    if (net_identity_load(&identity, o->keys, role, NULL, &err) < 0)
        bench_die("%s", err.text);
    return identity;
}

static struct net_server *serve(const struct opts *o, struct net_identity *identity)
{
    static const struct net_server_ops ops = { echo_open, server_identity };
    struct net_server_opts             opts = { .listen = o->listen, .threads = o->threads };
    struct net_server                 *server;
    mcp_error                          err;

    if (net_server_open(&server, &opts, &ops, identity, &err) < 0)
        bench_die("%s", err.text);
    return server;
}

/* ---- client ------------------------------------------------------------------------- */

struct link {
    struct net_conn_ops ops;
    struct load        *load;
    struct net_loop    *loop;
    struct net_conn    *conn;
    struct net_work     dial, hang_up;
    struct call {
        struct link       *link;
        struct net_stream *stream;
        double             sent_ms;
    } calls[STREAMS_MAX];
    uint64_t messages; /* of the row, by its loop's thread */
    uint64_t all;      /* since it was opened */
    uint32_t open;
};

/* One row being measured. */
struct load {
    const struct opts   *opts;
    struct net_identity *identity;
    const char          *endpoint;
    uint32_t             bytes, streams, depth, links;
    uint64_t             rounds; /* round_trip: stop after so many; 0 = until told */
    double              *us;     /* (rounds) */
    uint8_t             *payload;
    atomic_bool          counting, stop;
    atomic_uint          running;
    struct net_loop     *loops[LOOPS_MAX];
    struct link         *link; /* (links) */

    atomic_ullong wire_bytes, all; /* of links that have ended */
};

static void send_one(struct call *call)
{
    struct load *load = call->link->load;
    mcp_error    err;

    call->sent_ms = base_clock_ms();
    if (net_stream_send(call->stream, load->payload, load->bytes, NET_URGENT, &err) < 0)
        bench_die("client: %s", err.text);
}

static void got_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct call *call = ctx;
    struct link *link = call->link;
    struct load *load = link->load;

    (void)bytes;
    if (count != load->bytes)
        bench_die("%zu bytes came back of %u", count, load->bytes);
    link->all++;
    if (load->us != NULL) {
        if (link->messages >= WARM_UP)
            load->us[link->messages - WARM_UP] = (base_clock_ms() - call->sent_ms) * 1e3;
        link->messages++;
        if (link->messages == load->rounds + WARM_UP) {
            net_stream_end(stream);
            return;
        }
    } else if (atomic_load_explicit(&load->stop, memory_order_relaxed)) {
        net_stream_end(stream);
        return;
    } else if (atomic_load_explicit(&load->counting, memory_order_relaxed)) {
        link->messages++;
    }
    send_one(call);
}

static void call_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct call *call = ctx;

    (void)stream;
    if (status->code != WIRE_OK)
        bench_die("a call ended: %s: %s", wire_status_name(status->code), status->text);
    call->stream = NULL;
    if (--call->link->open == 0)
        net_conn_close(call->link->conn);
}

static void link_up(struct net_conn *conn, void *ctx, const struct net_peer *peer)
{
    static const struct net_stream_ops ops = { got_message, NULL, NULL, call_closed };
    struct link                       *link = ctx;
    struct load                       *load = link->load;
    mcp_error                          err;

    (void)peer;
    for (uint32_t i = 0; i < load->streams; i++) {
        struct call *call = &link->calls[i];

        call->link = link;
        if (net_call_open(&call->stream, conn, METHOD, 0, NULL, &ops, call, &err) < 0)
            bench_die("%s", err.text);
        for (uint32_t k = 0; k < load->depth; k++)
            send_one(call);
    }
    link->open = load->streams;
}

static void link_down(struct net_conn *conn, void *ctx, const struct wire_status *why,
                      bool identity)
{
    struct link *link = ctx;
    uint64_t     out, in;

    (void)identity;
    if (why->code != WIRE_CANCELLED)
        bench_die("%s", why->text);
    net_conn_bytes(conn, &out, &in);
    atomic_fetch_add(&link->load->wire_bytes, out + in);
    atomic_fetch_add(&link->load->all, link->all);
    atomic_fetch_sub(&link->load->running, 1);
}

static void link_dial(struct net_work *work)
{
    struct link *link = (struct link *)(void *)((char *)work - offsetof(struct link, dial));
    mcp_error    err;

    if (net_conn_dial(&link->conn, link->loop, link->load->endpoint, link->load->identity, 5000,
                      &link->ops, link, &err) < 0)
        bench_die("%s", err.text);
}

static uint32_t client_loops(const struct opts *o)
{
    return o->client_threads > 0 ? o->client_threads : 1;
}

static void load_begin(struct load *load)
{
    mcp_error err;

    load->payload = bench_alloc(load->bytes, 1);
    load->link = bench_alloc(load->links, sizeof(*load->link));
    atomic_store(&load->running, load->links);
    for (uint32_t i = 0; i < client_loops(load->opts); i++)
        if (net_loop_open(&load->loops[i], &err) < 0)
            bench_die("%s", err.text);
    for (uint32_t i = 0; i < load->links; i++) {
        struct link *link = &load->link[i];

        link->ops = (struct net_conn_ops){ link_up, link_down };
        link->load = load;
        link->loop = load->loops[i % client_loops(load->opts)];
        link->dial.run = link_dial;
        net_loop_post(link->loop, &link->dial);
    }
}

static void load_end(struct load *load)
{
    atomic_store(&load->stop, true);
    while (atomic_load(&load->running) > 0)
        bench_sleep(0.001);
    for (uint32_t i = 0; i < client_loops(load->opts); i++)
        net_loop_close(load->loops[i]);
    free(load->link);
    free(load->payload);
}

/* ---- rows --------------------------------------------------------------------------- */

static double percentile(const double *sorted, uint32_t count, double part)
{
    return sorted[(uint32_t)((count - 1) * part)];
}

static void row_round_trip(const struct opts *o, struct net_identity *identity,
                           const char *endpoint, uint32_t bytes)
{
    struct load load = { .opts = o,
                         .identity = identity,
                         .endpoint = endpoint,
                         .bytes = bytes,
                         .streams = 1,
                         .depth = 1,
                         .links = 1,
                         .rounds = o->rounds };

    load.us = bench_alloc(o->rounds, sizeof(double));
    load_begin(&load);
    load_end(&load);
    qsort(load.us, o->rounds, sizeof(double), bench_compare_doubles);
    printf("{\"row\": \"round_trip\", \"bytes\": %u, \"rounds\": %u, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"wire_bytes\": %.1f}\n",
           bytes, o->rounds, percentile(load.us, o->rounds, 0.5),
           percentile(load.us, o->rounds, 0.99),
           (double)atomic_load(&load.wire_bytes) / (double)atomic_load(&load.all));
    fflush(stdout);
    free(load.us);
}

static uint64_t load_messages(const struct load *load)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < load->links; i++)
        sum += load->link[i].messages;
    return sum;
}

static void row_pipelined(const struct opts *o, struct net_identity *identity, const char *endpoint,
                          uint32_t bytes, bool server_here)
{
    struct load load = { .opts = o,
                         .identity = identity,
                         .endpoint = endpoint,
                         .bytes = bytes,
                         .streams = o->streams,
                         .depth = o->depth,
                         .links = o->conns };
    double      began, seconds, us = 0, all_us;
    uint64_t    messages;

    load_begin(&load);
    bench_sleep(0.3); /* connected and warm */
    if (server_here)
        us = served_us();
    all_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    began = bench_seconds();
    atomic_store(&load.counting, true);
    bench_sleep(o->seconds);
    atomic_store(&load.counting, false);
    seconds = bench_seconds() - began;
    all_us = clock_us(CLOCK_PROCESS_CPUTIME_ID) - all_us;
    if (server_here)
        us = served_us() - us;
    bench_sleep(0.05); /* the counts are the loops' own */
    messages = load_messages(&load);
    load_end(&load);
    printf("{\"row\": \"pipelined\", \"bytes\": %u, \"connections\": %u, \"streams\": %u, "
           "\"depth\": %u, \"server_threads\": %u, \"client_threads\": %u, "
           "\"messages_per_s\": %.0f",
           bytes, o->conns, o->streams, o->depth, o->threads, client_loops(o),
           (double)messages / seconds);
    if (server_here)
        printf(", \"server_cpu_us\": %.3f, \"messages_per_server_core_s\": %.0f",
               us / (double)messages, (double)messages / us * 1e6);
    printf(", \"client_cpu_us\": %.3f, \"wire_bytes\": %.1f}\n", (all_us - us) / (double)messages,
           (double)atomic_load(&load.wire_bytes) / (double)atomic_load(&load.all));
    fflush(stdout);
}

static void run_rows(const struct opts *o, struct net_identity *identity, const char *endpoint,
                     bool server_here)
{
    for (uint32_t i = 0; i < o->size_count; i++)
        row_round_trip(o, identity, endpoint, o->sizes[i]);
    for (uint32_t i = 0; i < o->size_count; i++)
        row_pipelined(o, identity, endpoint, o->sizes[i], server_here);
}

/* ---- the program -------------------------------------------------------------------- */

static void parse_sizes(struct opts *o, const char *text)
{
    char *copy = strdup(text), *rest = NULL;

    o->size_count = 0;
    for (char *t = strtok_r(copy, ",", &rest); t != NULL; t = strtok_r(NULL, ",", &rest)) {
        if (o->size_count == SIZES_MAX)
            bench_die("--bytes: more than %d sizes", SIZES_MAX);
        o->sizes[o->size_count++] = bench_number("--bytes", t, 0, BYTES_MAX);
    }
    free(copy);
    if (o->size_count == 0)
        bench_die("--bytes: the list is empty");
}

static void parse(struct opts *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[++i] : NULL;

        if (value == NULL)
            bench_die("%s needs a value; the head of bench/rpc.c lists the options", name);
        if (strcmp(name, "--keys") == 0)
            o->keys = value;
        else if (strcmp(name, "--role") == 0)
            o->role = value;
        else if (strcmp(name, "--listen") == 0)
            o->listen = value;
        else if (strcmp(name, "--connect") == 0)
            o->connect = value;
        else if (strcmp(name, "--bytes") == 0)
            parse_sizes(o, value);
        else if (strcmp(name, "--threads") == 0)
            o->threads = bench_number(name, value, 1, LOOPS_MAX);
        else if (strcmp(name, "--client-threads") == 0)
            o->client_threads = bench_number(name, value, 1, LOOPS_MAX);
        else if (strcmp(name, "--connections") == 0)
            o->conns = bench_number(name, value, 1, CONNS_MAX);
        else if (strcmp(name, "--streams") == 0)
            o->streams = bench_number(name, value, 1, STREAMS_MAX);
        else if (strcmp(name, "--depth") == 0)
            o->depth = bench_number(name, value, 1, 1024);
        else if (strcmp(name, "--rounds") == 0)
            o->rounds = bench_number(name, value, 10, 1000000);
        else if (strcmp(name, "--seconds") == 0)
            o->seconds = bench_number(name, value, 1, 600);
        else
            bench_die("unknown option %s; the head of bench/rpc.c lists them", name);
    }
    if (o->keys == NULL)
        bench_die("--keys DIR is missing: a keys folder, or where to make one");
}

static void serve_until_told(const struct opts *o)
{
    struct net_identity *identity = identity_of(o, "worker");
    struct net_server   *server = serve(o, identity);
    char                 byte;
    uint64_t             messages;
    double               us;

    printf("{\"listening\": \"%s\"}\n", net_server_address(server));
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    us = served_us();
    messages = atomic_load(&served.messages);
    printf("{\"row\": \"server\", \"messages\": %llu, \"server_cpu_us\": %.3f}\n",
           (unsigned long long)messages, messages > 0 ? us / (double)messages : 0.0);
    net_server_close(server);
    net_identity_unref(identity);
}

int main(int argc, char **argv)
{
    struct opts          o = { .role = "both",
                               .listen = "127.0.0.1:0",
                               .sizes = { 64, 4096, 8192 },
                               .size_count = 3,
                               .threads = 1,
                               .conns = 1,
                               .streams = 16,
                               .depth = 8,
                               .rounds = 5000,
                               .seconds = 3 };
    struct net_identity *worker, *client;
    struct net_server   *server;

    parse(&o, argc, argv);
    if (strcmp(o.role, "server") == 0) {
        serve_until_told(&o);
        return 0;
    }
    client = identity_of(&o, "client");
    if (strcmp(o.role, "client") == 0) {
        if (o.connect == NULL)
            bench_die("--role client needs --connect HOST:PORT");
        run_rows(&o, client, o.connect, false);
    } else if (strcmp(o.role, "both") == 0) {
        worker = identity_of(&o, "worker");
        server = serve(&o, worker);
        run_rows(&o, client, net_server_address(server), true);
        net_server_close(server);
        net_identity_unref(worker);
    } else {
        bench_die("--role %s: it is server, client or both", o.role);
    }
    net_identity_unref(client);
    return 0;
}
