"""The contact sheet: what randomisation makes of images, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torchvision's own name for it
from torchvision.utils import make_grid

from rlft.placement import to_host

COLUMNS, TILE, GAP = 6, 128, 2  # images in a line; the longer side of one and the room around it, pixels
MARGIN, LINE = 64, 16  # for the lines' names, for a camera's name


def write_sheet(path: Path, cameras: Sequence[tuple[str, Tensor, Sequence[Tensor]]]) -> None:
    """Write a PNG: per camera a line of original images, and below each what became of it.

    ``cameras`` gives name, uint8 ``[n, 3, h, w]`` originals, and one such tensor per line of variants, the first of
    which is what the policy sees. The first six rows are shown.
    """
    from PIL import Image, ImageDraw

    lines = [
        (name if i == 0 else "", "original" if i == 0 else "seen" if i == 1 else "other draw", _line(x[:COLUMNS]))
        for name, before, variants in cameras
        for i, x in enumerate((before, *variants))
        if len(before)
    ]
    if not lines:
        return
    size = MARGIN + max(x.shape[2] for *_, x in lines), sum(x.shape[1] + (LINE if name else 0) for name, _, x in lines)
    page, y = Image.new("RGB", size, "white"), 0
    pen = ImageDraw.Draw(page)
    for name, label, line in lines:
        if name:
            pen.text((2, y + 2), name, fill="black")
            y += LINE
        pen.text((2, y + line.shape[1] // 2 - 6), label, fill="black")
        page.paste(TF.to_pil_image(line), (MARGIN, y))
        y += line.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial, format="PNG", optimize=True)
    partial.replace(path)


def _line(frames: Tensor) -> Tensor:
    """Images side by side, uint8 ``[3, h + 2 gap, n (w + gap) + gap]`` on the CPU."""
    scale = TILE / max(frames.shape[-2:])
    small = TF.resize(to_host(frames), [max(1, round(side * scale)) for side in frames.shape[-2:]])
    return make_grid(small, nrow=COLUMNS, padding=GAP, pad_value=255)
