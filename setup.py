"""Packaging of xrt_nb: every fact is read from `settings.ini`, so it stands in one place."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

suffix = "_requirements"
extras = {key.removesuffix(suffix): value.split() for key, value in cfg.items() if key.endswith(suffix)}
extras["all"] = sorted({r for name, rs in extras.items() if name not in ("dev", "docs", "active") for r in rs})
statuses = ["1 - Planning", "2 - Pre-Alpha", "3 - Alpha", "4 - Beta", "5 - Production/Stable", "6 - Mature"]
readme = here / "README.md"
package = here / cfg["lib_path"]
data = sorted(p.relative_to(package).as_posix() for p in package.rglob("*")  # py.typed, weights of networks
              if p.is_file() and p.suffix not in (".py", ".pyc", ".nbi", ".nbc"))

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="MIT",
    keywords=cfg["keywords"],
    packages=find_packages(include=["xrt_nb", "xrt_nb.*"]),
    package_data={cfg["lib_name"]: data},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split("\n"),
        "nbdev": ["{0}={0}._modidx:d".format(cfg["lib_name"])],  # lets nbdev link names in backticks to their documentation
    },
    classifiers=[
        f"Development Status :: {statuses[int(cfg['status']) - 1]}",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Astronomy",
        "Natural Language :: English",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
    ],
    zip_safe=False,
)
