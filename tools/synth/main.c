/* SPDX-License-Identifier: MIT */
/* main.c - mcp-synth: a GGUF file of a real model's shape with random weights, or a model
 * that is nearly another one.
 *
 * Timing needs the sizes of a model and not its knowledge, and tests need models
 * that are small and odd.  Both can be written in seconds instead of downloaded.
 * Guesses by a draft model need one that agrees with the model mostly: its weights
 * with noise do.  The same command line gives the same bytes. */
#include "error.h"
#include "file.h"
#include "perturb.h"
#include "plan.h"
#include "shape.h"

#include "ggml.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_help(void)
{
    fputs(
        "mcp-synth writes a GGUF model of random weights.\n\n"
        "  mcp-synth --shape NAME [--quant TYPE] [--vocab FILE] [--seed N]\n"
        "            [--set key=value]... [--split-max-bytes N] -o OUT.gguf\n"
        "  mcp-synth --from FILE --noise S [--seed N] -o OUT.gguf\n"
        "  mcp-synth --list\n\n"
        "  --shape NAME          the model to imitate, see --list\n"
        "  --quant TYPE          type of the matrices, f16 unless given\n"
        "  --vocab FILE          GGUF file to take the tokenizer from; without it one is made up\n"
        "  --seed N              other weights for another number, 1 unless given\n"
        "  --set key=value       change a size or a switch of the shape\n"
        "  --split-max-bytes N   write OUT-00001-of-0000N.gguf..., each with at most N bytes\n"
        "                        of tensors (K, M and G are 1000s)\n"
        "  --from FILE           instead of a shape: that model, its matrices with noise\n"
        "  --noise S             deviation of it, over a row's root mean square\n"
        "  -o, --output FILE     where to write\n"
        "\nQuantisations:",
        stdout);
    synth_quant_print(stdout);
    fputs("\nKeys of --set (rope_scaling: 0 none, 1 linear, 2 yarn, 3 llama3; gating: 1 softmax,\n"
          "2 sigmoid; switches: 0 or 1):",
          stdout);
    synth_shape_print_keys(stdout);
}

static int parse_u64(const char *option, const char *text, bool units, uint64_t *out,
                     struct synth_error *err)
{
    unsigned long long v;
    uint64_t           unit = 1;
    char              *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (units && end != text && *end && !end[1]) {
        unit = *end == 'K' ? 1000u : *end == 'M' ? 1000000u : *end == 'G' ? 1000000000u : 1u;
        if (unit > 1)
            end++;
    }
    if (end == text || *end || errno || text[0] == '-' || v > UINT64_MAX / unit)
        return synth_fail(err, "%s wants a whole number, not '%s'", option, text);
    *out = v * unit;
    return 0;
}

/* What the command line asks for besides writing a file. */
enum mode {
    MODE_WRITE,
    MODE_PERTURB,
    MODE_LIST,
    MODE_HELP,
};

enum { NOISE_MAX = 10 /* nothing of a matrix is left long before */ };

struct job {
    struct synth_job   synth; /* of it, out_path and seed hold for both modes of writing */
    struct synth_shape shape;
    const char        *from; /* NULL: a shape with random weights */
    double             noise;
};

static int parse_noise(const char *text, double *out, struct synth_error *err)
{
    char *end;

    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= 0.0 && *out <= NOISE_MAX))
        return synth_fail(err, "--noise wants a number from 0 to %d, not '%s'", NOISE_MAX, text);
    return 0;
}

