"""The page: `python app.py` here, or the entry point of a Hugging Face Space. `python app.py --help` lists the
options."""

from __future__ import annotations

import os
import sys

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  (on such a host it must be imported before PyTorch)

from mbtsad_core.page.launch import main

if __name__ == "__main__":
    sys.exit(main())
