/* sim/world_common.h - agents, workers and what lies between them, in one process on one clock.
 *
 *     agent: script, pipeline, pulses, places, local engine     agent_common.c and others
 *       │ wire_channel
 *     connection: delay, rate, order; resets, holes, spikes     net_common.c
 *       │ wire_channel
 *     worker: session table, one forward at a time              worker_common.c
 *
 * The pipeline, pulse, places, channel, pace and table are the real ones.  What the agent's and the
 * worker's shells do around them is written here as simply as it can be: no threads, no HTTP/2,
 * no TLS.  world_common.c builds a world from a seed and disturbs it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_WORLD_COMMON_H
#define SIM_WORLD_COMMON_H

#include "pipe/places.h"
#include "pipe/pulse.h"
#include "sim/script_common.h"
#include "wire/channel.h"
#include "wire/codec.h"
#include "worker/table.h"

enum {
    SIM_AGENTS_MAX = 4,
    SIM_WORKERS_MAX = 5,
    SIM_STAGES_MAX = 4,
    SIM_STREAMS_MAX = 64,   /* of one connection; most are dead, and only a timer names them */
    SIM_LOCALS_MAX = 64,    /* endpoints that an agent ever opened in itself */
    SIM_DIAL_MS_MAX = 1000, /* a connection takes no longer, or is given up */
};

struct sim_world;

/* ---- between ---------------------------------------------------------------------------- */

enum sim_way { SIM_UP, SIM_DOWN };

enum sim_message {
    SIM_DATA, /* a message of the stream */
    SIM_END,  /* to the agent: the stream is over, with a struct wire_status */
};

/* What belongs to one connection and not to the next: how full it is. */
struct sim_path {
    struct wire_pace pace[2];
    bool             cut; /* reset: nothing passes, whether its ends know or not */
    uint32_t         references;
};

/* One agent and one worker.  Streams that were cut keep their place until both ends have let
 * go. */
struct sim_conn {
    struct sim_world  *world;
    struct sim_agent  *agent;
    struct sim_worker *worker;
    double             rtt_ms, bytes_per_ms;
    double             hole_until_ms; /* nothing passes until then, it is sent again after */
    double             spike_until_ms, spike_ms;
    double             free_ms[2]; /* the line is free again */
    double             last_ms[2]; /* arrival of the last message: no overtaking */
    struct sim_path   *path;       /* NULL: not connected */
    uint64_t           dials;
    double             dial_ms; /* since when the last one goes on */
    struct sim_stream *streams[SIM_STREAMS_MAX];
    uint32_t           stream_count;
};

/* An Execute stream, both ends. */
struct sim_stream {
    struct sim_conn *conn;
    struct sim_path *path;
    uint8_t          session_id[WIRE_SESSION_BYTES];
    bool             cut;       /* nothing passes any more */
    uint32_t         under_way; /* events that name it */

    /* the agent's end */
    bool                 agent_holds;
    struct wire_channel *up;
    uint32_t             stage, endpoint;
    bool                 told;   /* pipeline_opened() was called */
    bool                 closed; /* CLOSE was sent: answers are for nobody */
    bool                 resume;
    bool                 answered_open;
    uint32_t             owed;       /* answers that will come: beats while there are any */
    uint64_t             sent;       /* number of the last Forward */
    uint64_t             void_until; /* answers up to this number are owed by nobody */
    struct pulse         pulse;
    bool                 timer;

    /* the worker's end */
    bool                   worker_holds;
    bool                   begun; /* its first message has come */
    struct wire_channel   *down;
    struct worker_session *session;
};

void               sim_conn_up(struct sim_conn *c);
void               sim_conn_fini(struct sim_conn *c);
struct sim_stream *sim_stream_new(struct sim_conn *c);

void sim_send(struct sim_stream *s, enum sim_way way, enum sim_message kind, const void *bytes,
              size_t count);
void sim_conn_reset(struct sim_conn *c, bool agent_knows, bool worker_knows);
void sim_conn_sweep(struct sim_conn *c); /* free the streams that neither end holds */
bool sim_conn_passes(const struct sim_conn *c);

/* ---- worker ------------------------------------------------------------------------------- */

struct sim_worker {
    struct sim_world    *world;
    uint32_t             index, first, last;
    bool                 alive, draining;
    uint64_t             generation; /* of its process: events of a former one are void */
    double               stopped_until_ms;
    double               slowness; /* 1: as fast as it can */
    double               base_ms, token_ms;
    struct worker_limits limits;
    struct worker_table *table;
    struct sim_kv       *slots; /* (sessions_max) */
    bool                 running;
    struct worker_batch  batch;
    double               batch_ms;
    struct sim_job      *jobs; /* a list: all that were pushed and not given back */
};

void sim_worker_start(struct sim_worker *w);
void sim_worker_kill(struct sim_worker *w);
void sim_worker_free(struct sim_worker *w);
void sim_worker_drain(struct sim_worker *w, double within_ms);
void sim_worker_receive(struct sim_stream *s, const uint8_t *bytes, size_t count);
void sim_worker_lost(struct sim_stream *s);
/* Its events wait while it is stopped.  True: this one was put off. */
bool sim_worker_puts_off(struct sim_worker *w, struct sim_event *e);

/* ---- agent -------------------------------------------------------------------------------- */

