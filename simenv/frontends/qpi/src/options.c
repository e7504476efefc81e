/* Options of a submit: defaults, checks, members of the request. The gateway checks what is not
 * checked here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { KEY_CHARS = 256, MAX_NOISE = 64, MAX_PRIORITY = 1000000, MAX_TERMS = 200000 };

void qpi_options_init_sized(qpi_options *options, size_t struct_bytes)
{
    qpi_options defaults = {.shots = 1024};
    size_t size = struct_bytes < sizeof defaults ? struct_bytes : sizeof defaults;
    memset(options, 0, struct_bytes);
    defaults.struct_bytes = size;
    memcpy(options, &defaults, size);
}

#undef qpi_options_init
void qpi_options_init(qpi_options *options)
{
    qpi_options_init_sized(options, QPI_FIRST_OPTIONS_BYTES);
}

/* --- options -------------------------------------------------------------------------------- */

/* 1 where it is NULL, or a-z, then up to 63 of a-z 0-9 _ . - */
static int is_name(const char *name)
{
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
    return !name || (name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 64
                     && !name[strspn(name, ALLOWED)]);
}

static int check_name(const char *what, const char *name)
{
    return is_name(name) ? QPI_OK
                         : qpi_fail(QPI_OPTION, "a-z, then up to 63 of a-z 0-9 _ . -",
                                    "%s is '%.80s'", what, name);
}

static int check_observables(const qpi_options *options)
{
    for (size_t index = 0; index < options->num_observables; index++) {
        const qpi_observable *each = &options->observables[index];
        if (each->terms == 0 || each->terms > MAX_TERMS)
            return qpi_fail(QPI_OPTION, "1 to 200000", "observable %zu has %zu terms", index,
                            each->terms);
        for (size_t term = 0; term < each->terms; term++) {
            const char *label = each->labels[term];
            if (label[strspn(label, "IXYZ")])
                return qpi_fail(QPI_OPTION, "one of I X Y Z for each qubit; qubit 0 is the last",
                                "observable %zu: '%.80s' is no label", index, label);
            if (!isfinite(each->coefficients[term]))
                return qpi_fail(QPI_OPTION, "finite real numbers",
                                "observable %zu: a coefficient is %g", index,
                                each->coefficients[term]);
        }
    }
    return QPI_OK;
}

static int check_noise(const qpi_options *options)
{
    if (options->num_noise > 0 && !options->device)
        return qpi_fail(QPI_OPTION, "device: an emulated device, or a pool that holds one",
                        "noise without a device");
    if (options->num_noise > MAX_NOISE)
        return qpi_fail(QPI_OPTION, "at most 64", "%zu factors of noise", options->num_noise);
    for (size_t index = 0; index < options->num_noise; index++) {
        const qpi_noise_factor *each = &options->noise[index];
        if (!each->component || !*each->component || strlen(each->component) > 64)
            return qpi_fail(QPI_OPTION, "such as gate.depolarizing",
                            "noise factor %zu has no component, or one of more than 64 characters",
                            index);
        if (!isfinite(each->factor) || each->factor < 0.0)
            return qpi_fail(QPI_OPTION, "a finite number, 0 or more", "noise: %s is %g",
                            each->component, each->factor);
        for (size_t other = 0; other < index; other++)
            if (!strcmp(options->noise[other].component, each->component))
                return qpi_fail(QPI_OPTION, "one factor for each", "noise: %s is given twice",
                                each->component);
    }
    return QPI_OK;
}

static int check_timeout(const char *what, double value)
{
    return value >= 0.0 && value <= 1e8
               ? QPI_OK
               : qpi_fail(QPI_OPTION, "seconds; 0: none", "%s is %g", what, value);
}

