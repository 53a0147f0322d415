#!/usr/bin/env python3
"""The notebooks are the source: check that everything made from them is what they make now.

    python tools/parity.py                     check all three; exit status 1 and the cure for each difference
    python tools/parity.py library notebooks   check some
    python tools/parity.py --write library     bring the library (or notebooks, readme) up to date instead

* library:   `xrt_nb/` is what `nbdev_export` writes, with nothing hand-written or left over in it; data that the
             package ships (py.typed, weights of networks) lie in `nbs/_package/` and are copied as they are
* notebooks: `nbdev_clean` would change nothing
* readme:    `README.md` and its pictures are what `nbs/index.ipynb` gives

Everything is generated in a temporary copy and compared with the working tree, so work in progress is judged as it stands,
and a check that fails, or is interrupted, has changed nothing.
"""

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import readme

SKIP = {"__pycache__", ".ipynb_checkpoints", "_proc", "_docs"}
CURE = {"library": "make export", "notebooks": "make clean-nbs", "readme": "make readme"}
TITLE = {"library": "the library is not what the notebooks export", "notebooks": "notebooks are not clean",
         "readme": "README.md is not what nbs/index.ipynb gives"}


def files_below(folder: Path) -> dict:  # {posix path relative to folder: bytes}
    "Every file below `folder`, without caches."
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not SKIP & set(p.relative_to(folder).parts))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def library_folder(root: Path) -> str:  # for example "xrt_nb"
    "The name of the generated package."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]["lib_path"]


def nbdev(folder: Path, code: str):
    "Run a line of nbdev in `folder`, in a process of its own (nbdev keeps one configuration per process)."
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"parity: nbdev failed:\n{done.stdout}{done.stderr}")


def expected(root: Path, parts: list) -> dict:  # {part: {path relative to root: bytes}}
    "What the notebooks of `root` generate, made in a temporary copy."
    made = {}
    lib = library_folder(root)
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / root.name
        shutil.copytree(root / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(*SKIP))
        shutil.copy(root / "settings.ini", copy)
        if "library" in parts:
            nbdev(copy, "from nbdev.doclinks import nbdev_export; nbdev_export()")
            shipped = files_below(copy / "nbs" / "_package")
            if code := [name for name in shipped if name.endswith((".py", ".ipynb"))]:
                sys.exit(f"parity: nbs/_package/ holds data only; code is written in notebooks: {code}")
            made["library"] = {f"{lib}/{name}": data for name, data in (files_below(copy / lib) | shipped).items()}
        if "notebooks" in parts:
            nbdev(copy, "from nbdev.clean import nbdev_clean; nbdev_clean()")
            made["notebooks"] = {f"nbs/{name}": data for name, data in files_below(copy / "nbs").items() if name.endswith(".ipynb")}
    if "readme" in parts:
        made["readme"] = readme.render(root / "nbs" / "index.ipynb")
    return made


def present(root: Path, part: str) -> dict:  # {path relative to root: bytes}
    "What `root` holds now of `part`."
    folders = {"library": [library_folder(root)], "notebooks": ["nbs"], "readme": [readme.FIGURES]}[part]
    found = {f"{folder}/{name}": data for folder in folders if (root / folder).is_dir()
             for name, data in files_below(root / folder).items()}
    if part == "notebooks":
        found = {name: data for name, data in found.items() if name.endswith(".ipynb")}
    if part == "readme" and (root / "README.md").is_file():
        found["README.md"] = (root / "README.md").read_bytes()
    return found


def differences(want: dict, have: dict) -> list:  # lines of text, [] when equal
    "Say what differs, file by file, with the beginning of each difference."
    lines = []
    for name in sorted(want.keys() | have.keys()):
        if name not in want:
            lines.append(f"{name}: no notebook makes this file")
        elif name not in have:
            lines.append(f"{name}: missing")
        elif want[name] != have[name]:
            lines.append(f"{name}: differs")
            a, b = (data.decode("utf-8", "replace").splitlines() for data in (have[name], want[name]))
            lines += [f"    {line[:160]}" for line in list(difflib.unified_diff(a, b, "as it is", "as generated", lineterm="", n=1))[:30]]
    return lines


def write(root: Path, want: dict, have: dict):
    "Make `root` hold `want` in the place of `have`; files that are right already keep their dates."
    for name in sorted(have.keys() - want.keys()):
        (root / name).unlink()
        print(f"deleted {name}")
    for name in sorted(n for n in want if have.get(n) != want[n]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(want[name])
        partial.replace(path)
        print(f"wrote {name}")


def main(argv: list = None) -> int:  # exit status
    "Check, or with `--write` bring up to date."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(CURE)}; all when none is named")
    parser.add_argument("--write", action="store_true", help="write instead of compare")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the project")
    args = parser.parse_args(argv)
    parts = args.parts or list(CURE)
    if set(parts) - set(CURE):
        parser.error(f"unknown part {sorted(set(parts) - set(CURE))}: choose from {', '.join(CURE)}")
    failed = False
    for part, want in expected(args.root, parts).items():
        have = present(args.root, part)
        if args.write:
            write(args.root, want, have)
            continue
        lines = differences(want, have)
        print(f"parity of {part}: " + ("ok" if not lines else f"FAILED, {TITLE[part]}\n" + "\n".join(lines) + f"\ncure: {CURE[part]}"))
        failed |= bool(lines)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
