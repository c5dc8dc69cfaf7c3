"""Instructions to ids: any text, no silent truncation, one stable length."""

import logging

import pytest
import torch

from rlft.errors import ConfigError
from rlft.policy.pi0.tokenizer import PromptTokenizer, build_small_tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def small():
    return build_small_tokenizer(384)


def test_any_text_survives_and_begins_with_bos(small):
    for text in ("Push the cube to the goal region.\n", "Stelle den Würfel auf π₀ 🤖", "\t{}~"):
        ids = small(text)["input_ids"]
        assert ids[0] == small.bos_token_id
        assert small.decode(ids[1:]) == text
        assert max(ids) < 384
        assert small.unk_token_id not in ids


def test_frequent_words_are_single_tokens(small):
    assert len(small("Push the cube to the goal region.")["input_ids"]) <= 11


def test_it_is_deterministic(small):
    assert build_small_tokenizer(384).get_vocab() == small.get_vocab()


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"model\.small\.vocab=100"):
        build_small_tokenizer(100)


def test_saved_and_loaded_it_gives_the_same_ids(small, tmp_path):
    small.save_pretrained(tmp_path)
    text = "Stack the red cube.\n"
    assert load_tokenizer(str(tmp_path))(text)["input_ids"] == small(text)["input_ids"]


def test_a_tokenizer_that_is_not_there_names_the_setting(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.tokenizer_path="):
        load_tokenizer(str(tmp_path / "none"))


def test_prompts_are_padded_to_the_longest_of_their_batch_whatever_came_before(small):
    prompts = PromptTokenizer(small, 48, source="x")
    ids, mask = prompts.encode(["Push", "Push the cube"])
    assert ids.shape == mask.shape == (2, len(small("Push the cube")["input_ids"]))
    assert mask.sum(dim=1).tolist() == [len(small(text)["input_ids"]) for text in ("Push", "Push the cube")]
    assert (ids[~mask] == small.pad_token_id).all()
    longer = "Push the cube to the goal region. Then stack it."
    assert prompts.encode([longer])[1].all()
    assert prompts.encode(["Push"])[1].all()
    assert prompts.encode(["Push"], at_least=[longer])[0].shape == (1, len(small(longer)["input_ids"]))
    prompts.multiple = 16
    assert [prompts.encode([text])[0].shape[1] for text in ("Push", longer, longer * 9)] == [16, 32, 48]


def test_over_long_text_is_cut_counted_and_said(small, caplog):
    prompts = PromptTokenizer(small, 8, source="x")
    with caplog.at_level(logging.WARNING):
        ids, mask = prompts.encode(["Push the cube to the goal region.", "Pull the cube to the goal region.", "Push"])
    assert ids.shape == (3, 8)
    assert prompts.overlong == 2
    assert mask[0].all()
    assert "is cut to 8 (2 prompts so far)" in caplog.text


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_instruction_is_refused(small, empty):
    with pytest.raises(ConfigError, match=r"env\.instruction"):
        PromptTokenizer(small, 48, source="x").encode(["Push", empty])


def test_instructions_are_tokenised_once(small):
    class Counting:
        pad_token_id = small.pad_token_id
        calls = 0

        def __call__(self, text):
            self.calls += 1
            return small(text)

    counting = Counting()
    prompts = PromptTokenizer(counting, 48, source="x")
    first, _ = prompts.encode(["Push"] * 5)
    second, _ = prompts.encode(["Push"] * 5)
    assert counting.calls == 1
    assert torch.equal(first, second)
