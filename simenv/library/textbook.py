"""Textbook circuits: entangled states, oracles, arithmetic, and feedforward."""

import math
from collections.abc import Sequence

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Qubit

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, bits

# Fourier transform, addition and order finding.


def fourier(circuit: QuantumCircuit, qubits: Sequence[Qubit], inverse: bool = False) -> None:
    """Append the quantum Fourier transform, or its inverse, on `qubits` (the lowest first)."""
    count = len(qubits)
    gates = [
        (high, low) for high in range(count - 1, -1, -1) for low in range(high, -1, -1)
    ]  # (k, k) stands for a Hadamard, (k, j) for a controlled phase pi / 2^(k-j)
    if not inverse:
        _apply(circuit, qubits, gates, 1.0)
    for low in range(count // 2):
        circuit.swap(qubits[low], qubits[count - 1 - low])
    if inverse:
        _apply(circuit, qubits, gates[::-1], -1.0)


def _apply(
    circuit: QuantumCircuit, qubits: Sequence[Qubit], gates: Sequence[tuple[int, int]], sign: float
) -> None:
    for high, low in gates:
        if high == low:
            circuit.h(qubits[high])
        else:
            circuit.cp(sign * math.pi / 2 ** (high - low), qubits[low], qubits[high])


def fourier_adder(num_qubits: int = 14, a: int = 0x1B6D, b: int = 0x0A5C) -> Algorithm:
    """Addition of a constant in Fourier space (Draper, quant-ph/0008033), modulo 2^n. Three bits of
    a are in superposition, so eight sums are measured."""
    open_bits = (1, 6, 11)
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"qft-adder-{num_qubits}")
    for qubit in range(num_qubits):
        if qubit in open_bits:
            circuit.h(qubit)
        elif a >> qubit & 1:
            circuit.x(qubit)
    fourier(circuit, circuit.qubits)
    for qubit in range(num_qubits):
        circuit.p(2 * math.pi * b * 2**qubit / 2**num_qubits, qubit)
    fourier(circuit, circuit.qubits, inverse=True)
    circuit.measure(range(num_qubits), range(num_qubits))
    summands = [a]
    for bit in open_bits:
        summands = [value & ~(1 << bit) | flag << bit for value in summands for flag in (0, 1)]
    sums = [(value + b) % 2**num_qubits for value in summands]
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(value, num_qubits): 1 / 8 for value in sums}),
        "Draper, arXiv:quant-ph/0008033",
    )


def adder(num_bits: int = 6, a: int = 43, b: int = 21) -> Algorithm:
    """Ripple-carry addition after Cuccaro et al. (quant-ph/0410184), with b in superposition. The
    two highest bits of b are in superposition, so four sums are measured. Registers: the low half
    of a key is a, the high half a + b with its carry."""
    carry, x = QuantumRegister(1, "carry"), QuantumRegister(num_bits, "a")
    y, high = QuantumRegister(num_bits, "b"), QuantumRegister(1, "high")
    unchanged = ClassicalRegister(num_bits, "unchanged")
    total = ClassicalRegister(num_bits + 1, "total")
    circuit = QuantumCircuit(carry, x, y, high, unchanged, total, name=f"adder-{2 * num_bits + 2}")
    for bit in range(num_bits):
        if a >> bit & 1:
            circuit.x(x[bit])
        if bit >= num_bits - 2:
            circuit.h(y[bit])
        elif b >> bit & 1:
            circuit.x(y[bit])
    chain = [carry[0], *x]
    for bit in range(num_bits):
        circuit.cx(x[bit], y[bit])
        circuit.cx(x[bit], chain[bit])
        circuit.ccx(chain[bit], y[bit], x[bit])
    circuit.cx(x[num_bits - 1], high[0])
    for bit in reversed(range(num_bits)):
        circuit.ccx(chain[bit], y[bit], x[bit])
        circuit.cx(x[bit], chain[bit])
        circuit.cx(chain[bit], y[bit])
    circuit.measure(x, unchanged)
    circuit.measure([*y, high[0]], total)
    fixed = b % 2 ** (num_bits - 2)
    sums = [a + fixed + (top << num_bits - 2) for top in range(4)]
    answer = {bits(value, num_bits + 1) + bits(a, num_bits): 0.25 for value in sums}
    return Algorithm(
        circuit, ExpectedOutcomes(answer), "Cuccaro, Draper, Kutin, Moulton, arXiv:quant-ph/0410184"
    )


def order_finding(num_counting: int = 6) -> Algorithm:
    """Order finding of 7 modulo 15, which is 4: peaks at the multiples of 2^t / 4 (Shor's core).
    Modulo 15, multiplication by 8 rotates the four bits and x -> 15 - x inverts them; 7 = -8."""
    counting, work = QuantumRegister(num_counting, "counting"), QuantumRegister(4, "work")
    result = ClassicalRegister(num_counting, "found")
    circuit = QuantumCircuit(counting, work, result, name=f"order-finding-{num_counting + 4}")
    circuit.h(counting)
    circuit.x(work[0])
    for low in range(3):  # times 7
        circuit.cswap(counting[0], work[low], work[low + 1])
    for qubit in work:
        circuit.cx(counting[0], qubit)
    for low in range(2):  # times 7^2 = 4; 7^4 = 1 and higher powers need no gates
        circuit.cswap(counting[1], work[low], work[low + 2])
    fourier(circuit, counting, inverse=True)
    circuit.measure(counting, result)
    spacing = 2**num_counting // 4
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(k * spacing, num_counting): 0.25 for k in range(4)}),
        "Shor, arXiv:quant-ph/9508027",
    )


