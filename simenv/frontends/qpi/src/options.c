/* Options of a submit: defaults, checks, message. */
#include <math.h>
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

/* The value of a variable; NULL where it is not set, or empty. */
static const char *from_environment(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

static int check_observables(const qpi_circuit *circuit, const qpi_options *options)
{
    for (size_t index = 0; index < options->num_observables; index++) {
        const qpi_observable *each = &options->observables[index];
        if (each->terms == 0 || each->terms > MAX_TERMS)
            return qpi_fail(QPI_OPTION, "1 to 200000", "observable %zu has %zu terms", index,
                            each->terms);
        for (size_t term = 0; term < each->terms; term++) {
            const char *label = each->labels[term];
            if (strlen(label) != circuit->qubits || label[strspn(label, "IXYZ")])
                return qpi_fail(QPI_OPTION, "one of I X Y Z for each qubit; qubit 0 is the last",
                                "observable %zu: '%.80s' is no label for %zu qubits", index, label,
                                circuit->qubits);
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
    if ((options->outputs & QPI_COUNTS) && options->shots == 0)
        return qpi_fail(QPI_OPTION, "QPI_PROBABILITIES gives the exact distribution",
                        "counts were asked for with 0 shots");
    if ((options->outputs & QPI_COUNTS) && !circuit->measures)
        return qpi_fail(QPI_PROGRAM, "measure, or ask for QPI_STATEVECTOR",
                        "counts were asked of a circuit that measures nothing");
    if ((options->outputs & QPI_STATEVECTOR) && circuit->measures)
        return qpi_fail(QPI_PROGRAM, "remove the measurements",
                        "a statevector was asked of a circuit that measures");
    return QPI_OK;
}

/* Take the reservation that SIMENV_RESERVATION, POOL:NUMBER,..., has for the pool; without a pool,
 * the first one and its pool. */
static int take_reservation(qpi_options *options, char pool[POOL_CHARS + 1])
{
    const char *at = options->reservation ? NULL : from_environment("SIMENV_RESERVATION");
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

int qpi_check_options(const qpi_circuit *circuit, qpi_options *options, char pool[POOL_CHARS + 1])
{
    const char *key = options->idempotency_key;
    if (options->shots < 0 || options->shots > INT32_MAX)
        return qpi_fail(QPI_OPTION, "0 (exact) to 2147483647", "shots is %lld",
                        (long long)options->shots);
    if (options->priority < -MAX_PRIORITY || options->priority > MAX_PRIORITY)
        return qpi_fail(QPI_OPTION, "-1000000 to 1000000", "priority is %lld",
                        (long long)options->priority);
    if (key && (!*key || *key == '~' || strlen(key) > KEY_CHARS))
        return qpi_fail(QPI_OPTION, "1 to 256 characters, not beginning with ~",
                        "idempotency_key '%.80s' is not allowed", key);
    TRY(take_reservation(options, pool));
    TRY(check_name("device", options->device));
    TRY(check_name("engine", options->engine));
    TRY(check_name("name", options->name));
    if (!options->account)
        options->account = from_environment("SIMENV_ACCOUNT");
    if (!options->qos)
        options->qos = from_environment("SIMENV_QOS");
    TRY(check_name("account", options->account));
    TRY(check_name("qos", options->qos));
    TRY(check_timeout("queue_timeout_s", options->queue_timeout_s));
    TRY(check_timeout("run_timeout_s", options->run_timeout_s));
    TRY(check_noise(options));
    TRY(check_observables(circuit, options));
    return check_outputs(circuit, options);
}

/* --- message -------------------------------------------------------------------------------- */

/* The fields of TaskOptions from `options` to `noise`; the rest has defaults. */
static void put_noise(Buffer *to, const char *device, const qpi_options *options)
{
    qpi_put_array(to, 0); /* options */
    qpi_put_uint(to, 0);  /* ranks */
    qpi_put_uint(to, (uint64_t)options->reservation);
    qpi_put_array(to, 0); /* prefer */
    qpi_put_nil(to);      /* chain */
    qpi_put_text(to, device);
    qpi_put_array(to, options->num_noise);
    for (size_t index = 0; index < options->num_noise; index++) {
        qpi_put_array(to, 2);
        qpi_put_text(to, options->noise[index].component);
        qpi_put_double(to, options->noise[index].factor);
    }
}

/* The fields of TaskOptions from `snapshot` to `qos`. */
static void put_account(Buffer *to, const qpi_options *options)
{
    qpi_put_text(to, ""); /* snapshot */
    qpi_put_text(to, ""); /* compiled */
    qpi_put_array(to, 0); /* replaced_gates */
    qpi_put_text(to, ""); /* compiled_for */
    qpi_put_text(to, ""); /* stale */
    qpi_put_array(to, 0); /* after */
    qpi_put_nil(to);      /* parts */
    qpi_put_text(to, options->account ? options->account : "");
    qpi_put_text(to, options->qos ? options->qos : "");
}

/* TaskOptions, up to its field `app`; `noise` where that, an emulated device or a reservation is
 * named; or `qos` where an account or a class of service is. The rest has defaults. */
void qpi_put_terms(Buffer *to, const qpi_options *options, int is_pool)
{
    int has_account = options->account || options->qos;
    int has_noise = options->num_noise > 0 || !is_pool || options->reservation || has_account;
    static const char *const OUTPUTS[] = {"counts", "probabilities", "statevector", "expectation"};
    const char *app = getenv("SIMENV_APP");
    qpi_put_array(to, has_account ? 26 : has_noise ? 17 : 10);
    qpi_put_array(to, (size_t)__builtin_popcount(options->outputs));
    for (int bit = 0; bit < 4; bit++)
        if (options->outputs & 1u << bit)
            qpi_put_text(to, OUTPUTS[bit]);
    qpi_put_array(to, options->num_observables);
    for (size_t index = 0; index < options->num_observables; index++) {
        const qpi_observable *each = &options->observables[index];
        qpi_put_array(to, 2);
        qpi_put_array(to, each->terms);
        for (size_t term = 0; term < each->terms; term++)
            qpi_put_text(to, each->labels[term]);
        qpi_put_bytes(to, each->coefficients, each->terms * sizeof *each->coefficients);
    }
    qpi_put_text(to, options->engine ? options->engine : "auto");
    qpi_put_text(to, options->single_precision ? "single" : "double");
    qpi_put_text(to, is_pool ? options->device : "");
    qpi_put_int(to, options->priority);
    qpi_put_double(to, options->queue_timeout_s);
    qpi_put_double(to, options->run_timeout_s);
    qpi_put_text(to, options->name);
    qpi_put_text(to, is_name(app && *app ? app : NULL) ? app : "");
    if (has_noise)
        put_noise(to, is_pool ? "" : options->device, options);
    if (has_account)
        put_account(to, options);
}
