"""See `cupy`."""


class OutOfMemoryError(Exception):
    """Raised as CuPy's."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,})")
