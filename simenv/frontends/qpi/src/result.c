/* What programs read of results. */
#include <string.h>

#include "internal.h"

/* What is known of a row without a question. */
static int status_of(qpi_job *job, size_t row)
{
    qpi_lock(job->shared);
    const Part *part = job->parts ? qpi_part_of(job, row) : NULL;
    int has_ended = part && part->has_ended;
    int status = job->loaded[row] ? QPI_OK
                 : job->refused.status ? qpi_fail_as(&job->refused)
                 : has_ended ? (part->failure.status ? qpi_fail_as(&part->failure) : QPI_OK)
                             : qpi_fail(QPI_PENDING, "qpi_wait", "row %zu has not ended", row);
    qpi_unlock(job->shared);
    return status;
}

int qpi_row_status(qpi_job *job, size_t row)
{
    if (row >= job->rows)
        return qpi_fail(QPI_OPTION, NULL, "row %zu of %zu", row, job->rows);
    int status = status_of(job, row);
    if (status == QPI_PENDING) {
        qpi_job_look(job);
        status = status_of(job, row);
        qpi_lock(job->shared);
        if (status == QPI_PENDING && job->look.status)
            status = qpi_fail_as(&job->look);
        qpi_unlock(job->shared);
    }
    return status;
}

/* A row does not change once it is here. */
static int open_row(qpi_job *job, size_t row, const Row **found)
{
    TRY(qpi_row_status(job, row));
    TRY(qpi_job_load(job, row));
    qpi_lock(job->shared);
    *found = job->loaded[row];
    qpi_unlock(job->shared);
    return QPI_OK;
}

static int fail_absent(const char *what)
{
    return qpi_fail(QPI_NO_DATA, "name it in qpi_options.outputs", "the result has no %s", what);
}

static int entry(const Outcome *outcomes, size_t size, size_t index, char *bits, size_t capacity,
                 double *value)
{
    if (index >= size)
        return qpi_fail(QPI_OPTION, NULL, "outcome %zu of %zu", index, size);
    size_t bytes = strlen(outcomes[index].bits) + 1;
    if (bytes > capacity)
        return qpi_fail(QPI_LIMIT, NULL, "an outcome needs %zu bytes, there are %zu", bytes,
                        capacity);
    memcpy(bits, outcomes[index].bits, bytes);
    *value = outcomes[index].value;
    return QPI_OK;
}

int qpi_counts_size(qpi_job *job, size_t row, size_t *outcomes)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    *outcomes = found->num_counts;
    return found->has_counts ? QPI_OK : fail_absent("counts");
}

int qpi_counts_entry(qpi_job *job, size_t row, size_t index, char *bits, size_t capacity,
                     uint64_t *count)
{
    const Row *found;
    double value;
    TRY(open_row(job, row, &found));
    if (!found->has_counts)
        return fail_absent("counts");
    TRY(entry(found->counts, found->num_counts, index, bits, capacity, &value));
    *count = (uint64_t)value;
    return QPI_OK;
}

int qpi_probabilities_size(qpi_job *job, size_t row, size_t *outcomes)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    *outcomes = found->num_probabilities;
    return found->has_probabilities ? QPI_OK : fail_absent("probabilities");
}

int qpi_probabilities_entry(qpi_job *job, size_t row, size_t index, char *bits, size_t capacity,
                            double *probability)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    if (!found->has_probabilities)
        return fail_absent("probabilities");
    return entry(found->probabilities, found->num_probabilities, index, bits, capacity,
                 probability);
}

int qpi_expectation(qpi_job *job, size_t row, size_t index, double *value, double *standard_error)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    if (!found->has_expectations)
        return fail_absent("expectation values");
    if (index >= found->num_expectations)
        return qpi_fail(QPI_OPTION, NULL, "observable %zu of %zu", index, found->num_expectations);
    *value = found->expectations[2 * index];
    *standard_error = found->expectations[2 * index + 1];
    return QPI_OK;
}

int qpi_statevector(qpi_job *job, size_t row, double *amplitudes, size_t capacity)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    if (!found->has_statevector)
        return fail_absent("statevector");
    if (capacity < found->num_amplitudes)
        return qpi_fail(QPI_LIMIT, NULL, "there are %zu amplitudes, and room for %zu",
                        found->num_amplitudes, capacity);
    memcpy(amplitudes, found->statevector, 2 * found->num_amplitudes * sizeof *amplitudes);
    return QPI_OK;
}

int qpi_warnings_size(qpi_job *job, size_t row, size_t *warnings)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    *warnings = found->num_warnings;
    return QPI_OK;
}

int qpi_warning(qpi_job *job, size_t row, size_t index, char *text, size_t capacity)
{
    const Row *found;
    TRY(open_row(job, row, &found));
    if (index >= found->num_warnings)
        return qpi_fail(QPI_OPTION, NULL, "warning %zu of %zu", index, found->num_warnings);
    const char *at = found->warnings.data;
    for (; index > 0; index--)
        at += strlen(at) + 1;
    if (strlen(at) >= capacity)
        return qpi_fail(QPI_LIMIT, NULL, "the warning needs %zu bytes", strlen(at) + 1);
    strcpy(text, at);
    return QPI_OK;
}
