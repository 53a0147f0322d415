"""A process that has imported what nearly every notebook imports, and forks itself for each notebook it is asked to run.

Importing numpy, pandas, astropy, scikit-learn and the like takes seconds of computing, and there are dozens of notebooks.
None of our own modules is imported before the fork, nor pyplot, keras or anything optional: these a notebook finds as in a
process that it started itself.

    with Forks() as forks:
        code, said = forks.run(notebook, environment, timeout=600)
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"
COMMON = """nbdev.test fastcore.test IPython.display matplotlib.figure matplotlib.backends.backend_agg numba openTSNE pandas
pyarrow.parquet scipy.optimize scipy.sparse scipy.spatial scipy.special scipy.stats sklearn.cluster sklearn.decomposition
sklearn.ensemble sklearn.manifold sklearn.neighbors sklearn.pipeline sklearn.preprocessing astropy.coordinates astropy.io.fits
astropy.stats astropy.table astropy.time astropy.timeseries astropy.units astropy.wcs jinja2""".split()


class Forks:
    "The client's side; for a `with` block."

    def __enter__(self):
        command = [sys.executable, str(Path(__file__).resolve())]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        return self

    def __exit__(self, *_):
        self.server.stdin.close()  # the server ends with its input
        self.server.wait(60)
        self.server.stdout.close()

    def run(self, notebook, environment, *flags, timeout=600):
        "Run a notebook in a fork: its exit status (minus the signal that ended it), and what it printed."
        with tempfile.TemporaryDirectory() as folder:
            said = Path(folder) / "said"
            asked = {"words": [str(notebook), *flags], "environment": environment, "said": str(said)}
            self.server.stdin.write(json.dumps(asked) + "\n")
            child = int(self._line(60, "no fork"))
            try:
                code = int(self._line(timeout, f"{notebook} takes longer than {timeout} s"))
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                self._line(60, "the fork does not end")
                raise
            return code, said.read_text(encoding="utf-8", errors="replace")

    def _line(self, seconds, otherwise):
        if not select.select([self.server.stdout], [], [], seconds)[0]:
            raise TimeoutError(otherwise)
        return self.server.stdout.readline()


def child(asked):
    "What the fork does: what `python tools/run_notebook.py NOTEBOOK` would, with an environment and files of its own."
    os.setsid()
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None  # chosen anew, from the environment
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, asked["said"], os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(path, mode), number)
    os.dup2(1, 2)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(k, "rw"[k > 0], closefd=False) for k in range(3))
    import run_notebook
    sys.argv = [run_notebook.__file__, *asked["words"]]
    sys.modules["__main__"].__file__ = run_notebook.__file__  # what processes of the notebook's own import
    return run_notebook.main(asked["words"][0], asked["words"][1:])


def serve():
    "Import, then fork for each line of the input: one line with the fork's number, another with its exit status."
    for name in COMMON:
        importlib.import_module(name)
    sys.path.insert(0, str(TOOLS))
    gc.freeze()  # what is there now is for ever, so no collection in a fork touches, and thereby copies, it
    for line in sys.stdin:
        number = os.fork()
        if not number:
            code = 70
            try:
                code = child(json.loads(line))
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
