"""A real TAP server on this machine: DaCHS over PostgreSQL with pgSphere, private, in a folder of its own, gone when its maker is.

`with TapServer(folder, tables) as url: ...` for tests; `python tests/tap/server.py FOLDER` serves a small catalogue until Ctrl-C.
It installs nothing. On Debian the parts are `python3-gavo postgresql-15-pgsphere` (`PACKAGES`).

Both programs listen on 127.0.0.1 only, on ports the system hands out. They run as this user, or as `postgres` for root, with a clean
environment (Debian's DaCHS must not see our virtual one), and are sent a signal by the kernel if this process dies without stopping them.
"""

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from xml.sax.saxutils import quoteattr

PACKAGES = "python3-gavo postgresql-15-pgsphere"
TYPES = {"f": "double precision", "i": "integer", "b": "boolean", "U": "text"}
NO_INT = -2147483648  # how a missing integer travels


def postgres():
    "The newest PostgreSQL that has pgSphere: its programs and its extensions; None if there is none."
    found = sorted(Path("/usr/share/postgresql").glob("*/extension/pg_sphere.control"), key=lambda p: int(p.parts[4]))
    places = [(Path("/usr/lib/postgresql") / p.parts[4] / "bin", p.parent) for p in found]
    return next((p for p in reversed(places) if (p[0] / "initdb").exists()), None)


def missing():
    "Why no server can be started here; empty if one can."
    lost = [what for what, there in {"DaCHS": Path("/usr/bin/dachs").exists(), "PostgreSQL with pgSphere": postgres(), "setpriv": shutil.which("setpriv")}.items() if not there]
    return f"no TAP server here ({', '.join(lost)} not installed; on Debian: apt-get install --no-install-recommends {PACKAGES})" if lost else ""


def free_port():
    "A port nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def descriptor(tables):
    "DaCHS's description of the tables, from their own units and descriptions."
    schema = {name.split(".")[0] for name in tables}.pop()
    out = [f'<resource schema="{schema}" resdir=".">', '<meta name="title">Test tables</meta><meta name="creationDate">2026-01-01T00:00:00Z</meta>',
           '<meta name="description">Tables in the layout of the Chandra Source Catalog.</meta><meta name="subject">x-ray-sources</meta><meta name="creator">Test</meta>']
    for name, table in tables.items():
        short = name.split(".")[1]
        out.append(f'<table id="{short}" onDisk="True" adql="True"><meta name="description">{short}</meta>')
        out += [f'<index columns="{c}"/>' for c in ("name", "detect_stack_id", "obsid") if c in table.colnames]
        for c in table.columns.values():
            facts = f'name="{c.name}" type="{TYPES[c.dtype.kind]}" description={quoteattr(c.description or c.name)}' + (f' unit="{c.unit}"' if c.unit else "")
            whole = ' required="True"' if c.dtype.kind == "b" else ""
            out.append(f"<column {facts}{whole}>" + (f'<values nullLiteral="{NO_INT}"/>' if c.dtype.kind == "i" else "") + "</column>")
        out.append(f'</table><data id="import_{short}"><sources>data/{short}.csv</sources><csvGrammar/><make table="{short}"/></data>')
    return schema, "\n".join(out + ["</resource>"])


def mended_pgsphere(extensions):
    "The SQL of pgSphere for a PostgreSQL that refuses two of its operators (a commutator that is taken), with its entry among the extensions."
    text = sorted(extensions.glob("pg_sphere--[0-9.]*.sql"))[-1]
    sql = re.sub(r"^\\echo .*$", "", text.read_text(), flags=re.M).replace("MODULE_PATHNAME", "$libdir/pg_sphere")
    sql, n = re.subn(r"(CREATE OPERATOR @ \(\s*LEFTARG\s*=\s*\w+,\s*RIGHTARG\s*=\s*smoc,\s*PROCEDURE\s*=\s*\w+,)\s*COMMUTATOR\s*=\s*'@>',\s*NEGATOR\s*=\s*'!<@',", r"\1", sql)
    version = text.stem.partition("--")[2]
    return f"{sql}\nset allow_system_table_mods=on;\ninsert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) select " \
           f"pg_nextoid('pg_extension', 'oid', 'pg_extension_oid_index'), 'pg_sphere', current_user::regrole, 'public'::regnamespace, true, '{version}';\n"