struct sim_local {
    uint32_t      endpoint, stage;
    bool          open;
    struct sim_kv kv;
};

/* Something for the local engine, in order. */
struct sim_task {
    struct sim_task   *next;
    struct sim_local  *local;
    bool               trim;
    uint64_t           number;
    uint32_t           pos, count;
    enum pipe_want     want;
    bool               bulk;
    struct pipe_block *in;
};

/* A stage that wants an endpoint. */
struct sim_wanted {
    bool               asked;
    uint32_t           lost;
    double             since_ms;
    struct sim_stream *opening; /* whose Opened is awaited */
};

/* Which session an endpoint was: by it a successor resumes. */
struct sim_session_note {
    uint32_t endpoint, worker;
    uint8_t  id[WIRE_SESSION_BYTES];
};

struct sim_agent {
    struct sim_world       *world;
    uint32_t                index;
    struct sim_script       script;
    struct pipeline        *pipeline;
    uint32_t                stage_count;
    struct pipeline_stage   stages[SIM_STAGES_MAX];
    bool                    fallback;   /* holds all layers itself */
    bool                    optimistic; /* goes on before Opened has come */
    double                  patience_ms;
    double                  token_ms; /* of the local engine, a layer */
    struct sim_conn         conns[SIM_WORKERS_MAX];
    struct pipe_place       places[SIM_WORKERS_MAX + 1]; /* the last one: itself */
    double                  refused_until_ms[SIM_WORKERS_MAX + 1];
    struct sim_wanted       wanted[SIM_STAGES_MAX];
    struct sim_session_note sessions[64]; /* [endpoint % 64] */
    uint32_t                endpoints;
    struct sim_local        locals[SIM_LOCALS_MAX];
    uint32_t                local_count;
    struct sim_task        *tasks, *computing; /* those that wait, and the one that runs */
    bool                    running;           /* acts are being carried out */
    bool                    over;
    double                  last_token_ms, stall_ms_max;
    uint32_t                failures, tokens;
    uint64_t                resumes, opens;
};

void sim_agent_start(struct sim_agent *a);
void sim_agent_free(struct sim_agent *a);
void sim_agent_run(struct sim_agent *a); /* whatever its pipeline asks for */

/* places_common.c: dial what is down, find places for the stages that want one. */
void sim_agent_look(struct sim_agent *a);
void sim_agent_conn_lost(struct sim_conn *c);

/* stream_common.c: an endpoint at a worker.  Blocks of acts are taken over. */
void               sim_stream_open(struct sim_stream *s);
void               sim_stream_opened(struct sim_stream *s, const struct pipe_opened *opened);
void               sim_stream_forward(struct sim_stream *s, const struct pipe_act *act);
void               sim_stream_trim(struct sim_stream *s, const struct pipe_act *act);
void               sim_stream_close(struct sim_stream *s);
void               sim_stream_over(struct sim_stream *s, const char *why);
void               sim_agent_pump(struct sim_agent *a);
void               sim_agent_receive(struct sim_stream *s, const uint8_t *bytes, size_t count);
void               sim_agent_ended(struct sim_stream *s, const struct wire_status *status);
struct sim_stream *sim_stream_of(struct sim_agent *a, uint32_t endpoint); /* NULL */

/* local_common.c: an endpoint at the agent itself. */
void sim_local_open(struct sim_agent *a, uint32_t stage);
void sim_local_add(struct sim_agent *a, struct sim_local *l, const struct pipe_act *act);
struct sim_local *sim_local_of(struct sim_agent *a, uint32_t endpoint); /* NULL */
void              sim_local_fini(struct sim_agent *a);

/* ---- all of it ---------------------------------------------------------------------------- */

struct sim_options {
    uint32_t agents, workers;
    uint32_t hops; /* remote stages; 0: the whole model on one worker */
    bool     fallback, optimistic, even_windows;
    uint32_t row_bytes;
    double   rtt_ms, mbit;
    uint32_t sessions_max, windows_max; /* of each worker */
    double   fault_every_ms;            /* 0: none */
    double   faults_until_ms;
    uint32_t fault_kinds; /* a bit for each kind that happens; some worlds know only a few */
    uint32_t spite;       /* percent: a delicate moment is followed by a reset */
};

struct sim_world {
    struct sim_clock   clock;
    struct sim_options opts;
    struct sim_model   model;
    struct sim_agent   agents[SIM_AGENTS_MAX];
    struct sim_worker  workers[SIM_WORKERS_MAX];
    uint32_t           over;
    uint64_t           faults;
};

/* Everything by chance. */
struct sim_options sim_options_any(struct sim_clock *c);

/* A trim is on its way, a successor is fed, a turn will begin after `ms`: by chance the connections
 * in use are reset just then. */
void sim_spite(struct sim_agent *a, double ms);

/* Build it, by `opts` or by chance (NULL).  Scripts are by chance, or the caller fills in turns
 * and calls sim_script_expect(). */
struct sim_world *sim_world_new(uint64_t seed, const struct sim_options *opts);
void              sim_world_script(struct sim_world *w);
void              sim_world_start(struct sim_world *w);
/* Until all scripts are over and nothing is left at the workers. */
void sim_world_run(struct sim_world *w);
void sim_world_free(struct sim_world *w);

#endif
