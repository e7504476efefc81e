/* A Bell pair, and the energy of a two-qubit Hamiltonian over a sweep of an angle, from C.
 *
 *     simenv up --gateway 127.0.0.1:0
 *     eval "$(simenv gateway env)"
 *     simenv qpi build
 *     cc examples/qpi/sweep.c $(simenv qpi flags) -o sweep && ./sweep
 */
#include <simenv_qpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 9 };

static const char BELL[] = "OPENQASM 2.0;\n"
                           "include \"qelib1.inc\";\n"
                           "qreg q[2];\n"
                           "creg c[2];\n"
                           "h q[0];\n"
                           "cx q[0], q[1];\n"
                           "measure q -> c;\n";
static const char ANSATZ[] = "OPENQASM 3.0;\n"
                             "include \"stdgates.inc\";\n"
                             "input float[64] theta;\n"
                             "qubit[2] q;\n"
                             "x q[0];\n"
                             "ry(theta) q[1];\n"
                             "cx q[1], q[0];\n";

/* End the program where a call has failed. */
static void check(int status)
{
    if (status == QPI_OK)
        return;
    fprintf(stderr, "%s: %s\n  %s\n", qpi_status_name(status), qpi_error_message(),
            qpi_error_hint());
    exit(1);
}

static void run_bell(qpi_session *session)
{
    qpi_circuit *circuit;
    qpi_job *job;
    qpi_options options;
    size_t outcomes;
    qpi_options_init(&options);
    options.shots = 1000;
    options.has_seed = 1;
    options.seed = 7;
    check(qpi_circuit_from_qasm(BELL, &circuit));
    check(qpi_submit(session, circuit, &options, NULL, 1, 10.0, &job));
    check(qpi_wait(job, 300.0));
    check(qpi_counts_size(job, 0, &outcomes));
    for (size_t index = 0; index < outcomes; index++) {
        char bits[3];
        uint64_t count;
        check(qpi_counts_entry(job, 0, index, bits, sizeof bits, &count));
        printf("%s %llu\n", bits, (unsigned long long)count);
    }
    qpi_job_free(job);
    qpi_circuit_free(circuit);
}

static void run_sweep(qpi_session *session)
{
    const char *labels[] = {"II", "ZI", "IZ", "ZZ", "XX"}; /* H2 at 0.735 angstrom, hartree */
    const double weights[] = {-1.0524, -0.3979, 0.3979, -0.0113, 0.1809};
    const qpi_observable energy = {labels, weights, 5};
    double angles[ROWS];
    qpi_circuit *circuit;
    qpi_job *job;
    qpi_options options;
    qpi_options_init(&options);
    options.shots = 0; /* exact */
    options.observables = &energy;
    options.num_observables = 1;
    for (int row = 0; row < ROWS; row++)
        angles[row] = -0.4 + 0.1 * row;
    check(qpi_circuit_from_qasm(ANSATZ, &circuit));
    check(qpi_submit(session, circuit, &options, angles, ROWS, 10.0, &job));
    check(qpi_wait(job, 300.0));
    for (size_t row = 0; row < ROWS; row++) {
        double value, error;
        check(qpi_expectation(job, row, 0, &value, &error));
        printf("theta %+.1f   energy %.6f\n", angles[row], value);
    }
    qpi_job_free(job);
    qpi_circuit_free(circuit);
}

int main(void)
{
    qpi_session *session;
    check(qpi_init(NULL, &session));
    run_bell(session);
    run_sweep(session);
    qpi_finalize(session);
    return 0;
}
