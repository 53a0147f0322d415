"""What the fuzzers of catalogs call: read a kept answer; ask a service that sends exactly these bytes."""
import hashlib
import socket
import threading
from pathlib import Path

from xrt_nb._http import polite_get, polite_session
from xrt_nb._votable import read_answer
from xrt_nb.catalogs import Tap, TapService


def digest(table):
    "Everything about a table in one text."
    cells = [[c.name, str(c.unit), c.dtype.kind, c.tolist()] for c in table.columns.values()]
    return f"{len(table)} rows {hashlib.sha256(repr(cells).encode()).hexdigest()}"


def answer(path):
    "The table and the status of a VOTable."
    table, short = read_answer(Path(path).read_bytes(), Path(path).name)
    return digest(table), short


class Raw:
    "A server that answers every request with the same bytes, whatever they are, and closes."
    def __init__(self, data):
        self.data, self.door = data, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def serve(self):
        while True:
            try: line, _ = self.door.accept()
            except OSError: return
            with line:
                line.settimeout(2)
                try:
                    told = line.recv(1 << 16)
                    while b"\r\n\r\n" not in told and (more := line.recv(1 << 16)): told += more
                    line.sendall(self.data(told) if callable(self.data) else self.data)
                except OSError: pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()
        self.thread.join()


def _asked(path, mode):
    with Raw(Path(path).read_bytes()) as server, polite_session(retries=0, timeout=(2, 2), whole=True) as session:
        tap = Tap(TapService(f"{server.url}/{Path(path).name}", mode=mode, wait=0.5, session=session), cache=False)
        return digest(tap.ask("SELECT name FROM t"))


def asked(path): return _asked(path, "sync")


def job(path): return _asked(path, "async")


def page(path):
    with Raw(Path(path).read_bytes()) as server:
        return len(polite_get(f"{server.url}/{Path(path).name}", retries=0, timeout=(2, 2)).content)
