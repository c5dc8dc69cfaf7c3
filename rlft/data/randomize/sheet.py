"""The contact sheet: what randomisation makes of pictures, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlft.data.randomize.pictures import resize
from rlft.placement import to_host, to_numpy

COLUMNS = 6
TILE = 128  # the longer side of a picture on the sheet, pixels
GAP, MARGIN, LINE = 4, 64, 16  # between pictures, for the lines' names, for a camera's name


def write_sheet(path: Path, cameras: Sequence[tuple[str, Tensor, Sequence[Tensor]]]) -> None:
    """Write a PNG: per camera a line of original pictures, and below each what became of it.

    Args:
        path: the file; replaced where it is there.
        cameras: name, uint8 ``[n, 3, h, w]`` originals, and one such tensor per line of variants, the first of which
            is what the policy sees. The first six rows are shown.
    """
    from PIL import Image, ImageDraw

    blocks = [
        (name, [_tiles(x[:COLUMNS]) for x in (before, *variants)]) for name, before, variants in cameras if len(before)
    ]
    if not blocks:
        return
    width = MARGIN + max(lines[0].shape[1] for _, lines in blocks)
    height = sum(LINE + sum(line.shape[0] + GAP for line in lines) for _, lines in blocks)
    page = Image.new("RGB", (width, height), "white")
    pen, y = ImageDraw.Draw(page), 0
    for name, lines in blocks:
        pen.text((2, y + 2), name, fill="black")
        y += LINE
        for i, line in enumerate(lines):
            label = "original" if i == 0 else "seen" if i == 1 else "other draw"
            pen.text((2, y + line.shape[0] // 2 - 6), label, fill="black")
            page.paste(Image.fromarray(to_numpy(line)), (MARGIN, y))
            y += line.shape[0] + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial, format="PNG", optimize=True)
    partial.replace(path)


def _tiles(frames: Tensor) -> Tensor:
    """Pictures side by side, uint8 ``[h, n (w + gap), 3]`` on the CPU."""
    h, w = frames.shape[-2:]
    scale = max(h, w) / TILE
    small = to_host(resize(frames, max(1, round(h / scale)), max(1, round(w / scale))))
    gap = torch.full((*small.shape[:3], GAP), 255, dtype=torch.uint8)
    return torch.cat([torch.cat([one, space], dim=2) for one, space in zip(small, gap)], dim=2).permute(1, 2, 0)
