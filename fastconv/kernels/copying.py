"""Copy elements, and write zeros."""

from fastconv.kernels.primitives import LANES, SIZE, Address, clear, load, move, store


def write_zeros(target: Address, count: int) -> None:
    """Write `count` zeros, and up to a vector more."""
    for i in range(0, count, LANES):
        clear(target + i * SIZE)


def copy_row(target: Address, source: Address, count: int, may_exceed: int) -> None:
    """Copy `count` elements, and with `may_exceed` up to a vector more."""
    whole = count if may_exceed else count - LANES + 1
    i = 0
    while i < whole:
        move(target + i * SIZE, source + i * SIZE)
        i += LANES
    if i < count and not may_exceed:
        if count >= LANES:  # the last vector overlaps its predecessor
            move(target + (count - LANES) * SIZE, source + (count - LANES) * SIZE)
        else:
            for rest in range(i, count):
                store(load(source + rest * SIZE), target + rest * SIZE)
