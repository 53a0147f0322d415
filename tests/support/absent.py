"A module that is not installed, for a while: `None` in `sys.modules` is how Python marks one that must not be found."
import sys
from contextlib import contextmanager


@contextmanager
def absent(*names):
    "As if these modules, and what belongs to them, were not installed."
    kept = {m: sys.modules.pop(m) for m in list(sys.modules) if m.partition(".")[0] in names}
    sys.modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names: del sys.modules[name]
        sys.modules.update(kept)
