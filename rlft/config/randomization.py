"""The schema's section about image randomisation. Every effect is off by default."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from rlft.config.base import SECTION, Bool, Float, Int, opt

FOLDER = "A folder of images; a relative one lies in the directory of assets."


@dataclass(config=SECTION, frozen=True)
class TextureConfig:
    """A texture that is blended over the whole image."""

    folder: str = opt(..., FOLDER)
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    ratio: Float = opt(0.3, "Largest share of the texture in the blend; drawn from 0 to this.", gt=0.0, le=1.0)


@dataclass(config=SECTION, frozen=True)
class OverlayConfig:
    """Another background, where images are composites of a known background image and a rendered foreground."""

    folder: str = opt(..., f"{FOLDER} The backgrounds to swap in.")
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    known_folder: str | None = opt(None, "The backgrounds that the environment shows; null: the same folder.")
    known_files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_length=1)
    tolerance: Int = opt(16, "Difference of a background pixel from the known one, of 255, at most.", ge=0, le=128)
    min_match: Float = opt(0.3, "An image with a smaller share of background stays as it is.", gt=0.0, le=1.0)


@dataclass(config=SECTION, frozen=True)
class DomainRandomizationConfig:
    """Images are changed before the policy sees them, in rollouts and in SFT, never in evaluations."""

    rollout: Bool = opt(True, "Change the images of rollouts.")
    sft: Bool = opt(True, "Change the images of SFT, anew for every row of every step.")
    cameras: list[str] | None = opt(None, "Whose images; null: all cameras.", min_length=1)
    per: Literal["episode", "decision"] = opt("episode", "How often rollouts draw.")
    probability: Float = opt(1.0, "Share of the draws that change an image at all.", gt=0.0, le=1.0)
    brightness: Float = opt(0.0, "Largest value added or taken away, share of the full range.", ge=0.0, le=1.0)
    contrast: Float = opt(0.0, "Largest change of the contrast's factor from 1.", ge=0.0, le=1.0)
    saturation: Float = opt(0.0, "Largest change of the saturation's factor from 1.", ge=0.0, le=1.0)
    hue: Float = opt(0.0, "Largest turn of the hue, degrees.", ge=0.0, le=180.0)
    noise: Float = opt(0.0, "Largest std of Gaussian noise, share of the full range.", ge=0.0, le=1.0)
    blur: Float = opt(0.0, "Largest std of the Gaussian blur, pixels of the camera.", ge=0.0, le=10.0)
    crop: Float = opt(0.0, "Largest share of either side that is cut off; the rest is resized back.", ge=0.0, le=0.5)
    shift: Float = opt(0.0, "Largest shift, share of either side; the border is repeated.", ge=0.0, le=0.5)
    texture: TextureConfig | None = opt(None, "A texture that is blended over the whole image.")
    overlay: OverlayConfig | None = opt(None, "Another background behind a rendered foreground.")


NUMBERS = ("brightness", "contrast", "saturation", "hue", "noise", "blur", "crop", "shift")
IMAGES = ("texture", "overlay")


def enabled_effects(cfg: DomainRandomizationConfig) -> list[str]:
    """The names of the effects that are on."""
    return [name for name in NUMBERS if vars(cfg)[name] > 0.0] + [name for name in IMAGES if vars(cfg)[name]]
