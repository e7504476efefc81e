/* A client that outlives its environment, for tests: it submits once, waits for a line on stdin and
 * submits again and again. Prints the status of each submit, and the counts of each result. */
#include <simenv_qpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { REPEATS = 20, SHOTS = 79 };

static const char BELL[] = "OPENQASM 2.0; include \"qelib1.inc\"; qreg q[2]; creg c[2];"
                           "h q[0]; cx q[0], q[1]; measure q -> c;";

static int submit(qpi_session *session, const qpi_circuit *circuit, double timeout_s)
{
    qpi_options options;
    qpi_job *job = NULL;
    char bits[80];
    uint64_t count;
    qpi_options_init(&options);
    options.shots = SHOTS;
    int status = qpi_submit(session, circuit, &options, NULL, 1, timeout_s, &job);
    if (status == QPI_OK)
        status = qpi_wait(job, timeout_s);
    printf("%s", qpi_status_name(status));
    if (status == QPI_OK && qpi_counts_entry(job, 0, 0, bits, sizeof bits, &count) == QPI_OK)
        printf(" %s", bits);
    printf("\n");
    fflush(stdout);
    qpi_job_free(job);
    return status;
}

int main(void)
{
    qpi_session *session;
    qpi_circuit *circuit;
    qpi_config config;
    char line[16];
    qpi_config_init(&config);
    config.patience_s = 60.0;
    if (qpi_init(&config, &session) != QPI_OK || qpi_circuit_from_qasm(BELL, &circuit) != QPI_OK
        || submit(session, circuit, 120.0) != QPI_OK) {
        fprintf(stderr, "%s\n", qpi_error_message());
        return 1;
    }
    if (!fgets(line, sizeof line, stdin))
        return 1;
    for (int repeat = 0; repeat < REPEATS; repeat++)
        submit(session, circuit, 0.3);
    qpi_circuit_free(circuit);
    qpi_finalize(session);
    return 0;
}
