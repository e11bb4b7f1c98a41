"""The tokenizer: trained by a run that has nothing to download, or loaded."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tokenizers

# Only its tokenizers are used: no word about a missing torch.
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
import transformers

from isft_jax import gguf_file, places
from isft_jax.data.rendering import gguf_tokenizer

# Rust's tokenizers, which know the characters of a token.
FastTokenizer = transformers.PreTrainedTokenizerFast
END_OF_TEXT = '<|endoftext|>'
_FILES = {'tokenizer.json', 'tokenizer_config.json'}


def train(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
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


def load(place: str) -> FastTokenizer:
  """Loads a fast tokenizer.

  place: its folder, its id on the hub, as 'Qwen/Qwen2.5-0.5B', a GGUF file, or
    a preset such as 'smollm2-135m-instruct'.

  Raises ValueError if there is none, or one that runs code of its own.
  """
  if places.is_gguf(place):
    return gguf_tokenizer.from_gguf(gguf_file.read(places.gguf_path(place)))
  if not os.path.isdir(place) and not places.is_hub_id(place):
    raise ValueError(
      f'{place}: no tokenizer there; name its folder, a .gguf file, a hub id '
      f'(ORG/NAME) or a preset ({", ".join(places.PRESETS)})'
    )
  try:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
      place, trust_remote_code=False
    )
  except (OSError, ValueError) as error:
    first_line = str(error).strip().split('\n')[0]
    if os.path.isdir(place) and not _FILES & set(os.listdir(place)):
      first_line = f'neither {" nor ".join(sorted(_FILES))} is in that folder'
    raise ValueError(f'{place}: no tokenizer there ({first_line})') from error
  if not isinstance(tokenizer, FastTokenizer):
    raise ValueError(
      f'{place}: a slow tokenizer, which cannot say which characters a token '
      'covers; convert it to tokenizer.json'
    )
  return tokenizer


def beside(records: str) -> str:
  """Returns the folder of the tokenizer that preparation left with records.

  Raises ValueError if there is none.
  """
  folder = os.path.join(records, 'tokenizer')
  if not os.path.exists(os.path.join(folder, 'tokenizer.json')):
    raise ValueError(f'{folder}: no tokenizer there; name its folder')
  return folder


def decode(
  tokenizer: FastTokenizer,
  tokens_T: Sequence[int] | np.ndarray,
  **options: bool,
) -> str:
  """Returns the text of one row of ids; options as transformers has them."""
  text = tokenizer.decode(tokens_T, **options)
  assert isinstance(text, str)
  return text


def encoder_of(
  tokenizer: FastTokenizer, as_text: bool = False
) -> tokenizers.Tokenizer:
  """Returns what turns text into ids and offsets, and does nothing else.

  A tokenizer may carry truncation or padding, from its file or from an earlier
  call, which would cut a trajectory or add tokens that nobody wrote; and a
  post-processor that leaves white space out of the offsets.

  as_text: encode the text of a special token as text.
  """
  return _encoder_of(tokenizer, len(tokenizer), as_text)


@functools.lru_cache(maxsize=16)
def _encoder_of(
  tokenizer: FastTokenizer, size: int, as_text: bool
) -> tokenizers.Tokenizer:
  del size  # a token that is added makes another encoder
  encoder = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
  encoder.no_truncation()
  encoder.no_padding()
  encoder.post_processor = tokenizers.processors.Sequence([])
  encoder.encode_special_tokens = as_text
  return encoder


def size(tokenizer: FastTokenizer) -> int:
  """Returns one more than the largest id. Some ids may have no token."""
  return max(tokenizer.get_vocab().values()) + 1


def special_ids(tokenizer: FastTokenizer) -> dict[int, str]:
  """Returns the special tokens: id -> text. Only a template may write them."""
  added = tokenizer.added_tokens_decoder
  return {id: token.content for id, token in added.items() if token.special}


def special_pattern(tokenizer: FastTokenizer) -> re.Pattern:
  """Returns what finds the text of special tokens."""
  texts = sorted(special_ids(tokenizer).values(), key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, texts)) or '(?!)')


def fingerprint(tokenizer: FastTokenizer, rendering: Mapping) -> str:
  """Returns a digest of all that decides how a trajectory becomes ids.

  Records carry it; a run whose own differs must not train on them.

  rendering: the chat template, and what else it is given; JSON values.
  """
  everything = {
    **rendering,
    'tokenizer': json.loads(encoder_of(tokenizer).to_str()),
  }
  text = json.dumps(everything, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(tokenizer: FastTokenizer, metadata: Mapping, where: str) -> str:
  """Returns the fingerprint of records, if it is that of this tokenizer.

  metadata: of the records in the folder `where`.

  Raises ValueError if another tokenizer made them.
  """
  theirs = metadata.get('fingerprint')
  ours = fingerprint(tokenizer, metadata.get('rendering', {}))
  if ours != theirs:
    raise ValueError(
      f'{where} was rendered with fingerprint {theirs}, and with this '
      f'tokenizer it would be {ours}: its tokens mean something else; name the '
      'tokenizer that made the records, or prepare them again'
    )
  return ours
