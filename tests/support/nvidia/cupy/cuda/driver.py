"""See `cupy`."""


class CUDADriverError(Exception):
    """Raised as CuPy's."""
