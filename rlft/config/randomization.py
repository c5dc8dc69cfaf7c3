"""The schema's section about picture randomisation. Every effect is off by default."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlft.config.declare import opt

FOLDER = "A folder of pictures; a relative one lies in the directory of assets."


@dataclass
class TextureConfig:
    """A texture that is blended over the whole picture."""

    folder: str = opt("put_on_plate/more_table/textures", FOLDER)
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_len=1)
    ratio: float = opt(0.3, "Largest share of the texture in the blend; drawn from 0 to this.", gt=0.0, le=1.0)


@dataclass
class OverlayConfig:
    """Another background, where pictures are composites of a known background picture and a rendered foreground."""

    folder: str = opt("put_on_plate/more_table/imgs", f"{FOLDER} The backgrounds to swap in.")
    files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_len=1)
    known_folder: str | None = opt(None, "The backgrounds that the environment shows; null: the same folder.")
    known_files: list[str] = opt(["*"], "Which files of it, by name patterns.", min_len=1)
    tolerance: int = opt(
        16,
        "How far a channel of a background pixel may be from the known one at most, of 255; each picture takes less, "
        "by how exact it is.",
        ge=0,
        le=128,
    )
    min_match: float = opt(
        0.3, "A picture of whose pixels less is background stays as it is, and is counted.", gt=0.0, le=1.0
    )


@dataclass
class DomainRandomizationConfig:
    """Pictures are changed before the policy sees them, in rollouts and in the warm-up, never in evaluations."""

    rollout: bool = opt(True, "Change the pictures of rollouts.")
    sft: bool = opt(True, "Change the pictures of the warm-up, anew for every row of every step.")
    cameras: list[str] | None = opt(None, "Whose pictures; null: all cameras.", min_len=1)
    per: str = opt(
        "episode",
        "Rollouts: what is drawn stays the same for an episode, or is drawn for every decision.",
        choices=("episode", "decision"),
    )
    probability: float = opt(1.0, "Share of the draws that change a picture at all.", gt=0.0, le=1.0)
    brightness: float = opt(0.0, "Largest value added or taken away, share of the full range.", ge=0.0, le=1.0)
    contrast: float = opt(0.0, "Largest change of the contrast's factor from 1.", ge=0.0, le=1.0)
    saturation: float = opt(0.0, "Largest change of the saturation's factor from 1.", ge=0.0, le=1.0)
    hue: float = opt(0.0, "Largest turn of the hue, degrees.", ge=0.0, le=180.0)
    noise: float = opt(0.0, "Largest std of Gaussian noise, share of the full range.", ge=0.0, le=1.0)
    blur: float = opt(0.0, "Largest std of the Gaussian blur, pixels of the camera.", ge=0.0, le=10.0)
    crop: float = opt(0.0, "Largest share of either side that is cut off; the rest is resized back.", ge=0.0, le=0.5)
    shift: float = opt(0.0, "Largest shift, share of either side; the border is repeated.", ge=0.0, le=0.5)
    texture: TextureConfig | None = field(
        default=None, metadata={"doc": "A texture that is blended over the whole picture."}
    )
    overlay: OverlayConfig | None = field(
        default=None,
        metadata={"doc": "Another background, where the environment's pictures are composites with a known one."},
    )


NUMBERS = ("brightness", "contrast", "saturation", "hue", "noise", "blur", "crop", "shift")
PICTURES = ("texture", "overlay")


def enabled_effects(cfg: DomainRandomizationConfig) -> list[str]:
    """The names of the effects that are on."""
    return [name for name in NUMBERS if vars(cfg)[name] > 0.0] + [name for name in PICTURES if vars(cfg)[name]]