# Entangled states, textbook oracles, and phase estimation with and without feedforward.


def ghz(num_qubits: int = 16) -> Algorithm:
    """GHZ state: all zeros or all ones with equal probability, from one Hadamard and a chain of
    CX."""
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"ghz-{num_qubits}")
    circuit.h(0)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure(range(num_qubits), range(num_qubits))
    return Algorithm(
        circuit,
        ExpectedOutcomes({"0" * num_qubits: 0.5, "1" * num_qubits: 0.5}),
        "Greenberger, Horne, Zeilinger, arXiv:0712.0921",
    )


def w_state(num_qubits: int = 10) -> Algorithm:
    """W state: exactly one qubit is 1, each with equal probability, from controlled rotations.
    After step k the excitation has stayed on qubit k with probability 1 / num_qubits, so the
    rotation passes on the share (left - 1) / left of the excitation, where `left` qubits remain."""
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"w-{num_qubits}")
    circuit.x(0)
    for qubit in range(num_qubits - 1):
        left = num_qubits - qubit
        circuit.cry(2 * math.acos(math.sqrt(1 / left)), qubit, qubit + 1)
        circuit.cx(qubit + 1, qubit)
    circuit.measure(range(num_qubits), range(num_qubits))
    answer = {bits(1 << k, num_qubits): 1 / num_qubits for k in range(num_qubits)}
    return Algorithm(
        circuit, ExpectedOutcomes(answer), "Duer, Vidal, Cirac, arXiv:quant-ph/0005115"
    )


def bernstein_vazirani(secret: int = 0b101101110101, num_bits: int = 12) -> Algorithm:
    """Bernstein-Vazirani algorithm: one query finds the secret of f(x) = secret . x (mod 2)."""
    circuit = QuantumCircuit(num_bits + 1, num_bits, name=f"bernstein-vazirani-{num_bits}")
    circuit.x(num_bits)
    circuit.h(range(num_bits + 1))
    for bit in range(num_bits):
        if secret >> bit & 1:
            circuit.cx(bit, num_bits)
    circuit.h(range(num_bits))
    circuit.measure(range(num_bits), range(num_bits))
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(secret, num_bits): 1.0}),
        "Bernstein, Vazirani, SIAM J. Comput. 26, 1411 (1997)",
    )


def simon(secret: int = 0b10110, num_bits: int = 5) -> Algorithm:
    """Simon's algorithm for f(x) = f(x ^ secret): only y with y . secret = 0 (mod 2) occur, equally
    likely. The oracle copies x and, if x has the secret's lowest bit, adds the secret: it is
    two-to-one."""
    x, y = QuantumRegister(num_bits, "x"), QuantumRegister(num_bits, "y")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(x, y, result, name=f"simon-{num_bits}")
    lowest = (secret & -secret).bit_length() - 1
    circuit.h(x)
    circuit.cx(x, y)
    for bit in range(num_bits):
        if secret >> bit & 1:
            circuit.cx(x[lowest], y[bit])
    circuit.h(x)
    circuit.measure(x, result)
    answer = {
        bits(value, num_bits): 2.0 / 2**num_bits
        for value in range(2**num_bits)
        if (value & secret).bit_count() % 2 == 0
    }
    return Algorithm(circuit, ExpectedOutcomes(answer), "Simon, SIAM J. Comput. 26, 1474 (1997)")


PHASE = 0.2837  # of a turn; no multiple of 2^-8, so that the distribution has a width


def kernel(phase: float, num_bits: int) -> ExpectedOutcomes:
    """Outcome distribution of phase estimation: P(k) = (sin(pi N d) / (N sin(pi d)))^2 with N =
    2^num_bits, d = phase - k / N."""
    size = 1 << num_bits

    def probability(k: int) -> float:
        distance = phase - k / size
        if abs(math.sin(math.pi * distance)) < 1e-15:
            return 1.0
        amplitude = math.sin(math.pi * size * distance) / (size * math.sin(math.pi * distance))
        return amplitude * amplitude

    return ExpectedOutcomes({bits(k, num_bits): probability(k) for k in range(size)})


def phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Algorithm:
    """Phase estimation of the eigenvalue exp(2 pi i phase) of a phase gate, to `num_bits` binary
    places."""
    counting, eigenstate = QuantumRegister(num_bits, "counting"), QuantumRegister(1, "eigenstate")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(counting, eigenstate, result, name=f"phase-estimation-{num_bits + 1}")
    circuit.h(counting)
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.cp(2 * math.pi * phase * 2**bit, counting[bit], eigenstate[0])
    fourier(circuit, counting, inverse=True)
    circuit.measure(counting, result)
    return Algorithm(
        circuit,
        kernel(phase, num_bits),
        "Cleve, Ekert, Macchiavello, Mosca, arXiv:quant-ph/9708016",
    )


