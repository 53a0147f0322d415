#!/usr/bin/env python3
"""Run one notebook as `nbdev_test` would, in this process: `python tools/run_notebook.py nbs/00_data.ipynb [FLAG ...]`.

Cells with `#| eval: false` are passed over, and so are cells with a flag of `tst_flags` in settings.ini (`#| slow`), unless
the flag is given. The notebook runs in its own folder against the library beside it. Exit status 1 and the failing cell with
its traceback on an error.
"""

import os
import sys
from pathlib import Path


def main(notebook: str, flags: list) -> int:  # exit status
    "Run `notebook`, `flags` included."
    path = Path(notebook).resolve()
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)  # nbdev finds settings.ini from here
    from nbdev.config import get_config
    from nbdev.test import test_nb

    ok, seconds = test_nb(path, skip_flags=get_config().tst_flags.split(), force_flags=flags, basepath=root)
    print(f"{path.name}: {'ran' if ok else 'FAILED'} in {seconds:.1f} s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
