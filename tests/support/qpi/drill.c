/* Calls of the library against a real environment, for tests: drill errors|cancel|threads, drill
 * sweeps ROWS, drill device NAME NATIVE OTHER.
 * A wrong outcome ends the program with 1 and says where. */
#include <math.h>
#include <pthread.h>
#include <simenv_qpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 6, JOBS = 8 };

static const char BELL[] = "OPENQASM 2.0; include \"qelib1.inc\"; qreg q[2]; creg c[2];"
                           "h q[0]; cx q[0], q[1]; measure q -> c;";
static const char TURN[] = "OPENQASM 3.0; include \"stdgates.inc\"; input float a; qubit[2] q;"
                           "bit[2] c; ry(2 * a) q[0]; cx q[0], q[1]; c = measure q;";

static void expect_at(int line, int found, int wanted)
{
    if (found == wanted)
        return;
    fprintf(stderr, "line %d: %s, not %s: %s (%s)\n", line, qpi_status_name(found),
            qpi_status_name(wanted), qpi_error_message(), qpi_error_hint());
    exit(1);
}

static void check_at(int line, int truth, const char *text)
{
    if (truth)
        return;
    fprintf(stderr, "line %d: not so: %s (%s)\n", line, text, qpi_error_message());
    exit(1);
}

#define EXPECT(call, wanted) expect_at(__LINE__, (call), (wanted))
#define CHECK(truth) check_at(__LINE__, (truth), #truth)

static qpi_session *open_session(double patience_s)
{
    qpi_session *session;
    qpi_config config;
    qpi_config_init(&config);
    config.timeout_s = 60.0;
    config.patience_s = patience_s;
    EXPECT(qpi_init(&config, &session), QPI_OK);
    return session;
}

/* --- errors --------------------------------------------------------------------------------- */

static void submit_wrongly(qpi_session *session, const qpi_circuit *bell, const qpi_circuit *turn)
{
    const char *labels[] = {"ZZZ"};
    const double ones[] = {1.0, NAN};
    qpi_observable observable = {labels, ones, 1};
    qpi_options options;
    qpi_job *job;
    qpi_options_init(&options);
    EXPECT(qpi_submit(session, turn, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    EXPECT(qpi_submit(session, bell, &options, NULL, 2, 10.0, &job), QPI_OPTION);
    EXPECT(qpi_submit(session, turn, &options, ones + 1, 1, 10.0, &job), QPI_OPTION);
    options.device = "nowhere";
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_NOT_FOUND);
    CHECK(!job && strstr(qpi_error_message(), "nowhere") && *qpi_error_hint());
    options.device = "Not A Name";
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    options.device = NULL;
    options.engine = "nothing";
    int status = qpi_submit(session, bell, &options, NULL, 1, 10.0, &job);
    CHECK(status != QPI_OK && !job && strstr(qpi_error_message(), "nothing"));
    options.engine = NULL;
    options.shots = 0;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    options.shots = -1;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    options.shots = 10;
    options.outputs = QPI_STATEVECTOR;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_PROGRAM);
    options.outputs = QPI_EXPECTATION;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    options.observables = &observable;
    options.num_observables = 1;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
    options.struct_bytes--;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 10.0, &job), QPI_OPTION);
}

