/* A small simulator: statevector CIRCUIT SHOTS SEED prints counts as NWQ-Sim does.
 * Reads OpenQASM 2 of u3, cx and final measurements, as simenv writes it for external programs.
 * Build: cc -O2 -o statevector statevector.c -lm */
#include <complex.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double uniform(uint64_t *state) { /* splitmix64 (Steele, Lea, Flood, OOPSLA 2014) */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int main(int argc, char **argv) {
    FILE *file = argc == 4 ? fopen(argv[1], "r") : NULL;
    if (!file) return fprintf(stderr, "usage: statevector CIRCUIT SHOTS SEED\n"), 2;
    int n = 0, m = 0, qubit, other, clbit, source[26];
    size_t dim = 0;
    double complex *v = NULL;
    memset(source, -1, sizeof source);
    for (char line[256]; fgets(line, sizeof line, file);) {
        double t, p, l;
        if (sscanf(line, "qreg q[%d]", &n) == 1) {
            if (n > 26) return fprintf(stderr, "%d qubits; at most 26\n", n), 3;
            v = calloc(dim = (size_t)1 << n, sizeof *v);
            if (!v) return fprintf(stderr, "no memory for %d qubits\n", n), 3;
            v[0] = 1;
        } else if (sscanf(line, "creg c[%d]", &m) == 1) {
            if (m > 26) return fprintf(stderr, "%d clbits; at most 26\n", m), 3;
        } else if (sscanf(line, "u3(%lf,%lf,%lf) q[%d]", &t, &p, &l, &qubit) == 4) {
            double complex a = cos(t / 2), b = -cexp(I * l) * sin(t / 2);
            double complex c = cexp(I * p) * sin(t / 2), d = cexp(I * (p + l)) * cos(t / 2);
            for (size_t i = 0, bit = (size_t)1 << qubit; i < dim; i++)
                if (!(i & bit)) {
                    double complex x = v[i], y = v[i | bit];
                    v[i] = a * x + b * y;
                    v[i | bit] = c * x + d * y;
                }
        } else if (sscanf(line, "cx q[%d],q[%d]", &qubit, &other) == 2) {
            for (size_t i = 0, one = (size_t)1 << qubit, bit = (size_t)1 << other; i < dim; i++)
                if ((i & one) && !(i & bit)) {
                    double complex x = v[i];
                    v[i] = v[i | bit];
                    v[i | bit] = x;
                }
        } else if (sscanf(line, "measure q[%d] -> c[%d]", &qubit, &clbit) == 2)
            source[clbit] = qubit;
        else if (strncmp(line, "OPENQASM", 8) && strncmp(line, "include", 7))
            return fprintf(stderr, "not understood: %s", line), 4;
    }
    double *sums = calloc(dim + 1, sizeof *sums); /* the probability of all states before i */
    unsigned *counts = calloc((size_t)1 << m, sizeof *counts);
    if (!sums || !counts) return fprintf(stderr, "no memory for the outcomes\n"), 3;
    for (size_t i = 0; i < dim; i++) sums[i + 1] = sums[i] + creal(v[i] * conj(v[i]));
    uint64_t state = strtoull(argv[3], NULL, 10);
    for (long shot = 0, shots = atol(argv[2]); shot < shots; shot++) {
        double x = uniform(&state) * sums[dim];
        size_t low = 0, outcome = 0;
        for (size_t step = dim; step; step >>= 1)
            if (low + step < dim && sums[low + step] <= x) low += step;
        for (int k = 0; k < m; k++)
            if (source[k] >= 0) outcome |= (low >> source[k] & 1) << k;
        counts[outcome]++;
    }
    for (size_t i = 0; i < (size_t)1 << m; i++)
        if (counts[i]) {
            putchar('"');
            for (int k = m - 1; k >= 0; k--) putchar('0' + (int)(i >> k & 1));
            printf("\" : %u\n", counts[i]);
        }
    return 0;
}
