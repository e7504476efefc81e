"""The arrays of a result: which type and shape each has, whoever writes or reads a file of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1  # of the files: names, types and attributes


def outcomes(rows: bytes | memoryview, width: int) -> NDArray[np.unsignedinteger[Any]]:
    """Packed outcomes as uint8/16/32/64 [k], or uint8 [k, width] beyond 64 clbits."""
    import numpy as np

    if width in (1, 2, 4, 8):
        return np.frombuffer(rows, np.dtype(f"<u{width}"))
    return np.frombuffer(rows, np.uint8).reshape(-1, max(1, width))


def numbers(values: bytes | memoryview, kind: str, *shape: int) -> NDArray[Any]:
    """Packed numbers of that type; `shape` may hold one -1."""
    import numpy as np

    return np.frombuffer(values, np.dtype(kind)).reshape(*(shape or (-1,)))