static void submit_twice(qpi_session *session, const qpi_circuit *bell)
{
    qpi_options options;
    qpi_job *first, *second;
    char one[32], other[32], bits[8];
    size_t outcomes;
    uint64_t count;
    double value;
    qpi_options_init(&options);
    options.idempotency_key = "drill-bell";
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 60.0, &first), QPI_OK);
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 60.0, &second), QPI_OK);
    EXPECT(qpi_wait(first, 120.0), QPI_OK);
    EXPECT(qpi_wait(second, 120.0), QPI_OK);
    EXPECT(qpi_task_id(first, 0, one, sizeof one), QPI_OK);
    EXPECT(qpi_task_id(second, 0, other, sizeof other), QPI_OK);
    CHECK(!strcmp(one, other));
    options.shots = 99;
    qpi_job *third;
    EXPECT(qpi_submit(session, bell, &options, NULL, 1, 60.0, &third), QPI_KEY_CONFLICT);
    EXPECT(qpi_expectation(first, 0, 0, &value, &value), QPI_NO_DATA);
    EXPECT(qpi_statevector(first, 0, &value, 1), QPI_NO_DATA);
    EXPECT(qpi_row_status(first, 1), QPI_OPTION);
    EXPECT(qpi_counts_size(first, 0, &outcomes), QPI_OK);
    CHECK(outcomes == 2);
    EXPECT(qpi_counts_entry(first, 0, 2, bits, sizeof bits, &count), QPI_OPTION);
    EXPECT(qpi_counts_entry(first, 0, 0, bits, 2, &count), QPI_LIMIT);
    EXPECT(qpi_task_id(first, 0, one, 2), QPI_LIMIT);
    qpi_job_free(second);
    qpi_finalize(session); /* what has been received stays */
    EXPECT(qpi_counts_entry(first, 0, 1, bits, sizeof bits, &count), QPI_OK);
    CHECK(!strcmp(bits, "11") && count > 400 && count < 620);
    qpi_job_free(first);
}

static void errors(void)
{
    qpi_circuit *bell, *turn, *none;
    qpi_session *session = open_session(60.0), *absent;
    qpi_config config;
    qpi_device device;
    size_t count;
    qpi_config_init(&config);
    config.environment = "nobody-is-here";
    EXPECT(qpi_init(&config, &absent), QPI_NO_SERVICE);
    CHECK(!absent && *qpi_error_hint());
    config.environment = "../x";
    EXPECT(qpi_init(&config, &absent), QPI_CONFIG);
    EXPECT(qpi_devices(session, 60.0, &device, 1, &count), QPI_OK);
    CHECK(count == 1 && !strcmp(device.name, "main") && !strcmp(device.kind, "ideal"));
    CHECK(device.num_qubits > 20 && device.max_shots > 1000);
    EXPECT(qpi_circuit_from_qasm("", &none), QPI_PROGRAM);
    EXPECT(qpi_circuit_from_qasm("OPENQASM 2.0;\nqreg q[2];\n  foo q[0];", &none), QPI_OK);
    qpi_job *job;
    EXPECT(qpi_submit(session, none, NULL, NULL, 1, 60.0, &job), QPI_PROGRAM);
    CHECK(!job && qpi_error_line() == 3 && qpi_error_column() == 3);
    qpi_circuit_free(none);
    EXPECT(qpi_circuit_from_qasm(BELL, &bell), QPI_OK);
    EXPECT(qpi_circuit_from_qasm(TURN, &turn), QPI_OK);
    CHECK(qpi_circuit_qubits(turn) == 2 && qpi_circuit_clbits(turn) == 2);
    CHECK(qpi_circuit_parameters(turn) == 1 && !strcmp(qpi_circuit_parameter(turn, 0), "a"));
    CHECK(!qpi_circuit_parameter(turn, 1));
    submit_wrongly(session, bell, turn);
    submit_twice(session, bell);
    qpi_circuit_free(bell);
    qpi_circuit_free(turn);
    qpi_circuit_free(NULL);
    qpi_job_free(NULL);
    qpi_finalize(NULL);
}

/* --- cancel --------------------------------------------------------------------------------- */