/* The outputs asked for, or those that follow from the rest. */
static int check_outputs(const qpi_circuit *circuit, qpi_options *options)
{
    unsigned known = QPI_COUNTS | QPI_PROBABILITIES | QPI_STATEVECTOR | QPI_EXPECTATION;
    int sampled = circuit->measures && options->shots > 0;
    if (options->num_observables > 0) {
        if (!options->outputs && sampled)
            options->outputs = QPI_COUNTS;
        options->outputs |= QPI_EXPECTATION;
    }
    if (!options->outputs)
        options->outputs = QPI_COUNTS;
    if (options->outputs & ~known)
        return qpi_fail(QPI_OPTION, "QPI_COUNTS, QPI_PROBABILITIES, QPI_STATEVECTOR, "
                                    "QPI_EXPECTATION",
                        "outputs %#x are not known", options->outputs);
    if ((options->outputs & QPI_EXPECTATION) && options->num_observables == 0)
        return qpi_fail(QPI_OPTION, "set observables and num_observables",
                        "expectation values of nothing were asked for");
    return QPI_OK;
}

/* Take the reservation that SIMENV_RESERVATION, POOL:NUMBER,..., has for the pool; without a pool,
 * the first one and its pool. */
static int take_reservation(qpi_options *options, char pool[POOL_CHARS + 1])
{
    const char *at = options->reservation ? NULL : qpi_variable("SIMENV_RESERVATION");
    while (at) {
        size_t size = strcspn(at, ":,");
        const char *number = at + size + (at[size] == ':');
        const char *end = number + strspn(number, "0123456789");
        if (size > POOL_CHARS || end == number || *number == '0' || (*end && *end != ','))
            return qpi_fail(QPI_OPTION, "POOL:NUMBER,... as `simenv slurm env` prints it",
                            "SIMENV_RESERVATION is '%.80s'", at);
        memcpy(pool, at, size);
        pool[size] = '\0';
        if (!options->device)
            options->device = pool;
        if (!strcmp(options->device, pool)) {
            options->reservation = strtoll(number, NULL, 10);
            break;
        }
        at = *end ? end + 1 : NULL;
    }
    return options->reservation >= 0 ? QPI_OK
                                     : qpi_fail(QPI_OPTION, "its number; 0: none",
                                                "reservation is %lld",
                                                (long long)options->reservation);
}

/* It travels in a header. */
static int is_key(const char *key)
{
    size_t length = strlen(key);
    for (size_t index = 0; index < length; index++)
        if (key[index] < ' ' || key[index] > '~')
            return 0;
    return length > 0 && length <= KEY_CHARS && *key != '~' && *key != ' '
           && key[length - 1] != ' ';
}

int qpi_check_options(const qpi_circuit *circuit, qpi_options *options, char pool[POOL_CHARS + 1])
{
    const char *key = options->idempotency_key;
    if (options->shots < 0 || options->shots > INT32_MAX)
        return qpi_fail(QPI_OPTION, "0 (exact) to 2147483647", "shots is %lld",
                        (long long)options->shots);
    if (options->priority < -MAX_PRIORITY || options->priority > MAX_PRIORITY)
        return qpi_fail(QPI_OPTION, "-1000000 to 1000000", "priority is %lld",
                        (long long)options->priority);
    if (key && !is_key(key))
        return qpi_fail(QPI_OPTION, "1 to 256 visible characters of ASCII, not beginning with ~",
                        "idempotency_key '%.80s' is not allowed", key);
    TRY(take_reservation(options, pool));
    TRY(check_name("device", options->device));
    TRY(check_name("engine", options->engine));
    TRY(check_name("name", options->name));
    if (!options->account)
        options->account = qpi_variable("SIMENV_ACCOUNT");
    if (!options->qos)
        options->qos = qpi_variable("SIMENV_QOS");
    TRY(check_name("account", options->account));
    TRY(check_name("qos", options->qos));
    TRY(check_timeout("queue_timeout_s", options->queue_timeout_s));
    TRY(check_timeout("run_timeout_s", options->run_timeout_s));
    TRY(check_noise(options));
    TRY(check_observables(options));
    return check_outputs(circuit, options);
}

/* --- members of the request ------------------------------------------------------------------ */

