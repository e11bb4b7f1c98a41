"""A tokenizer that merges '.' and a line break, as Qwen's does."""

import pytest
import tokenizers
import transformers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from isft_jax.data.rendering import tokenizer

TEXT = (
  'Jupiter\nUser: Hi.\nAgent: Jupiter is large. Mars is small.\nUser: Mars.\n'
)
# Qwen2's: punctuation takes the line breaks after it.
_SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


@pytest.fixture(scope='session')
def merging():
  """Whole words are tokens, and '.\\n' is one."""
  bpe = tokenizers.Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(_SPLIT), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  bpe.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=500,
    special_tokens=['<|endoftext|>', '<|im_end|>'],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator([TEXT] * 4, trainer)
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=bpe, eos_token='<|endoftext|>'
  )


@pytest.fixture(scope='session')
def separate():
  """Whole words are tokens, and '.' and '\\n' are two."""
  return tokenizer.train([TEXT] * 4, 500)
