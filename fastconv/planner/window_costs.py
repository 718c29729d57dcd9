"""The constants by which kernels of window engines (NumPy) are chosen, and their blocks."""

from typing import NamedTuple


class WindowCosts(NamedTuple):
    """Constants for window engines (NumPy), in nanoseconds, about.

    The products of blocks of channels are added up, so these decide in which order numbers are added: they are the same
    on every machine.
    """

    #: Elements of the largest matrix of a block. Larger blocks wait less often for BLAS threads to end, smaller ones
    #: stay in a smaller cache; this is the size at which layers of ResNet-50 stop gaining.
    matrix: int = 2**20
    #: Pixels that a block keeps, where it can, at the expense of channels and taps: BLAS needs a matrix to be wide, and
    #: for overlap-add to be high.
    width: int = 128
    height: int = 128
    #: The calls for a phase, or for one part of the patches (`overlap_add`).
    calls: float = 16_000
    #: Copying an element of the columns; adding an element of a patch, and besides each run of neighbours.
    copy: float = 0.7
    add: float = 3
    add_run: float = 10
    #: Elements of a cache line, which a store with a long stride touches alone.
    line: int = 16
    #: Floating-point operations of the products in a microsecond; every kernel has the same products.
    flops: float = 60_000


WINDOW_COSTS = WindowCosts()
