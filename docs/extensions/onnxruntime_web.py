"""ONNX Runtime for browsers, which the digit panel of the playground runs: installed here once, copied into the site.

`python docs/extensions/onnxruntime_web.py` is a part of the installation (Makefile). It takes the package from npm, so that
neither the build of the site nor its visitor asks another host. Without npm, the site is built without the panel.
"""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # of the registry
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
FOLDER = Path(__file__).parents[2] / "build" / f"onnxruntime-web-{VERSION}"
PATIENCE = 300  # seconds for 33 MB


def installed() -> bool:
    return all((FOLDER / name).is_file() for name in FILES)


def install() -> str:
    """Install the runtime if it is missing. Returns: what prevents it, or an empty string."""
    if installed():
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        except (subprocess.SubprocessError, OSError) as error:
            return f"npm could not fetch onnxruntime-web {VERSION} ({error})"
        (archive,) = Path(folder).glob("*.tgz")
        return unpack(archive.read_bytes(), FOLDER, SHA512)


def unpack(archive: bytes, target: Path, expected: str) -> str:
    """Write FILES of a package to a new folder, all or none. Returns: what prevents it, or an empty string."""
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != expected:
        return f"onnxruntime-web {VERSION} must have the SHA-512 {expected}; got {found}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        part = Path(folder) / "part"
        part.mkdir()
        for name in FILES:
            member = tar.extractfile(f"package/dist/{name}")
            assert member is not None, f"{name} is a file of the package with this SHA-512"
            (part / name).write_bytes(member.read())
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return ""


if __name__ == "__main__":
    if reason := install():
        print(f"docs: {reason}; the site will be built without the digit panel of the playground")
