#!/usr/bin/env python3
"""Makes a base image and wheels on machines that reach no image registry.

::

    the interpreter that runs this, its standard library, pip
    the closure of its libraries, the rest of glibc            --tar--> docker import --> colo-test-base:TAG
    /bin/sh and a few tools, /etc/passwd and similar

    base_image.py                  prints the name of the image
    base_image.py --wheels DIR     also fills DIR with wheels for its interpreter
    base_image.py --compiler       prints the name of an image with gcc for building, or of the first without gcc

The tag is a digest of the content, so an image that exists already is used again. The Dockerfile is then built with
`--build-arg BASE_IMAGE=NAME --build-arg BUILD_IMAGE=NAME --build-arg PIP_ARGS=--no-index` and the wheels in `./wheels`.
"""

import argparse
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from pathlib import Path

NAME = "colo-test-base"
BUILD = "colo-test-build"
PATH = "/usr/local/bin:/usr/bin"
ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "cat", "cp", "chmod", "chown", "echo", "env", "id", "ls", "mkdir", "mv", "rm", "sleep", "true")
UNUSED = {
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3"),
    *("site-packages", "dist-packages", "__pycache__"),
}
GLIBC = (
    *("libc", "libm", "libdl", "libpthread", "librt", "libutil"),
    *("libresolv", "libnss_files", "libnss_dns", "libanl"),
)
"""Wheels for manylinux may need any part of glibc, and libstdc++."""
COMPILING = {"cc1", "collect2"}
"""Programs of gcc that are in its library folders."""
BULKY = r"^lto1|lto-dump|^lib.*san\.|gold|dwp|gprofng"
"""Parts of gcc that are not needed here. They are half of its size."""
FOLDERS = ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "run", "root", "tmp")
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class Tree:
    """Files by their path in the image; `directory` symbolic links of the merged /usr are kept apart."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.links: dict[str, str] = dict(MERGED)

    def add(self, source: Path, target: str) -> None:
        """Add a file, and follow its links."""
        head, _, tail = target.lstrip("/").partition("/")
        self.files[f"{MERGED.get(head, head)}/{tail}"] = source.resolve()

    def add_compiler(self, home: str) -> bool:
        """Add gcc and its dependencies from Debian packages, and the interpreter's headers. False if missing."""
        headers = Path(sysconfig.get_path("include"))
        files = package_files("gcc", "libc6-dev")
        if not files or not (headers / "Python.h").exists():
            return False
        for path in files:
            if path.is_file() and path.parts[2:3] != ("share",) and not re.search(BULKY, path.name):
                self.add(path, str(path))
        self.add_tree(headers, f"{home}/include/{headers.name}")
        for path in Path("/usr/include").glob(f"*/{headers.name}/pyconfig.h"):
            self.add(path, str(path))
        return True

    def add_tree(self, source: Path, target: str) -> None:
        """Add a directory without the files that are not needed at run time."""
        for folder, names, files in os.walk(source):
            names[:] = sorted(name for name in names if name not in UNUSED and not name.startswith("config-"))
            for name in sorted(files):
                if not name.endswith((".pyc", ".a", ".exe")):
                    self.add(Path(folder, name), f"{target}/{Path(folder, name).relative_to(source)}")

    def digest(self) -> str:
        """Names, sizes and times of all files, and of this recipe."""
        text = [Path(__file__).read_text(encoding="utf-8")]
        for target, source in sorted(self.files.items()):
            about = source.stat()
            text.append(f"{target} {about.st_size} {about.st_mtime_ns if 'pip/' not in target else 0}")
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]

    def tar(self) -> bytes:
        """The content of the image."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name in FOLDERS:
                member = tarfile.TarInfo(name)
                member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                archive.addfile(member)
            for name, to in self.links.items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, to
                archive.addfile(member)
            for name, content in FILES.items():
                member = tarfile.TarInfo(name)
                member.mode, member.size = 0o644, len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
            for name, source in sorted(self.files.items()):
                data = source.read_bytes()
                member = tarfile.TarInfo(name)
                member.mode, member.size = 0o755 if os.access(source, os.X_OK) else 0o644, len(data)
                archive.addfile(member, io.BytesIO(data))
        return out.getvalue()


def package_files(*names: str) -> list[Path]:
    """The files of Debian packages and of all their dependencies; empty when one of them is not installed."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Provides}\t${Depends}\n"],
        capture_output=True, text=True, check=False,
    ).stdout if shutil.which("dpkg-query") else ""  # fmt: skip
    needs: dict[str, set[str]] = {}
    for line in shown.splitlines():
        status, package, provides, depends = line.split("\t")
        if status == "installed":
            for name in (package, *re.findall(r"(?:^|, )([a-z0-9.+-]+)", provides)):
                needs[name] = needs.get(name, set()) | set(re.findall(r"(?:^|[,|] )([a-z0-9.+-]+)", depends))
    wanted, found = list(names), set[str]()
    if not needs.keys() >= set(names):
        return []
    while wanted:
        name = wanted.pop()
        if name in needs and name not in found:
            found.add(name)
            wanted += needs[name]
    listed = subprocess.run(["dpkg-query", "-L", *sorted(found)], capture_output=True, text=True, check=False).stdout
    return sorted({Path(line) for line in listed.splitlines() if line.startswith("/")})


