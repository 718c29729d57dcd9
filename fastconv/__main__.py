"""`python -m fastconv`: the command line."""

import sys

from fastconv.cli import main

if __name__ == "__main__":  # a benchmark's processes import this module again
    sys.exit(main())