static void cancel(void)
{
    static char text[200000];
    size_t used = (size_t)snprintf(text, sizeof text, "OPENQASM 2.0; include \"qelib1.inc\";"
                                                      "qreg q[22]; creg c[22];");
    for (int gate = 0; gate < 4000; gate++)
        used += (size_t)snprintf(text + used, sizeof text - used, "ry(0.%d) q[%d]; cx q[%d],q[%d];",
                                 1 + gate % 9, gate % 22, gate % 22, (gate + 1) % 22);
    snprintf(text + used, sizeof text - used, "measure q -> c;");
    qpi_session *session = open_session(60.0);
    qpi_circuit *circuit;
    qpi_job *jobs[3];
    size_t outcomes;
    EXPECT(qpi_circuit_from_qasm(text, &circuit), QPI_OK);
    for (int index = 0; index < 3; index++)
        EXPECT(qpi_submit(session, circuit, NULL, NULL, 1, 60.0, &jobs[index]), QPI_OK);
    EXPECT(qpi_wait(jobs[2], 0.0), QPI_TIMEOUT);
    EXPECT(qpi_counts_size(jobs[2], 0, &outcomes), QPI_PENDING);
    for (int index = 0; index < 3; index++)
        EXPECT(qpi_cancel(jobs[index], 60.0), QPI_OK);
    for (int index = 0; index < 3; index++) {
        EXPECT(qpi_wait(jobs[index], 120.0), QPI_TASK_CANCELLED);
        CHECK(qpi_poll(jobs[index]) == 1);
        EXPECT(qpi_row_status(jobs[index], 0), QPI_TASK_CANCELLED);
        EXPECT(qpi_cancel(jobs[index], 60.0), QPI_OK);
        qpi_job_free(jobs[index]);
    }
    qpi_circuit_free(circuit);
    qpi_finalize(session);
}

/* --- threads -------------------------------------------------------------------------------- */

static qpi_session *shared_session;
static qpi_circuit *shared_circuit;

