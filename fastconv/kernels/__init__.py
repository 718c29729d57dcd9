"""The kernels: what a pass over an image does, written once for both compiled engines.

abi            tables of register tiles that both engines are made from
arguments      the arguments of each pass, as small structures
primitives     the micro-kernels and memory operations that each engine brings
drivers        one module for each pass: loops over blocks, packing, calls of micro-kernels
work_items     which part of a problem a work item is
pack_source    copies a strip of the source into a padded tile
pack_weight    packs the weight for vectors of results
pack_panel     copies the pixels of a register tile, one tap behind the other
lanes          between maps and vectors with a lane for each channel
store          writes finished sums to the output; the epilogue

Drivers are plain Python over integers. The Numba engine compiles these functions as they are, with its own primitives
in place of the declared ones. For the Cython engine, `_cython/printer.py` prints them as C when the package is built.

A function that returns a structure reads a row of a table of such structures. It is declared beside the structure and
has no body, as the engines know how to read it.

A driver uses: integers, addresses (integers that count bytes), elements, structures; assignments, `for ... in range`,
`while`, `if`, `return`; arithmetic, comparisons, `min` and `max`. `//` and `%` take non-negative numbers only;
`primitives.floor_div` takes others. Nothing here imports more than the standard library, as the build runs it.
"""
