"""C sources, compiled when first needed and kept in the user's cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_FLAGS = [
    *("-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC"),
]


def cpuinfo() -> str:
    """Models and flags of the processors, which ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return " ".join(os.uname()) if hasattr(os, "uname") else sys.platform
    return "".join(sorted({x for x in lines if x.startswith(("vendor", "model name", "flags"))}))


def build(sources: Sequence[Path], folder: Path, compiler: str) -> Path:
    """Compile a library, unless ``folder`` has it already.

    Args:
        sources: Files that are compiled as one: the later ones use the earlier ones' functions.
        folder: Where compiled libraries are kept.
        compiler: The C compiler's command.

    Returns:
        The shared library. Its name depends on the sources, the compiler and the processor.

    Raises:
        OSError: If the compiler cannot be run or fails, or the folder cannot be written.
    """
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    text = "".join([source, compiler, *_FLAGS, cpuinfo()])
    name = f"{sources[0].stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
    library = folder / name
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, "-o", name, "-x", "c", "-", "-lm"]
        done = subprocess.run(
            command, input=source, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
        # Renamed when complete: several processes may compile at once.
        Path(name).replace(library)
    finally:
        Path(name).unlink(missing_ok=True)
    return library


def load(sources: Sequence[Path], *, instead: str) -> ctypes.CDLL | None:
    """Compile and load a library.

    Args:
        sources: See ``build``.
        instead: What happens without it, for the message if it cannot be compiled.

    Returns:
        The library; None without a C compiler, and with ``MBRL_FLAT_KERNELS=0``.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if os.environ.get("MBRL_FLAT_KERNELS") == "0" or compiler is None:
        return None
    try:
        # Without a home folder this is a RuntimeError.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbrl_flat"
        return ctypes.CDLL(str(build(sources, cache, compiler)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{instead}: {error}\n")
        return None