static void *submit_often(void *argument)
{
    qpi_options options;
    qpi_options_init(&options);
    options.shots = 100;
    (void)argument;
    for (int turn = 0; turn < 20; turn++) {
        double angles[] = {0.0, 1.5707963267948966}; /* 2a = pi: both qubits are 1 */
        char bits[8];
        uint64_t count;
        qpi_job *job;
        EXPECT(qpi_submit(shared_session, shared_circuit, &options, angles, 2, 60.0, &job), QPI_OK);
        EXPECT(qpi_wait(job, 120.0), QPI_OK);
        EXPECT(qpi_counts_entry(job, 0, 0, bits, sizeof bits, &count), QPI_OK);
        CHECK(!strcmp(bits, "00") && count == 100);
        EXPECT(qpi_counts_entry(job, 1, 0, bits, sizeof bits, &count), QPI_OK);
        CHECK(!strcmp(bits, "11") && count == 100);
        qpi_job_free(job);
        EXPECT(qpi_circuit_from_qasm("", &(qpi_circuit *){NULL}), QPI_PROGRAM);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t running[THREADS];
    shared_session = open_session(60.0);
    EXPECT(qpi_circuit_from_qasm(TURN, &shared_circuit), QPI_OK);
    for (int index = 0; index < THREADS; index++)
        CHECK(!pthread_create(&running[index], NULL, submit_often, NULL));
    for (int index = 0; index < THREADS; index++)
        pthread_join(running[index], NULL);
    qpi_circuit_free(shared_circuit);
    qpi_finalize(shared_session);
}

/* --- sweeps: `rows` rows in each of JOBS jobs, while the service is killed -------------------- */

static void print_row(qpi_job *job, int number, size_t row)
{
    size_t outcomes;
    EXPECT(qpi_counts_size(job, row, &outcomes), QPI_OK);
    printf("%d %zu", number, row);
    for (size_t index = 0; index < outcomes; index++) {
        char bits[8];
        uint64_t count;
        EXPECT(qpi_counts_entry(job, row, index, bits, sizeof bits, &count), QPI_OK);
        printf(" %s=%llu", bits, (unsigned long long)count);
    }
    printf("\n");
    fflush(stdout);
}

/* One job after the other: it is submitted, and its rows are printed when all have ended. */
static void sweeps(size_t rows)
{
    qpi_session *session = open_session(200.0);
    printf("connected\n");
    fflush(stdout);
    double *angles = malloc(rows * sizeof *angles);
    qpi_circuit *circuit;
    qpi_options options;
    qpi_options_init(&options);
    options.shots = 200;
    options.has_seed = 1;
    EXPECT(qpi_circuit_from_qasm(TURN, &circuit), QPI_OK);
    for (size_t row = 0; row < rows; row++)
        angles[row] = 0.001 * (double)row;
    for (int number = 0; number < JOBS; number++) {
        qpi_job *job;
        options.seed = (uint64_t)number;
        EXPECT(qpi_submit(session, circuit, &options, angles, rows, 250.0, &job), QPI_OK);
        printf("submitted %d\n", number);
        fflush(stdout);
        EXPECT(qpi_wait(job, 250.0), QPI_OK);
        for (size_t row = 0; row < rows; row++)
            print_row(job, number, row);
        qpi_job_free(job);
    }
    free(angles);
    qpi_circuit_free(circuit);
    qpi_finalize(session);
}

/* --- an emulated device: counts with its noise, with more and without, and of what is compiled - */

static void device(const char *name, const char *native, const char *other)
{
    static const qpi_noise_factor FACTORS[] = {{"qubit.readout", 3.0}, {"all", 0.0}};
    static const qpi_noise_factor WRONG = {"x", -1.0};
    qpi_session *session = open_session(60.0);
    qpi_circuit *circuit, *compiled;
    qpi_options options;
    qpi_job *job;
    EXPECT(qpi_circuit_from_qasm(native, &circuit), QPI_OK);
    EXPECT(qpi_circuit_from_qasm(other, &compiled), QPI_OK);
    for (int factor = -1; factor < 2; factor++) {
        qpi_options_init(&options);
        options.device = name;
        options.shots = 4000;
        options.has_seed = 1;
        options.seed = 5;
        options.noise = factor < 0 ? NULL : &FACTORS[factor];
        options.num_noise = factor >= 0;
        EXPECT(qpi_submit(session, circuit, &options, NULL, 1, 60.0, &job), QPI_OK);
        EXPECT(qpi_wait(job, 250.0), QPI_OK);
        print_row(job, factor, 0);
        qpi_job_free(job);
    }
    static const qpi_noise_factor LIMITED = {"gate.depolarizing", 1e9};
    char text[1024] = "";
    size_t warnings = 0;
    options.noise = &LIMITED;
    EXPECT(qpi_submit(session, circuit, &options, NULL, 1, 60.0, &job), QPI_OK);
    EXPECT(qpi_wait(job, 250.0), QPI_OK);
    EXPECT(qpi_warnings_size(job, 0, &warnings), QPI_OK);
    EXPECT(qpi_warning(job, 0, 0, text, 8), QPI_LIMIT);
    EXPECT(qpi_warning(job, 0, warnings, text, sizeof text), QPI_OPTION);
    EXPECT(qpi_warning(job, 0, 0, text, sizeof text), QPI_OK);
    printf("%zu %s\n", warnings, text);
    qpi_job_free(job);
    options.num_noise = 0;
    EXPECT(qpi_submit(session, compiled, &options, NULL, 1, 60.0, &job), QPI_OK);
    EXPECT(qpi_wait(job, 250.0), QPI_OK);
    print_row(job, 2, 0);
    qpi_job_free(job);
    options.noise = &WRONG;
    options.num_noise = 1;
    EXPECT(qpi_submit(session, circuit, &options, NULL, 1, 60.0, &job), QPI_OPTION);
    options.noise = FACTORS;
    options.device = NULL;
    EXPECT(qpi_submit(session, circuit, &options, NULL, 1, 60.0, &job), QPI_OPTION);
    qpi_circuit_free(compiled);
    qpi_circuit_free(circuit);
    qpi_finalize(session);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "errors"))
        errors();
    else if (argc == 2 && !strcmp(argv[1], "cancel"))
        cancel();
    else if (argc == 2 && !strcmp(argv[1], "threads"))
        threads();
    else if (argc == 3 && !strcmp(argv[1], "sweeps"))
        sweeps((size_t)atol(argv[2]));
    else if (argc == 5 && !strcmp(argv[1], "device"))
        device(argv[2], argv[3], argv[4]);
    else
        return 2;
    return 0;
}