def iterative_phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Algorithm:
    """Phase estimation with two qubits: each measured bit rotates the qubit before the next
    measurement. The lowest bit is measured first; if bit j was 1, the phase before the measurement
    of bit k is reduced by pi / 2^(k-j) (the semiclassical Fourier transform of Griffiths and Niu).
    The distribution is that of `phase_estimation`."""
    probe, eigenstate = QuantumRegister(1, "probe"), QuantumRegister(1, "eigenstate")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(probe, eigenstate, result, name=f"iterative-phase-{num_bits}")
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.reset(probe)
        circuit.h(probe)
        circuit.cp(2 * math.pi * phase * 2 ** (num_bits - 1 - bit), probe[0], eigenstate[0])
        for earlier in range(bit):
            with circuit.if_test((result[earlier], 1)):
                circuit.p(-math.pi / 2 ** (bit - earlier), probe[0])
        circuit.h(probe)
        circuit.measure(probe[0], result[bit])
    return Algorithm(circuit, kernel(phase, num_bits), "Griffiths, Niu, arXiv:quant-ph/9511007")


# Circuits with feedforward: teleportation and error correction.


def teleportation(theta: float = 1.1, phi: float = 0.7) -> Algorithm:
    """Teleportation of a state by two classical bits; the inverse of its preparation must then give
    0."""
    qubits = QuantumRegister(3, "q")
    x_bit, z_bit = ClassicalRegister(1, "x"), ClassicalRegister(1, "z")
    arrived = ClassicalRegister(1, "arrived")
    circuit = QuantumCircuit(qubits, z_bit, x_bit, arrived, name="teleportation-3")
    circuit.ry(theta, 0)
    circuit.rz(phi, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure(qubits[0], z_bit[0])
    circuit.measure(qubits[1], x_bit[0])
    with circuit.if_test((x_bit, 1)):
        circuit.x(2)
    with circuit.if_test((z_bit, 1)):
        circuit.z(2)
    circuit.rz(-phi, 2)
    circuit.ry(-theta, 2)
    circuit.measure(qubits[2], arrived[0])
    return Algorithm(
        circuit,
        ExpectedOutcomes({"0" + pair: 0.25 for pair in ("00", "01", "10", "11")}),
        "Bennett et al., Phys. Rev. Lett. 70, 1895 (1993)",
    )


def repetition_code(rounds: int = 3, theta: float = 0.6) -> Algorithm:
    """Three-qubit bit-flip code that holds |1>; every data qubit is rotated by rx(theta) each
    round. Each round measures two parities, corrects the qubit that they indicate and resets the
    ancillas, so the final data bits agree; the probability that they agree on 0 is
    `_logical_flip`."""
    data, ancillas = QuantumRegister(3, "data"), QuantumRegister(2, "ancilla")
    syndromes = [ClassicalRegister(2, f"syndrome{k}") for k in range(rounds)]
    final = ClassicalRegister(3, "final")
    circuit = QuantumCircuit(data, ancillas, *syndromes, final, name=f"repetition-code-{rounds}x")
    circuit.x(data)
    for syndrome in syndromes:
        circuit.rx(theta, data)
        circuit.cx(data[0], ancillas[0])
        circuit.cx(data[1], ancillas[0])
        circuit.cx(data[1], ancillas[1])
        circuit.cx(data[2], ancillas[1])
        circuit.measure(ancillas, syndrome)
        circuit.reset(ancillas)
        for value, guilty in ((1, 0), (3, 1), (2, 2)):
            with circuit.if_test((syndrome, value)):
                circuit.x(data[guilty])
        circuit.barrier()
    circuit.measure(data, final)
    flipped = _logical_flip(rounds, theta)
    return Algorithm(
        circuit,
        ExpectedOutcomes({"000": flipped, "111": 1 - flipped}, width=3),
        "Peres, Phys. Rev. A 32, 3266 (1985)",
    )


def _logical_flip(rounds: int, theta: float) -> float:
    """Return the probability that the logical bit has flipped, with the coherence between rounds.
    With c = cos(theta/2), s = sin(theta/2), measurement and correction leave one of four operators
    on the logical qubit: c^3 + i s^3 X (no qubit indicated), or -i c^2 s - c s^2 X (each qubit)."""
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    identity, flip = np.eye(2), np.array([[0, 1], [1, 0]])
    quiet = c**3 * identity + 1j * s**3 * flip
    accused = -1j * c**2 * s * identity - c * s**2 * flip
    state = np.diag([0.0, 1.0]).astype(complex)
    for _ in range(rounds):
        state = quiet @ state @ quiet.conj().T + 3 * accused @ state @ accused.conj().T
    return float(state[0, 0].real)
