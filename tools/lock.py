#!/usr/bin/env python3
"""Write the hash locks in `requirements/` from the ranges in `settings.ini` (`make lock`).

    python tools/lock.py                 keep the versions already locked, add and drop what settings.ini says
    python tools/lock.py --upgrade       move every version to the newest one the ranges allow
    python tools/lock.py --constraint F  stay with the versions of another lock file

demo-lock.txt is what a user of the library needs; dev-lock.txt adds every extra: tests, notebooks, documentation. One lock serves
Python 3.11 to 3.13 on every system (markers choose), and both agree on every version. Needs `uv`: the one on the PATH, or
one installed into a temporary environment and thrown away.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
BUILD = ["setuptools>=77"]  # builds the project itself, offline, once it is in the environment
UV = "uv>=0.5"


def settings() -> dict:  # the [DEFAULT] section of settings.ini
    "Read `settings.ini`."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def wanted(cfg: dict) -> dict:  # {lock name: list of requirement ranges}
    "The requirements each lock has to satisfy."
    user = cfg["requirements"].split() + BUILD
    dev = sorted({r for key, value in cfg.items() if key.endswith("_requirements") for r in value.split()})
    return {"dev": user + dev, "demo": user}


def find_uv(scratch: Path) -> str:  # path of a uv program
    "The `uv` on the PATH, or a new one in the folder `scratch`."
    found = shutil.which("uv")
    if found:
        return found
    print("no uv on the PATH: installing one into a temporary environment", flush=True)
    venv.create(scratch / "uv", with_pip=True)
    folder = scratch / "uv" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([folder / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    return str(folder / "uv")


def compile_lock(
    uv: str,  # the program
    scratch: Path,  # folder for the input file, so that no path of ours gets into the lock
    requirements: list,  # ranges
    out: Path,  # lock to write
    min_python: str,  # oldest Python served
    extra: list,  # further arguments
) -> str:  # the lock's text
    "Resolve `requirements` for every system and Python from `min_python` up, with hashes."
    (scratch / "requirements.in").write_text("\n".join(requirements) + "\n")
    work = scratch / "lock.txt"
    if out.exists():
        shutil.copy(out, work)  # uv prefers the versions it finds here
    command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--no-emit-index-url", "--python-version", min_python, "--output-file", work.name, *extra, "requirements.in"]
    subprocess.run(command, check=True, cwd=scratch)
    text = work.read_text()
    work.unlink()
    return text


def check(text: str, name: str):
    "Refuse a lock that names a host or a path, or that has a requirement without a hash."
    found = re.findall(r"^.*(?:https?://|file:|(?<![\w.])/\w).*$", text, re.M)
    if found:
        sys.exit(f"{name}: a lock must not name a host or a path: {found[:3]}")
    bare = [block for block in re.split(r"\n(?=\S)", text.strip()) if not block.startswith("#") and "--hash=" not in block]
    if bare:
        sys.exit(f"{name}: no hash for {bare[:3]}")


def main():
    "Write both locks, each to a temporary name first."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="newest versions the ranges allow")
    parser.add_argument("--constraint", help="another lock whose versions to keep")
    args = parser.parse_args()
    cfg = settings()
    with tempfile.TemporaryDirectory() as tmp:
        scratch = Path(tmp)
        uv = find_uv(scratch)
        extra = ["--upgrade"] if args.upgrade else []
        if args.constraint:
            shutil.copy(args.constraint, scratch / "constraint.txt")
            extra += ["--constraint", "constraint.txt"]
        for name, requirements in wanted(cfg).items():
            out = root / "requirements" / f"{name}-lock.txt"
            text = compile_lock(uv, scratch, requirements, out, cfg["min_python"], extra)
            check(text, out.name)
            if name == "dev":  # the demo takes the same versions
                (scratch / "dev.txt").write_text(text)
                extra = ["--constraint", "dev.txt"]
            text = f"# Made by `make lock` from settings.ini; not for editing by hand.\n{text}"
            partial = out.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(out)
            print(f"requirements/{out.name}: {len(re.findall(r'^[A-Za-z0-9]', text, re.M))} pins")


if __name__ == "__main__":
    main()
