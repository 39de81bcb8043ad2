"""Random draws that belong to a picture, not to a process.

Augmentation and the sampling of anchors and boxes draw from
(seed, epoch, source, image id). The result is therefore the same on any number of
processes and in any order of pictures, as eq. (1) needs: l(x_i, w) must not depend
on who computes it.
"""

import hashlib


def draw_key(seed: int, epoch: int, source: int, image_id: int, purpose: str) -> int:
    """A 63-bit seed for one purpose ("augment", "anchors", "rois") on one picture in one epoch.

    ``source`` is the position of the picture's annotation file in the list of files, so that
    equal ids of two files stay apart.
    """
    text = f"{seed}/{epoch}/{source}/{image_id}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
