"""`python -m mbtsad_core.cli`, as launchers of several processes start it."""

import sys

from mbtsad_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
