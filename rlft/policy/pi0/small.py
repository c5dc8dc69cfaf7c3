"""lerobot's own π0 and π0.5 at test size: the same modules, smaller numbers.

lerobot's configuration knows only Gemma 2B and 300M and fixes the vocabulary and SigLIP's sizes inside
the backbone's constructor, so the small model is built by subclass: the constructors below repeat
lerobot's with the sizes of :class:`rlft.policy.pi0.family.SmallSize`; every forward pass is inherited unchanged.
"""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0.modeling_pi0 import PaliGemmaWithExpertModel, PI0Pytorch
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.modeling_pi05 import PI05Pytorch
from lerobot.policies.pi_gemma import PaliGemmaForConditionalGenerationWithPiGemma, PiGemmaForCausalLM
from torch import nn
from transformers.models.auto import CONFIG_MAPPING

from rlft.policy.pi0.family import QUERY_HEADS, SmallSize


@PreTrainedConfig.register_subclass("rlft_small_pi0")
@dataclass
class SmallPI0Config(PI0Config):
    """π0's configuration with the small sizes."""

    size: SmallSize = field(default_factory=SmallSize)


@PreTrainedConfig.register_subclass("rlft_small_pi05")
@dataclass
class SmallPI05Config(PI05Config):
    """π0.5's configuration with the small sizes."""

    size: SmallSize = field(default_factory=SmallSize)


class SmallPaliGemmaWithExpert(PaliGemmaWithExpertModel):
    """lerobot's backbone with the small sizes."""

    def __init__(self, size: SmallSize, *, adarms: bool, precision: str) -> None:
        nn.Module.__init__(self)
        self.freeze_vision_encoder = self.train_expert_only = False
        shared: dict[str, Any] = {
            "num_attention_heads": QUERY_HEADS,
            "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_dim,
            "num_hidden_layers": size.depth,
            "hidden_activation": "gelu_pytorch_tanh",
            "dtype": "float32",
            "vocab_size": size.vocab,
        }
        vlm = CONFIG_MAPPING["paligemma"]()
        vlm._vocab_size = vlm.image_token_index = size.vocab
        vlm.text_config.update(
            {**shared, **_widths(size.vlm_width, size), "use_adarms": False, "adarms_cond_dim": None}
        )
        vision = {
            "image_size": size.image_size,
            "num_hidden_layers": size.vision_depth,
            "num_attention_heads": size.vision_heads,
            "projection_dim": size.vlm_width,
            "projector_hidden_act": "gelu_fast",
            "dtype": "float32",
        }
        vlm.vision_config.update({**vision, **_widths(size.vision_width, size)})
        condition = {"use_adarms": adarms, "adarms_cond_dim": size.expert_width if adarms else None}
        gemma: Any = CONFIG_MAPPING["gemma"]
        expert = gemma(**shared, **_widths(size.expert_width, size), **condition)
        self.paligemma = PaliGemmaForConditionalGenerationWithPiGemma(config=vlm)
        self.gemma_expert = PiGemmaForCausalLM(config=expert)
        self.gemma_expert.model.embed_tokens = None
        self.to_bfloat16_for_selected_params(precision)


class SmallPI0(PI0Pytorch):
    """π0's core with the small backbone."""

    def __init__(self, config: SmallPI0Config) -> None:
        nn.Module.__init__(self)
        _common_parts(self, config, adarms=False)
        width = config.size.expert_width
        self.state_proj = nn.Linear(config.max_state_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)


class SmallPI05(PI05Pytorch):
    """π0.5's core with the small backbone."""

    def __init__(self, config: SmallPI05Config) -> None:
        nn.Module.__init__(self)
        _common_parts(self, config, adarms=True)
        width = config.size.expert_width
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)


def _common_parts(core: PI0Pytorch | PI05Pytorch, config: SmallPI0Config | SmallPI05Config, *, adarms: bool) -> None:
    core.config, core.rtc_processor, core.gradient_checkpointing_enabled = config, None, False
    core.paligemma_with_expert = SmallPaliGemmaWithExpert(config.size, adarms=adarms, precision=config.dtype)
    core.action_in_proj = nn.Linear(config.max_action_dim, config.size.expert_width)
    core.action_out_proj = nn.Linear(config.size.expert_width, config.max_action_dim)


def _widths(width: int, size: SmallSize) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": width * size.mlp_ratio}
