/* Sizes and offsets of the public structures, and the values of the public constants. */
#include <simenv_qpi.h>
#include <stdio.h>

#define SIZE(type) printf("%s %zu\n", #type, sizeof(type))
#define AT(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(type, field))
#define VALUE(name) printf("%s %d\n", #name, (int)(name))

int main(void)
{
    SIZE(qpi_config);
    AT(qpi_config, environment);
    AT(qpi_config, url);
    AT(qpi_config, token);
    AT(qpi_config, timeout_s);
    AT(qpi_config, patience_s);
    SIZE(qpi_device);
    AT(qpi_device, kind);
    AT(qpi_device, model);
    AT(qpi_device, num_qubits);
    AT(qpi_device, max_shots);
    SIZE(qpi_observable);
    AT(qpi_observable, coefficients);
    AT(qpi_observable, terms);
    SIZE(qpi_options);
    AT(qpi_options, shots);
    AT(qpi_options, has_seed);
    AT(qpi_options, seed);
    AT(qpi_options, outputs);
    AT(qpi_options, observables);
    AT(qpi_options, num_observables);
    AT(qpi_options, device);
    AT(qpi_options, engine);
    AT(qpi_options, single_precision);
    AT(qpi_options, priority);
    AT(qpi_options, queue_timeout_s);
    AT(qpi_options, run_timeout_s);
    AT(qpi_options, name);
    AT(qpi_options, idempotency_key);
    AT(qpi_options, noise);
    AT(qpi_options, num_noise);
    AT(qpi_options, account);
    AT(qpi_options, qos);
    AT(qpi_options, reservation);
    SIZE(qpi_noise_factor);
    AT(qpi_noise_factor, factor);
    VALUE(QPI_COUNTS);
    VALUE(QPI_PROBABILITIES);
    VALUE(QPI_STATEVECTOR);
    VALUE(QPI_EXPECTATION);
    for (int status = QPI_OK; status <= QPI_MEMORY; status++)
        printf("%d %s\n", status, qpi_status_name(status));
    return qpi_abi_version() != QPI_ABI_VERSION;
}
