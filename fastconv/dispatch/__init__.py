"""The floor of choice: which backend, which algorithm, how many threads, and the one waist that all calls go through.

functional, grad, nn
        |
    contract(geometry, two of {large, small, weight})
        |                 |                  |
    backends           algorithms         threads
"""
