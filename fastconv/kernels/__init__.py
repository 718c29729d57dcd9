"""The kernels: the code of each pass, written once for both compiled engines.

abi            the tables of register tiles that both engines are compiled from
arguments      the structures that the arguments of passes are made of
primitives     the micro-kernels and memory operations that each engine brings
spectra        those that work on spectra
drivers        a module for each family of passes: loops over blocks, packing, calls of micro-kernels
work_items     the images, results, rows and columns of a work item
pack_source    copies a strip of the source into a padded tile
pack_weight    packs the weight for vectors of results
pack_panel     copies the pixels that each tap reads into a panel
pack_taps      the same with a lane for each tap
lane_tile      packs the source into a padded tile with a lane for each channel
lanes          converts maps to vectors with a lane for each channel, and back
along_row      sums a row of outputs of a depthwise kernel
toom_cook      the matrices of Winograd's convolution, from which micro-kernels are generated
fourier        Fourier transforms, from which micro-kernels are generated
store          writes finished sums to the output; the epilogue

Drivers are plain Python over integers. The Numba engine compiles these functions as they are, and replaces the declared
primitives by its own. For the Cython engine, `_cython/printer.py` prints them as C when the package is built.

A function that returns a structure reads a row of a table of such structures. It is declared next to the structure and
has no body, as the engines generate it.

A driver uses: integers, addresses (integers that count bytes), elements, structures; assignments, `for ... in range`,
`while`, `if`, `return`; arithmetic, comparisons, `min` and `max`. `//` and `%` take non-negative numbers only;
`primitives.floor_div` takes others. Nothing here imports more than the standard library, as the build runs it.
"""

import time

#: When the kernels were imported, in seconds since the epoch. A file that is newer may differ from the code that runs.
IMPORTED_AT = time.time()