static int by_label(const void *one, const void *other, void *labels)
{
    size_t first = *(const size_t *)one, second = *(const size_t *)other;
    int order = strcmp(((char **)labels)[first], ((char **)labels)[second]);
    return order ? order : (first > second) - (first < second);
}

/* A sum of Pauli strings: an object, so that terms with the same label become one. */
static void put_sum(Buffer *to, const qpi_observable *sum)
{
    size_t *order = malloc(sum->terms * sizeof *order), first = 0;
    double *totals = calloc(sum->terms, sizeof *totals);
    to->failed |= !order || !totals;
    for (size_t index = 0; !to->failed && index < sum->terms; index++)
        order[index] = index;
    if (!to->failed)
        qsort_r(order, sum->terms, sizeof *order, by_label, (void *)sum->labels);
    for (size_t index = 0; !to->failed && index < sum->terms; index++) {
        if (strcmp(sum->labels[order[first]], sum->labels[order[index]]))
            first = index;
        if (index > first)
            totals[order[index]] = NAN;
        totals[order[first]] += sum->coefficients[order[index]];
    }
    qpi_put(to, "{");
    for (size_t term = 0, put = 0; !to->failed && term < sum->terms; term++) {
        if (isnan(totals[term]))
            continue;
        qpi_put(to, put++ ? "," : "");
        qpi_put_string(to, sum->labels[term]);
        qpi_put(to, ":");
        qpi_put_double(to, totals[term]);
    }
    qpi_put(to, "}");
    free(order);
    free(totals);
}

static void put_text(Buffer *to, const char *name, const char *value)
{
    if (!value)
        return;
    qpi_put(to, name);
    qpi_put_string(to, value);
}

static void put_number(Buffer *to, const char *name, double value)
{
    if (value == 0.0)
        return;
    qpi_put(to, name);
    qpi_put_double(to, value);
}

static void put_integer(Buffer *to, const char *name, int64_t value)
{
    qpi_put(to, name);
    qpi_put_int(to, value);
}

void qpi_put_options(Buffer *to, const qpi_options *options, int is_pool)
{
    static const char *const OUTPUTS[] = {"counts", "probabilities", "statevector", "expectation"};
    char seed[24];
    if (options->shots)
        put_integer(to, ",\"shots\":", options->shots);
    else
        qpi_put(to, ",\"shots\":null");
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)options->seed);
    qpi_put(to, ",\"seed\":");
    qpi_put(to, seed);
    qpi_put(to, ",\"outputs\":[");
    for (int bit = 0, put = 0; bit < 4; bit++)
        if (options->outputs & 1u << bit) {
            qpi_put(to, put++ ? "," : "");
            qpi_put_string(to, OUTPUTS[bit]);
        }
    qpi_put(to, "]");
    for (size_t index = 0; index < options->num_observables; index++) {
        qpi_put(to, index ? "," : ",\"observables\":[");
        put_sum(to, &options->observables[index]);
    }
    qpi_put(to, options->num_observables ? "]" : "");
    put_text(to, is_pool ? ",\"pool\":" : ",\"device\":", options->device);
    for (size_t index = 0; index < options->num_noise; index++) {
        qpi_put(to, index ? "," : ",\"noise\":{");
        qpi_put_string(to, options->noise[index].component);
        qpi_put(to, ":");
        qpi_put_double(to, options->noise[index].factor);
    }
    qpi_put(to, options->num_noise ? "}" : "");
    put_text(to, ",\"engine\":", options->engine);
    put_text(to, ",\"precision\":", options->single_precision ? "single" : NULL);
    if (options->priority)
        put_integer(to, ",\"priority\":", options->priority);
    put_number(to, ",\"queue_timeout_s\":", options->queue_timeout_s);
    put_number(to, ",\"run_timeout_s\":", options->run_timeout_s);
    put_text(to, ",\"name\":", options->name);
    put_text(to, ",\"account\":", options->account);
    put_text(to, ",\"qos\":", options->qos);
    if (options->reservation)
        put_integer(to, ",\"reservation\":", options->reservation);
}