class TapServer:
    "A context: starts the server, gives its address, stops it."

    def __init__(self, folder, tables, default_rows=20_000, most_rows=200_000):
        self.folder, self.tables, self.limits, self.running = Path(folder), tables, (default_rows, most_rows), []
        self.user = pwd.getpwuid(os.getuid()) if os.getuid() else pwd.getpwnam("postgres")
        self.bin, self.extensions = postgres()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def command(self, words, on_death=None):
        "A command line that runs `words` as our user with a clean environment."
        who = [f"--reuid={self.user.pw_name}", f"--regid={self.user.pw_gid}", "--init-groups"] if os.getuid() == 0 else []
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": self.folder, "USER": self.user.pw_name, "GAVOSETTINGS": self.folder / "gavo.rc",
               "GAVOCUSTOM": "/dev/null", "PGHOST": "127.0.0.1", "PGPORT": self.db_port}
        return ["setpriv", *who, *([f"--pdeathsig={on_death}"] if on_death else []), "env", "-i", *(f"{k}={v}" for k, v in env.items()), *map(str, words)]

    def run(self, *words, text=None, check=True):
        "Run a program to its end; its words are shown if it fails."
        done = subprocess.run(self.command(words), cwd=self.folder, input=text, stdin=None if text else subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done

    def keep(self, *words, log, on_death):
        "Start a program that stays."
        with open(self.folder / log, "wb") as out:
            self.running.append((subprocess.Popen(self.command(words, on_death), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True), on_death, log))

    def until(self, ready, what, seconds=60):
        "Wait until `ready()`; show the log of a program that ended before."
        end = time.monotonic() + seconds
        while not ready():
            process, _, log = self.running[-1]
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{what} did not come up:\n{(self.folder / log).read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)

    def settings(self):
        "DaCHS's configuration."
        group = grp.getgrgid(self.user.pw_gid).gr_name
        return (f"[general]\nrootDir: {self.folder}/gavo\ngroup: {group}\ngavoGroup: {group}\n"
                f"[web]\nbindAddress: 127.0.0.1\nserverPort: {self.port}\nserverURL: http://127.0.0.1:{self.port}\nuser: {self.user.pw_name}\nsitename: local test\nmaxSyncUploadSize: 20000000\n"
                f"[async]\ndefaultMAXREC: {self.limits[0]}\nhardMAXREC: {self.limits[1]}\nmaxTAPRunning: 4\n[ivoa]\nauthority: test.invalid\n")

    def start(self):
        "Make the database, load the tables, serve them; the address of the TAP service."
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.db_port = free_port(), free_port()
        if os.getuid() == 0:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        (self.folder / "gavo.rc").write_text(self.settings())
        self.run("initdb", "-D", self.folder / "db", "-U", self.user.pw_name, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        quick = [w for k in ("fsync", "synchronous_commit", "full_page_writes") for w in ("-c", f"{k}=off")]
        self.keep("postgres", "-D", self.folder / "db", "-p", self.db_port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", *quick, log="db.log", on_death="INT")
        self.until(lambda: self.run("pg_isready", "-q", check=False).returncode == 0, "PostgreSQL")
        self.run("createdb", "--encoding=UTF-8", "--template", "template0", "gavo")
        if self.run("psql", "-q", "-d", "gavo", "-c", "create extension pg_sphere", check=False).returncode:
            self.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-d", "gavo", "-f", "-", text=mended_pgsphere(self.extensions))
        self.run("dachs", "init", "-d", f"host=127.0.0.1 port={self.db_port} dbname=gavo")
        self.load()
        self.keep("dachs", "serve", "start", "-f", log="serve.log", on_death="TERM")
        self.until(self.available, "DaCHS")
        return f"http://127.0.0.1:{self.port}/tap"

    def load(self):
        "Import the tables."
        schema, text = descriptor(self.tables)
        place = self.folder / "gavo" / "inputs" / schema
        (place / "data").mkdir(parents=True)
        (place / "q.rd").write_text(text)
        for name, table in self.tables.items():
            frame = table.to_pandas()
            frame = frame.assign(**{c: frame[c].astype(int) for c in frame if frame[c].dtype == bool})
            frame.to_csv(place / "data" / f"{name.split('.')[1]}.csv", index=False)
        for path in [place, *place.rglob("*")]:
            if os.getuid() == 0:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self.run("dachs", "--suppress-log", "imp", f"{schema}/q")
        self.run("psql", "-q", "-d", "gavo", "-c", "analyze")

    def available(self):
        "Does the service answer?"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/tap/availability", timeout=5) as r:
                return r.status == 200
        except OSError:
            return False

    def stop(self):
        "End both programs, the last started first; harsher if they don't listen."
        while self.running:
            process, how, _ = self.running.pop()
            for sign, patience in ((getattr(signal, f"SIG{how}"), 15), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
                if process.poll() is None:
                    process.send_signal(sign)
                    try:
                        process.wait(patience)
                    except subprocess.TimeoutExpired:
                        continue


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from xrt_nb._standins import simulate_catalog
    if missing():
        sys.exit(missing())
    with TapServer(Path(sys.argv[1]).resolve(), simulate_catalog(2000)) as url:
        print(url, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
