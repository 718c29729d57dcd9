"""Long sums as chains of bounded length, whose sums are added in a fixed tree.

The rounding error of one chain of n multiply-adds grows with n: it is at most about n * eps * sum of |products|. A sum
over the pixels of a batch is therefore divided into chains of about `length` pixels. Of their sums, up to FAN_IN are
added one after the other, of these sums up to FAN_IN again, and so on, in an order that depends on their number alone.
Of m chains, the error is at most about

    (length + FAN_IN * log(m, FAN_IN)) * eps * sum of |products|

A level of the tree has one unfinished sum, which waits in the workspace if it has begun: the sums of the highest level
first, and behind them those of the chain that is computed.
"""

from typing import NamedTuple

from fastconv.kernels.abi import SUM_VECTORS
from fastconv.kernels.pack_source import copy_row
from fastconv.kernels.primitives import LANES, SIZE, Address, sum_rows

#: Sums that are added one after the other on each level.
FAN_IN = 16


class Chains(NamedTuple):
    """How the sums of a work item are divided into chains.

    length  pixels after which a chain ends; in kernels with a lane for each pixel those of one lane
    slots   sums in the workspace, at most: unfinished ones and those of a chain; 1: the only chain is written directly
    pitch   elements from one of these to the next
    """

    length: int
    slots: int
    pitch: int


def waiting(number: int) -> int:
    """How many unfinished sums wait when chain `number` begins: the digits of its number, to base FAN_IN, but for 0."""
    digits = 0
    while number > 0:
        digits += number % FAN_IN > 0
        number = number // FAN_IN
    return digits


def join_chain(sums: Address, pitch: int, count: int, number: int, is_last: int) -> None:
    """Add the `count` sums of chain `number` to those that wait on its level, and finished sums to the next level's.

    The last chain finishes all. Whole vectors are written.
    """
    slot, rest, is_finished = waiting(number), number, 1
    while slot > 0 and is_finished:
        digit = rest % FAN_IN
        if digit > 0:
            slot -= 1
            to = sums + slot * pitch * SIZE
            for first in range(0, count, SUM_VECTORS * LANES):
                columns = min(SUM_VECTORS * LANES, count - first)
                sum_rows(to + (pitch + first) * SIZE, 0, 1, columns, 0, to + first * SIZE)
        is_finished = is_last or digit == FAN_IN - 1
        rest = rest // FAN_IN


def start_chain(chains: Chains, sums: Address, out: Address, ld_out: int, count: int, number: int) -> tuple[int, int]:
    """Where chain `number` writes its sums, rows of `count` each, and the stride from one row to the next."""
    to, ld = out, ld_out
    if chains.slots > 1:
        to, ld = sums + waiting(number) * chains.pitch * SIZE, count
    return to, ld


def end_chain(
    chains: Chains, sums: Address, out: Address, ld_out: int, results: int, count: int, number: int, is_last: int
) -> None:  # fmt: skip
    """Join chain `number`, whose sums are `results` rows of `count`; the last one writes the output."""
    if chains.slots > 1:
        join_chain(sums, chains.pitch, results * count, number, is_last)
        if is_last:
            for k in range(results):
                copy_row(out + k * ld_out * SIZE, sums + k * count * SIZE, count, 0)
