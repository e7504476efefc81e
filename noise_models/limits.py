"""Factors of noise components that are too large for a physical channel."""

from __future__ import annotations

from collections.abc import Iterable

from noise_models.build.device_model import DeviceModel
from noise_models.build.gate_noise import largest_parameter
from noise_models.model import NoiseModel

_Values = Iterable[tuple[str, float]]  # (place, value / limit), without the factor


def limited(model: NoiseModel) -> tuple[str, ...]:
    """Return one text for each component whose factor scales a value above its physical limit, and
    one for replaced times with T2 > 2 T1.

    The model uses the limit for such a value. All qubits and gates of the device count, not only
    those that a circuit uses.
    """
    if not isinstance(model, DeviceModel):
        return ()  # a custom model has no such factors
    results = [
        _text(component, model.options.factor(component), values)
        for component, values in _components(model)
        if model.options.factor(component) > 1.0
    ]
    if model.snapshot.correlated_readout:
        factor = model.options.factor("qubit.correlated_readout")
        if factor > 1.0:
            results.append(f"qubit.correlated_readout * {factor:g} acts as 1: as it was measured")
    results.append(_dephasing_limit(model))
    return tuple(text for text in results if text)


def _dephasing_limit(model: DeviceModel) -> str:
    """Return the text for replaced times with T2 > 2 T1; "" if there are none."""
    names = [name for name, _ in model.options.values if name in ("qubit.t1_us", "qubit.t2_us")]
    above = [
        k
        for k, each in enumerate(model.snapshot.qubits)
        if each.t1_us and each.t2_us and each.t2_us > 2.0 * each.t1_us * (1.0 + 1e-12)
    ]
    if not names or not above:
        return ""
    more = f" and {len(above) - 1} more" if len(above) > 1 else ""
    return f"{' and '.join(names)}: T2 is above 2 T1 for qubit {above[0]}{more}; 2 T1 acts there"


def _components(model: DeviceModel) -> Iterable[tuple[str, _Values]]:
    """Iterate over the components with their values relative to the largest physical value."""
    qubits = list(enumerate(model.snapshot.qubits))
    yield "gate.depolarizing", _parameters(model)
    yield "qubit.thermal", ((f"qubit {k}", each.excited or 0.0) for k, each in qubits)
    yield "qubit.preparation", ((f"qubit {k}", model.preparation_error(k)) for k, _ in qubits)
    yield "qubit.reset", ((f"qubit {k}", each.reset_error or 0.0) for k, each in qubits)
    yield (
        "qubit.readout",
        ((f"qubit {k}", max(each.confusion or (0.0, 0.0))) for k, each in qubits),
    )


def _parameters(model: DeviceModel) -> _Values:
    """Iterate over the depolarizing parameters of the gates, relative to the largest one."""
    sizes = {gate.name: gate.num_qubits for gate in model.snapshot.native_gates}
    factor = model.options.factor("gate.depolarizing")
    for gate in model.snapshot.gates:
        size = len(gate.qubits) or sizes.get(gate.name, 0)
        side, error = 1 << size, gate.error or 0.0
        if size not in (1, 2) or not 0.0 < error < side / (side + 1):
            continue  # no error, or a gate that does not work
        # Cheap upper bound: the parameter is at most error d / (d - 1).
        if error * side / (side - 1) * factor <= largest_parameter(size):
            continue
        qubits = gate.qubits or tuple(range(size))
        place = ", ".join(map(str, gate.qubits)) or "all qubits"
        yield f"{gate.name} on {place}", model.rest(gate, qubits) / largest_parameter(size)


def _text(component: str, factor: float, values: _Values) -> str:
    """Return the text for a component; "" if all scaled values are within the limit."""
    above = [place for place, value in values if value * factor > 1.0 + 1e-12]
    if not above:
        return ""
    more = f" and {len(above) - 1} more" if len(above) > 1 else ""
    return (
        f"{component} * {factor:g} is above the physical limit for {above[0]}{more}; the limit"
        " acts there"
    )
