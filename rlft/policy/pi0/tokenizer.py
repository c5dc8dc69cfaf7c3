"""Language: instructions to token ids, once per instruction, and a small tokenizer that needs no download."""

import logging
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlft.errors import ConfigError

logger = logging.getLogger(__name__)

PALIGEMMA = "google/paligemma-3b-pt-224"

_CORPUS = (
    "Push the cube to the goal region.",
    "Pull the cube to the goal region.",
    "Pick up the cube and move it to the goal position.",
    "Stack the red cube on top of the green cube.",
    "Lift the peg upright on the table.",
    "Insert the peg into the hole of the box.",
    "Put the spoon on the towel and the carrot on the plate.",
    "Open the drawer, close the door, turn the faucet, place the bowl in the basket.",
)
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def build_small_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, always the same: any text can be written, and frequent words are single tokens."""
    smallest = 256 + len(_SPECIAL)
    if vocab < smallest:
        raise ConfigError(f"model.small.vocab={vocab}: a byte-level tokenizer needs at least {smallest}.")
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    start = [("<bos>", bpe.token_to_id("<bos>"))]
    bpe.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=start)
    names = {f"{word.strip('<>')}_token": word for word in _SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **names)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory, or by its hub name; a ConfigError names the setting where it cannot."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:  # transformers raises a dozen types for one cause
        raise ConfigError(
            f"model.tokenizer_path={path!r}: no tokenizer could be loaded from there ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Give a directory written by save_pretrained, or a hub name that this "
            "machine may download."
        ) from error


class PromptTokenizer:
    """Turns prompts into ids, padded to the longest prompt of a batch: a function of the batch, whatever came before.

    Attention then has nothing to mask where all prompts are equally long. ``source`` is where the tokenizer came from:
    a hub name, a path, or the built-in one's name.
    """

    multiple: int = 1  # lengths are rounded up to multiples of this; more than 1 where a new length costs a compilation
    overlong: int = 0  # how many prompts were cut at `max_length` so far

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, *, source: str) -> None:
        self.tokenizer, self.max_length, self.source = tokenizer, max_length, source
        self._ids: dict[str, list[int]] = {}

    def encode(self, prompts: Sequence[str], *, at_least: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """Ids int64 ``[n, length]`` and mask bool ``[n, length]`` of n prompts, on the CPU.

        Prompts ``at_least`` would have to fit too. Without them, there are few distinct ones: their ids are remembered.
        """
        rows = [self._of(prompt, remember=not at_least) for prompt in prompts]
        wanted = max(map(len, (*rows, *(self._of(prompt, remember=True, quiet=True) for prompt in at_least))))
        length, pad = min(self.max_length, -(-wanted // self.multiple) * self.multiple), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        return ids, torch.arange(length) < torch.tensor([[len(row)] for row in rows])

    def _of(self, prompt: str, *, remember: bool, quiet: bool = False) -> list[int]:
        if prompt in self._ids:
            return self._ids[prompt]
        if not prompt.strip():
            raise ConfigError(
                "The instruction is empty; set env.instruction, or record demonstrations with a task text."
            )
        ids = list(self.tokenizer(prompt)["input_ids"])
        if len(ids) > self.max_length and not quiet:
            self.overlong += 1
            cut = (len(ids), self.max_length, self.overlong, prompt)
            logger.warning("Prompt of %d tokens is cut to %d (%d prompts so far): %r", *cut)
        ids = ids[: self.max_length]
        if remember:
            self._ids[prompt] = ids
        return ids
