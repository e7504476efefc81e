/* Submit to a service that is stopped: prints the status, and whether it may have been accepted, of
 * a submit without an answer and of one that is refused before it is sent. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <simenv_qpi.h>

int main(int count, char **arguments)
{
    qpi_session *session;
    qpi_circuit *circuit;
    qpi_options options;
    qpi_job *job;
    const char *text = "OPENQASM 2.0; include \"qelib1.inc\"; qreg q[1]; creg c[1]; h q[0]; "
                       "measure q -> c;";
    if (count < 2 || qpi_init(NULL, &session) || qpi_circuit_from_qasm(text, &circuit))
        return 1;
    pid_t service = (pid_t)atol(arguments[1]);
    qpi_options_init(&options);
    options.idempotency_key = "once";
    kill(service, SIGSTOP);
    int status = qpi_submit(session, circuit, &options, NULL, 1, 0.5, &job);
    printf("%s %d %s\n", qpi_status_name(status), qpi_error_maybe_accepted(), qpi_error_message());
    kill(service, SIGCONT);
    qpi_job_free(job);
    options.shots = -5;
    status = qpi_submit(session, circuit, &options, NULL, 1, 0.5, &job);
    printf("%s %d\n", qpi_status_name(status), qpi_error_maybe_accepted());
    qpi_circuit_free(circuit);
    qpi_finalize(session);
    return 0;
}