static int parse(int argc, char **argv, struct job *job, enum mode *mode, struct synth_error *err)
{
    enum {
        OPT_SHAPE = 256,
        OPT_QUANT,
        OPT_VOCAB,
        OPT_SEED,
        OPT_SET,
        OPT_SPLIT,
        OPT_LIST,
        OPT_FROM,
        OPT_NOISE
    };
    static const struct option options[] = {
        { "shape", required_argument, NULL, OPT_SHAPE },
        { "quant", required_argument, NULL, OPT_QUANT },
        { "vocab", required_argument, NULL, OPT_VOCAB },
        { "seed", required_argument, NULL, OPT_SEED },
        { "set", required_argument, NULL, OPT_SET },
        { "split-max-bytes", required_argument, NULL, OPT_SPLIT },
        { "output", required_argument, NULL, 'o' },
        { "list", no_argument, NULL, OPT_LIST },
        { "from", required_argument, NULL, OPT_FROM },
        { "noise", required_argument, NULL, OPT_NOISE },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char               *shape_name = NULL, *quant_name = "f16";
    const struct synth_shape *found;
    int                       opt, rc = 0;

    opterr = 0;
    while (rc == 0 && (opt = getopt_long(argc, argv, ":o:h", options, NULL)) != -1) {
        switch (opt) {
        case OPT_SHAPE: shape_name = optarg; break;
        case OPT_QUANT: quant_name = optarg; break;
        case OPT_VOCAB: job->synth.vocab_path = optarg; break;
        case OPT_SEED: rc = parse_u64("--seed", optarg, false, &job->synth.seed, err); break;
        case OPT_FROM: job->from = optarg; break;
        case OPT_NOISE: rc = parse_noise(optarg, &job->noise, err); break;
        case OPT_SET: break; /* applied below, once the shape is known */
        case OPT_SPLIT:
            rc = parse_u64("--split-max-bytes", optarg, true, &job->synth.split_bytes_max, err);
            if (rc == 0 && !job->synth.split_bytes_max)
                rc = synth_fail(err, "--split-max-bytes must be above 0");
            break;
        case 'o': job->synth.out_path = optarg; break;
        case OPT_LIST: *mode = MODE_LIST; return 0;
        case 'h': *mode = MODE_HELP; return 0;
        case ':': return synth_fail(err, "%s wants a value", argv[optind - 1]);
        default:
            if (optopt > 0 && optopt < 256)
                return synth_fail(err, "unknown option -%c, see --help", optopt);
            return synth_fail(err, "unknown option %s, see --help", argv[optind - 1]);
        }
    }
    if (rc < 0)
        return rc;
    if (optind < argc)
        return synth_fail(err, "unexpected argument '%s', see --help", argv[optind]);
    if (job->from && (shape_name || job->noise < 0.0 || !job->synth.out_path))
        return synth_fail(err, "--from FILE goes with --noise S and -o OUT.gguf, and without "
                               "--shape");
    if (job->from) {
        *mode = MODE_PERTURB;
        return 0;
    }
    if (!shape_name || !job->synth.out_path)
        return synth_fail(err, "--shape NAME and -o OUT.gguf are needed, see --help");
    found = synth_shape_find(shape_name);
    if (!found)
        return synth_fail(err, "no shape is called '%s', see --list", shape_name);
    job->synth.quant = synth_quant_find(quant_name);
    if (!job->synth.quant)
        return synth_fail(err, "no quantisation is called '%s', see --help", quant_name);
    job->shape = *found;
    optind = 1;
    while ((opt = getopt_long(argc, argv, ":o:h", options, NULL)) != -1)
        if (opt == OPT_SET && synth_shape_set(&job->shape, optarg, err) < 0)
            return -1;
    return synth_shape_check(&job->shape, err);
}

/* ggml's own lines would come before the one sentence that an error is. */
static void drop_log(enum ggml_log_level level, const char *text, void *ctx)
{
    (void)level;
    (void)text;
    (void)ctx;
}

int main(int argc, char **argv)
{
    struct job          job = { .synth = { .seed = 1 }, .noise = -1.0 };
    struct synth_result result;
    struct synth_error  err;
    struct timespec     began, ended;
    enum mode           mode = MODE_WRITE;
    int                 rc;

    job.synth.shape = &job.shape;
    rc = parse(argc, argv, &job, &mode, &err);
    if (rc == 0 && mode == MODE_LIST) {
        synth_shape_print_list(stdout);
        return 0;
    }
    if (rc == 0 && mode == MODE_HELP) {
        print_help();
        return 0;
    }
    if (rc == 0) {
        ggml_log_set(drop_log, NULL);
        clock_gettime(CLOCK_MONOTONIC, &began);
        if (mode == MODE_PERTURB)
            rc = synth_perturb(job.from, job.synth.out_path, job.noise, job.synth.seed, &result,
                               &err);
        else
            rc = synth_file_write(&job.synth, &result, &err);
        clock_gettime(CLOCK_MONOTONIC, &ended);
    }
    if (rc < 0) {
        fprintf(stderr, "mcp-synth: %s\n", err.text);
        return 1;
    }
    printf("%s %s: %zu tensors, %zu file%s, %" PRIu64 " bytes, %.1f s\n",
           job.from ? job.from : job.shape.name, job.from ? "with noise" : job.synth.quant->name,
           result.tensors, result.files, result.files == 1 ? "" : "s", result.bytes,
           (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
