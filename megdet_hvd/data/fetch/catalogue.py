"""What can be fetched, and how to know that it arrived whole."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """One file on a public server."""

    url: str
    """Where it is published."""
    checksum: str
    """``md5:…`` or ``sha256:…`` of its content; may be only the beginning of the digest."""
    size_bytes: int | None = None
    """Its size, where known."""

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[-1]

    def at(self, base_url: str | None) -> str:
        """Its address on a mirror; the path below the host stays."""
        if base_url is None:
            return self.url
        return base_url.rstrip("/") + "/" + self.url.split("//", 1)[1].split("/", 1)[1]


# The server gives no checksums. These MD5 sums stand in many public scripts alike (MLPerf's Mask
# R-CNN download, Paddle's data set list); they guard against damage, not against malice.
COCO2017 = {
    "annotations": Download(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "md5:f4bbac642086de4f52a3fdda2de5fa2c",
        252_907_541,
    ),
    "val": Download(
        "http://images.cocodataset.org/zips/val2017.zip",
        "md5:442b8da7639aecaf257c1dceb8ba8c80",
        815_585_330,
    ),
    "train": Download(
        "http://images.cocodataset.org/zips/train2017.zip",
        "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
        19_336_861_798,
    ),
}
"""The COCO 2017 zip archives, smallest first."""

# torchvision's file names carry the beginning of the SHA-256 sum.
BACKBONES = {
    ("resnet18", "IMAGENET1K_V1"): "resnet18-f37072fd.pth",
    ("resnet50", "IMAGENET1K_V1"): "resnet50-0676ba61.pth",
    ("resnet50", "IMAGENET1K_V2"): "resnet50-11ad3fa6.pth",
    ("resnet101", "IMAGENET1K_V1"): "resnet101-63fe2227.pth",
    ("resnet101", "IMAGENET1K_V2"): "resnet101-cd907fc2.pth",
}
"""torchvision's ImageNet weights by backbone and name."""


def backbone_download(backbone: str, weights: str) -> Download:
    """The weights file of a backbone; KeyError if there is none of that name."""
    name = BACKBONES[backbone, weights]
    digest = name.rsplit("-", 1)[1].removesuffix(".pth")
    return Download(f"https://download.pytorch.org/models/{name}", f"sha256:{digest}")
