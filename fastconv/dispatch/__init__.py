"""One call: which backend, algorithm and number of threads it gets, and the function that all calls go through.

functional, grad, nn
        |
    contract(geometry, two of {large, small, weight})
        |                 |                  |
    backends           algorithms         threads
"""
