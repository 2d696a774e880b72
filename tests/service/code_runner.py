"""A program that does as it is told: the code of its argument, in a sandbox."""

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
