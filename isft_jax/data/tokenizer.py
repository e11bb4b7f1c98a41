"""The tokenizer: trained by a run that has nothing to download, or loaded."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping

import tokenizers

# Only its tokenizers are used: no word about a missing torch.
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
import transformers

END_OF_TEXT = '<|endoftext|>'


def train(
  texts: Iterable[str], vocab_size: int
) -> transformers.PreTrainedTokenizerFast:
  """Trains a byte-level BPE, so that every text has ids and none is unknown.

  texts: documents in the format that the model will read.
  vocab_size: at most so many ids; 256 of them are the bytes.
  """
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[END_OF_TEXT],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(texts, trainer)
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
  )


def load(folder: str) -> transformers.PreTrainedTokenizerFast:
  """Loads a fast tokenizer. Raises ValueError if the folder holds none."""
  if not os.path.isdir(folder):  # else transformers would ask the network
    raise ValueError(f'{folder}: no tokenizer there; name its folder')
  try:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  except (OSError, ValueError) as error:
    raise ValueError(f'{folder}: no tokenizer there ({error})') from error
  if not tokenizer.is_fast:
    raise ValueError(
      f'{folder}: a slow tokenizer, which cannot say which characters a token '
      'covers; convert it to tokenizer.json'
    )
  return tokenizer


def encoder_of(tokenizer) -> tokenizers.Tokenizer:
  """Returns what turns text into ids and offsets, and does nothing else.

  A tokenizer may carry truncation or padding, from its file or from an earlier
  call, which would cut a trajectory or add tokens that nobody wrote; and a
  post-processor that leaves white space out of the offsets.
  """
  return _encoder_of(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=8)
def _encoder_of(tokenizer, size) -> tokenizers.Tokenizer:
  del size  # a token that is added makes another encoder
  encoder = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
  encoder.no_truncation()
  encoder.no_padding()
  encoder.post_processor = tokenizers.processors.Sequence([])
  return encoder


def fingerprint(
  tokenizer: transformers.PreTrainedTokenizerFast,
  template: str,
  template_args: Mapping[str, object] | None = None,
) -> str:
  """Returns a digest of all that decides how a trajectory becomes ids.

  Records carry it; a run whose own differs must not train on them.
  """
  rendering = {
    'tokenizer': json.loads(encoder_of(tokenizer).to_str()),
    'template': template,
    'template_args': dict(template_args or {}),
  }
  text = json.dumps(rendering, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
