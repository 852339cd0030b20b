"""Make the embedded part of Fashion-MNIST from the idx files of Debian's package dataset-fashion-mnist.

    apt-get install dataset-fashion-mnist
    python scripts/make_fashion_mnist.py

The result depends on the input files alone (and on the deflate implementation of zlib), so its SHA-256 can be compared
with `EMBEDDED_SHA256` in experiments/data/fashion_mnist.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from experiments.data import fashion_mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PER_CLASS = 500


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` entries of each class, in file order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write like `np.savez_compressed`, but with a fixed date, so that equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # else it says which operating system wrote it
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DEBIAN, help="folder of the idx files (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=fashion_mnist.EMBEDDED, help="default: %(default)s")
    arguments = parser.parse_args()
    full = fashion_mnist.load(arguments.source)
    kept = first_of_each_class(full.train_labels, PER_CLASS)
    arrays = {
        "train_images": full.train_images[kept],
        "train_labels": full.train_labels[kept].astype(np.uint8),
        "test_images": full.test_images,
        "test_labels": full.test_labels.astype(np.uint8),
    }
    write_npz(arguments.output, arrays)
    content = arguments.output.read_bytes()
    print(f"{hashlib.sha256(content).hexdigest()}  {arguments.output}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