def libraries(paths: list[Path]) -> set[str]:
    """Everything that the loader would load for these files."""
    found: set[str] = set()
    for start in range(0, len(paths), 100):
        done = subprocess.run(["ldd", *paths[start : start + 100]], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE))
    return found


def collect(pip: Path, *, compiler: bool) -> Tree | None:
    """The interpreter that runs this, moved to /usr/local unless it lives in /usr; `pip` is a folder that holds pip.
    None when a compiler is required that does not exist.
    """
    tree = Tree()
    prefix = Path(sys.base_prefix)
    home = "usr" if str(prefix) == "/usr" else "usr/local"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    executable = (prefix / "bin" / version).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    tree.add(executable, f"{home}/bin/{version}")
    tree.links |= {f"{home}/bin/python3": version, f"{home}/bin/python": version}
    tree.add_tree(stdlib, f"{home}/lib/{version}")
    # Debian's interpreter looks for packages in a folder of its own.
    site = f"{home}/lib/python3/dist-packages" if home == "usr" else f"{home}/lib/{version}/site-packages"
    tree.add_tree(pip, f"{site}/pip")
    if compiler and not tree.add_compiler(home):
        return None
    for name in TOOLS:
        tool = shutil.which(name, path="/usr/bin:/bin")
        if tool:
            tree.add(Path(tool), f"/usr/bin/{name}")
    native = [
        path for target, path in tree.files.items()
        if ".so" in path.suffixes or "/bin/" in f"/{target}" or path.name in COMPILING
    ]  # fmt: skip
    needed = libraries(native)
    folder = Path(next(path for path in needed if "/libc.so" in path)).parent
    for stem in GLIBC:
        needed |= {str(path) for path in folder.glob(f"{stem}.so.*")}
    for stem in ("libstdc++", "libgcc_s"):
        for at in (folder, Path("/usr") / str(folder).lstrip("/")):
            needed |= {str(path) for path in at.glob(f"{stem}.so.?")}
    for path in needed:
        tree.add(Path(path), path)
    return tree


def base_image(*, compiler: bool = False) -> str:
    """The name of the base image, or of the one with a compiler. It is made if it does not exist."""
    with tempfile.TemporaryDirectory(prefix="colo-base-") as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True, capture_output=True)
        tree = collect(next(Path(scratch, "lib").glob("python3*/site-packages/pip")), compiler=compiler)
        if tree is None:
            return base_image()
        image = f"{BUILD if compiler else NAME}:{tree.digest()}"
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            subprocess.run(
                ["docker", "import", "--change", 'CMD ["python3"]', "--change", f"ENV PATH={PATH}", "-", image],
                input=tree.tar(), check=True, capture_output=True,
            )  # fmt: skip
    return image


def wheels(directory: Path) -> None:
    """Fill `directory` with the wheels of all dependencies and build tools for this interpreter."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    about = project["project"]
    wanted = about["dependencies"] + about["optional-dependencies"]["vote"] + project["build-system"]["requires"]
    wanted += project["tool"]["colo-proxy"]["compile-requires"]
    with tempfile.TemporaryDirectory(prefix="colo-wheels-") as scratch:
        # The folder gets a pip of its own, because the interpreter may come without one.
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True, capture_output=True)
        subprocess.run(
            [f"{scratch}/bin/python", "-m", "pip", "wheel", "--quiet", "--prefer-binary", "-w", directory, *wanted],
            check=True, capture_output=True, text=True,
        )  # fmt: skip


def main() -> None:
    """Make the image, and the wheels if requested."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheels", type=Path, metavar="DIR")
    parser.add_argument("--compiler", action="store_true")
    options = parser.parse_args()
    if options.wheels:
        wheels(options.wheels)
    sys.stdout.write(base_image(compiler=options.compiler) + "\n")


if __name__ == "__main__":
    main()
