"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder of photographs in its layout. Loads no torch.

``data.root`` has ``train/CLASS/*`` and ``val/CLASS/*``; the classes are the folders' names, sorted, so their number
comes from there. `val` is the test part, as everywhere in the literature; a validation part is held out of `train`.
"""

from __future__ import annotations

from .folder import scan
from .source import Data, DataSettings, Outline, Placement, lengths

IMAGE_SIZE = 224
# Of the training images, on the scale 0 to 1, as torchvision's reference code states them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageNet:
    """The `Source` of the images."""

    def content_hash(self, root: str | None) -> str:
        """Hash of names and some sizes, see `ImageFolder.content_hash`."""
        return scan(root).content_hash

    def outline(self, spec: DataSettings) -> Outline:
        """See `Source`."""
        from .bundle import epoch_of

        folder = scan(spec.root)
        epoch = epoch_of(folder.train.labels, len(folder.classes), **lengths(spec))
        return Outline(len(folder.classes), 3, spec.image_size or IMAGE_SIZE, *epoch)

    def open(self, spec: DataSettings, placement: Placement) -> Data:
        """See `Source`."""
        from .image_bundle import ImageBundle

        return ImageBundle(scan(spec.root), spec, placement, size=spec.image_size or IMAGE_SIZE, mean=MEAN, std=STD)
