"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder of photographs in its layout. Loads no torch.

``data.root`` holds ``train/CLASS/*`` and ``val/CLASS/*``. The sorted names of the folders are the classes, so their
number is not fixed. `val` is the test part, as everywhere in the literature; a validation part is held out of `train`.
"""

from __future__ import annotations

from .folder import scan
from .source import Data, DataSettings, Outline, Placement, lengths

IMAGE_SIZE = 224
# Of the training images, on the scale 0 to 1, as torchvision's reference code states them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageNet:
    """The `Source` of a folder of images."""

    def content_hash(self, root: str | None) -> str:
        """Return the hash of all names and some sizes, see `ImageFolder.content_hash`."""
        return scan(root).content_hash

    def outline(self, spec: DataSettings) -> Outline:
        """Describe the data of a run, see `Source.outline`."""
        from .bundle import epoch_of

        folder = scan(spec.root)
        epoch = epoch_of(folder.train.labels, len(folder.classes), **lengths(spec))
        return Outline(len(folder.classes), 3, spec.image_size or IMAGE_SIZE, *epoch)

    def open(self, spec: DataSettings, placement: Placement) -> Data:
        """Return the data of a run, see `Source.open`."""
        from .image_bundle import ImageBundle

        return ImageBundle(scan(spec.root), spec, placement, size=spec.image_size or IMAGE_SIZE, mean=MEAN, std=STD)
