"""The constants of the kernel `fft` and of those in `fft_tiles`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class SpectrumCosts(NamedTuple):
    """Constants of the kernel `fft`, in nanoseconds of one thread for float32, about; float64 takes twice as long.

    They decide about tiles and about the algorithm, and so about bits: they are the same on every machine.
    """

    #: Bytes of the spectra of a block's weight, at most, and of its maps.
    spectra_bytes: int = 2**24
    #: By how much it must be quicker on one thread than kernels of tile engines to be taken, as its errors are others,
    #: and as it gains little by a second thread, where these take half of the time; and the same for window engines,
    #: whose costs are about twice the time that they take.
    margin: float = 2.0
    window_margin: float = 2.2
    #: A call, with those of NumPy's functions for a block. If it takes so many times what the multiply-adds of the
    #: definition take, nothing else is looked at.
    start: float = 150_000
    hopeless: float = 2.0
    #: A transform of a line, and besides for each of its numbers, times the logarithm of how many these are, if they
    #: are real or complex.
    line: float = 15
    real: float = 0.1
    complex: float = 0.25
    #: Copying a complex number between the transforms of rows and columns, and from there to the spectra of a block.
    between: float = 1.0
    move: float = 1.0
    #: A product of two matrices of a frequency; and besides each multiply-add of complex numbers, with the least
    #: numbers of terms and columns that take less time if they are fewer. A product that is no sum is not left to BLAS.
    call: float = 120
    multiply: float = 0.11
    fewest_terms: int = 8
    fewest_columns: int = 4
    multiply_alone: float = 1.0


COSTS = SpectrumCosts()


class TileCosts(NamedTuple):
    """Constants of the kernels of `fft_tiles`. Costs are in multiply-adds of a vector.

    They decide about the algorithm, and so about bits: they are the same on every machine.
    """

    #: Bytes of the spectra of a work item, at most, whatever the second-level cache.
    workspace: int = 17 * 2**16
    #: Transforming a tile of a length, for each vector of pixels.
    transforms: Mapping[int, float] = MappingProxyType({16: 9.0, 32: 15.0, 48: 25.0})
    #: The share of that for the inverse transform, which needs no rows beyond the outputs.
    restore: float = 0.9
    #: The same for the transform of the weight, most of whose rows are zeros; and writing a vector of it.
    weight: float = 0.7
    write: float = 13.0
    #: Reading a vector of the transformed weight in a work item; and reading or writing one, besides, if the
    #: transformed weight exceeds so many bytes.
    fetch: float = 1.5
    far: float = 12.0
    near_bytes: int = 12 * 2**20
    #: If products and transforms alone take so many times what the multiply-adds of the definition take, nothing else
    #: is looked at.
    hopeless: float = 2.0
    #: A call, besides.
    start: float = 8000.0
    #: Channels of a work item of the weight's transform, at most.
    weight_channels: int = 4
    #: For weight gradients: bytes of the spectra and sums of a work item, at most; tiles of a strip, at most, and of a
    #: chain; work items that there should be, as few threads share them; the share of a transform's cost that one of
    #: the small map has; and reading and writing a vector of sums.
    gradient_workspace: int = 15 * 2**17
    gradient_tiles: int = 32
    chain: int = 512
    gradient_items: int = 2
    small: float = 1.0
    gradient_sums: float = 6.0
    #: Bytes of the transformed weight, at most: more would not stay in a cache, and would take long to write.
    transformed_bytes: int = 2**27


TILE_COSTS = TileCosts()
