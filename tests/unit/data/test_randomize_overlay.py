"""Backgrounds found in composites of the family's own tables, exact and after compression."""

import io

import av
import numpy as np
import pytest
import torch
from assets_at import assets_root

from rlft.data.randomize.effects import find_background, majority, swap
from rlft.data.randomize.randomizer import Images

CPU = torch.device("cpu")
H, W = 168, 224


def blobs(n: int) -> torch.Tensor:
    """Where a robot and two objects would be, bool ``[n, 1, H, W]``."""
    y, x = torch.meshgrid(torch.arange(H) / H, torch.arange(W) / W, indexing="ij")
    generator, masks = torch.Generator().manual_seed(0), []
    for _ in range(n):
        a, b, c, d, e = torch.rand(5, generator=generator).tolist()
        plate = ((y - 0.4 - 0.4 * a) / 0.08) ** 2 + ((x - 0.2 - 0.6 * b) / 0.06) ** 2 < 1
        carrot = ((y - 0.4 - 0.4 * c) / 0.04) ** 2 + ((x - 0.2 - 0.6 * d) / 0.1) ** 2 < 1
        arm = ((x - 0.3 - 0.4 * e).abs() < 0.04) & (y < 0.5)
        masks.append(plate | carrot | arm)
    return torch.stack(masks)[:, None]


@pytest.fixture(scope="module")
def tables() -> Images:
    return Images("tables", assets_root() / "put_on_plate" / "more_table" / "imgs", ["*"], CPU)


@pytest.fixture(scope="module")
def composites(tables) -> tuple[torch.Tensor, torch.Tensor]:
    """One per table, and where the foreground is."""
    folder = assets_root() / "put_on_plate" / "more_table" / "textures"
    textures = Images("textures", folder, ["*"], CPU).at(H, W)
    foreground = blobs(len(tables.names))
    return torch.where(foreground, textures.flip(0), tables.at(H, W)), foreground


def av1(frames: torch.Tensor) -> torch.Tensor:
    """What datasets store with collect.save_video=true."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libsvtav1", rate=5, options={"crf": "30", "g": "2", "preset": "12"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.movedim(0, -1).numpy()), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        decoded = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(decoded).movedim(-1, 1)


@pytest.mark.parametrize(("through", "lost", "eaten"), [(torch.clone, 0.002, 0.01), (av1, 0.05, 0.005)])
def test_every_table_is_found_and_the_foreground_is_left(tables, composites, through, lost, eaten):
    """Shares over all tables: specks of the old table may stay, but the foreground may not go."""
    frames, foreground = composites
    found = find_background(through(frames), tables.at(H, W), 16)
    assert found.best.tolist() == list(range(len(tables.names)))
    assert float(found.share.min()) > 0.75
    assert float((~found.mask & ~foreground).sum() / (~foreground).sum()) <= lost
    assert float((found.mask & foreground).sum() / foreground.sum()) <= eaten


def test_a_foreground_of_nearly_the_tables_colour_stays_where_images_are_exact(tables):
    """A dark arm before a dark wall: nearer than the tolerance that compressed images need."""
    known = tables.at(H, W)
    foreground = blobs(len(tables.names))
    near = torch.where(known < 128, known + 5, known - 5)
    found = find_background(torch.where(foreground, near, known), known, 16)
    assert found.tolerance.tolist() == [2] * len(tables.names)
    assert float((found.mask & foreground).sum() / foreground.sum()) < 0.02


def test_an_images_own_tolerance_follows_its_noise_up_to_the_setting(tables):
    known = tables.at(H, W)[:4]
    noise = torch.randint(0, 2, known.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for size in (0, 1, 3, 20):
        frames = torch.where(known < 128, known + size * noise, known - size * noise)
        assert find_background(frames, known, 16).tolerance.tolist() == [min(16, 2 + 2 * size)] * 4


def test_the_swapped_image_is_the_composite_with_the_other_table(tables, composites):
    frames, foreground = composites
    known = tables.at(H, W)
    others = known.roll(1, 0)
    found = find_background(frames, known, 4)
    out, swapped = swap(frames, found, others, 0.3)
    assert torch.equal(swapped, found.mask.flatten(1).sum(1))
    wanted = torch.where(foreground, frames, others)
    assert float((out != wanted).any(1).float().mean()) < 0.002


def test_images_without_a_known_background_stay_as_they_are(tables, composites):
    frames, known = composites[0], tables.at(H, W)
    found = find_background(frames, known[:16], 4)
    unknown = torch.arange(len(frames)) >= 16
    assert torch.equal(found.share < 0.3, unknown)
    out, swapped = swap(frames, found, known.roll(1, 0), 0.3)
    assert torch.equal(swapped == 0, unknown)
    assert torch.equal((out == frames).flatten(1).all(1), unknown)


def test_the_majority_drops_single_pixels_and_keeps_areas():
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    mask[..., 2, 2] = True
    mask[..., :, 6:] = True
    mask[..., 7, 9] = False
    wanted = torch.zeros_like(mask)
    wanted[..., :, 6:] = True
    assert torch.equal(majority(mask), wanted)


def test_tables_are_resized_as_the_environments_resize_them(tables):
    from rlft_envs.images import fit_image

    folder = assets_root() / "put_on_plate" / "more_table" / "imgs"
    for name, ours in zip(tables.names, tables.at(H, W)):
        theirs = torch.from_numpy(fit_image(folder / name, H, W)).movedim(-1, 0)
        assert int((ours.int() - theirs.int()).abs().max()) <= 1, name
