"""See `cupy`."""


class CUDADriverError(RuntimeError):
    """Raised as CuPy's."""
