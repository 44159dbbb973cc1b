"""Compiles the cores that see every frame, when a wheel is built where there is a C compiler and Python's headers.

    pip install .                               compiled where that can be, in a minute or two
    COLO_COMPILE=1 pip install .                compiled, or not at all
    COLO_COMPILE=0 pip install .                not compiled

mypyc makes C extensions from the same annotated sources that the interpreter runs otherwise. The `.py` files stay in
the wheel, so that tracebacks have their lines. An editable install is never compiled.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HOT = {
    "services": ["colo_compare/*.py", "colo_compare/tcp/*.py", "colo_compare/handover/protocol.py",
                 "colo_rewriter/*.py"],
    "proto": ["colo_proto/net/*.py", "colo_proto/chardev.py", "colo_proto/checksum.py", "colo_proto/codec.py",
              "colo_proto/core.py", "colo_proto/frame.py", "colo_proto/seq.py", "colo_proto/shard.py"],
}  # fmt: skip
COLD = {"__main__.py", "config.py", "craft.py"}
"""Entry points, what libraries inspect at run time, and what no frame passes."""

SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv.pop().split(",")
setup(name="colo-cores", packages=[], ext_modules=mypycify([*files, "--ignore-missing-imports"], debug_level="0"))
"""

GUARD = """
#include <Python.h>
static inline PyObject *colo_bytes(const char *from, Py_ssize_t size) {
    return PyBytes_FromStringAndSize(from, size < 0 ? 0 : size);
}
#define PyBytes_FromStringAndSize colo_bytes
"""
"""A slice that ends before it begins is empty; mypyc (CPyBytes_GetSlice, seen in 2.4.1) makes a SystemError of it."""


def hot(root: Path) -> dict[str, Path]:
    """The modules to compile: path in the wheel, and source."""
    found = {}
    for folder, patterns in HOT.items():
        for pattern in patterns:
            for source in sorted((root / folder).glob(pattern)):
                if source.name not in COLD:
                    found[str(source.relative_to(root / folder))] = source
    return found


def lacking() -> str:
    """What is not here and compiling needs; empty when all is."""
    if sys.implementation.name != "cpython":
        return "CPython"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        return "a C compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers (Debian: python3-dev)"
    return ""


class Compiled(BuildHookInterface[Any]):
    """Hatchling's hook."""

    PLUGIN_NAME = "custom"
    scratch: str | None = None

    def wanted(self) -> bool:
        """Is this build to be compiled? Exits when it is and cannot be."""
        choice = os.environ.get("COLO_COMPILE", "") or "auto"
        if choice not in ("0", "1", "auto"):
            sys.exit(f"COLO_COMPILE is {choice!r}: it can be 0, 1 or auto")
        if self.target_name != "wheel" or choice == "0":
            return False
        missing = lacking()
        if missing and choice == "1":
            sys.exit(f"COLO_COMPILE=1: the cores cannot be compiled without {missing}")
        return not missing

    def dependencies(self) -> list[str]:
        """What compiling needs beside hatchling; nothing otherwise."""
        if not self.wanted():
            return []
        about = tomllib.loads((Path(self.root) / "pyproject.toml").read_text())
        found: list[str] = about["tool"]["colo-proxy"]["compile-requires"]
        return found

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the extensions beside their sources."""
        if not self.wanted() or version == "editable":
            return
        root = Path(self.root)
        self.scratch = tempfile.mkdtemp(prefix="colo-compile-")
        scratch = Path(self.scratch)
        # mypyc takes a module's name from its path, so both source roots become one.
        for folder in HOT:
            shutil.copytree(
                root / folder, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.so")
            )
        (scratch / "setup.py").write_text(SETUP)
        files = ",".join(hot(root))
        self.app.display_info("compiling the cores")
        guard = scratch / "guard.h"
        guard.write_text(GUARD)
        env = os.environ | {"CFLAGS": f"{os.environ.get('CFLAGS', '')} -include {guard}"}
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", files]
        subprocess.run(command, cwd=scratch, env=env, check=True)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        for made in scratch.rglob(f"*{suffix}"):
            name = made.relative_to(scratch)
            if name.parts[0] != "build":
                build_data["force_include"][str(made)] = str(name)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take the scratch folder away."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
