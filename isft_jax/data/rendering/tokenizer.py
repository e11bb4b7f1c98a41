"""Trains, loads and fingerprints Hugging Face tokenizers."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import huggingface_hub
import numpy as np
import tokenizers
from absl import logging

# transformers warns at import if torch is missing. Only its tokenizers are
# used here.
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
import transformers

from isft_jax import files, gguf_file, places
from isft_jax.data.rendering import gguf_tokenizer

# Fast tokenizers, written in Rust, have the character offsets of each token.
FastTokenizer = transformers.PreTrainedTokenizerFast
# Also the padding token of tokenizers that are trained here.
END_OF_TEXT = '<|endoftext|>'
# Files of a tokenizer's folder; one of them is enough.
_FILES = {'tokenizer.json', 'tokenizer_config.json'}
# Files that transformers reads if they exist: JSON objects, and other texts.
_OBJECTS = {
  *_FILES,
  *(
    'config.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.json',
  ),
}
_TEXTS = {*_OBJECTS, 'chat_template.jinja', 'merges.txt', 'tokenizer.model'}
# Any tokenizer has tokens for it.
_SAMPLE = 'The 3 words.\n'
# Texts on which pre-tokenizers and normalizers differ: numbers, contractions,
# spaces, accents, scripts, code.
_TELLING = (
  'In 2023, 1234567 of 3.14159 and 1st; ½ ² Ⅷ ١٢٣',
  "I'm sure they'LL say it's DON'T, CamelCase snake_case",
  ' two  spaces\n\n\n and\ttabs \r\n  \n',
  'naïve cafe\u0301 ﬁ Å \u200b\ufeff\x00 İ',
  '金銀 は 日本語。한국어 العربية हिन्दी ไทย',
  '👍🏽 and 👩\u200d👧',
  'def f(x):\n    return {"a": [x != 1, 2]}  # https://a.b/c?d=%20\n',
)
# Tokens of a vocabulary whose own texts are compared too.
_COMPARED_TOKENS = 2_000


def train(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
  """Trains a byte-level BPE tokenizer, which has no unknown token.

  Args:
    texts: documents in the format that the model will read.
    vocab_size: maximum number of ids, including the 256 bytes.
  """
  # Bytes are the alphabet, so that no text has unknown characters.
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
  """Loads a fast tokenizer, which reads texts as its tokenizer.json says.

  Some classes of transformers 5 take only the vocabulary from that file, and
  have their own pre-tokenizer and normalizer. Qwen2Tokenizer, for example,
  splits numbers into digits. If such a class gives other ids than the file, the
  file is used, as transformers 4 and other libraries do, and a warning says so.

  The exception is a file that transformers 4 converted from SentencePiece. Its
  normalizer prepends a space to each piece between special tokens. The class
  does as tokenizer_config.json says (`legacy`), and is used.

  Args:
    place: a folder, a hub id such as 'Qwen/Qwen2.5-0.5B', a GGUF file, or a
      preset such as 'smollm2-135m-instruct'.

  Raises:
    ValueError: `place` has no tokenizer, a damaged one, or one that is slow or
      runs its own code. The message is one line with the file or the folder.
  """
  # GGUF files have a tokenizer among their metadata.
  if places.is_gguf(place):
    return _load_gguf(place)
  if not os.path.isdir(place) and not places.is_hub_id(place):
    raise ValueError(
      f'{place}: no tokenizer there; name its folder, a .gguf file, a hub id '
      f'(ORG/NAME) or a preset ({", ".join(places.PRESETS)})'
    )
  # From only config.json, transformers makes a tokenizer without any token.
  if os.path.isdir(place) and not _existing(place, _TEXTS - {'config.json'}):
    raise ValueError(_no_tokenizer(place))
  # A pointer in the place of a template would be used as a template.
  for path in _existing(place, _TEXTS):
    files.check_whole(path)
  try:
    # Code that a repository brings with it is never run.
    tokenizer = transformers.AutoTokenizer.from_pretrained(
      place, trust_remote_code=False
    )
  except BaseException as error:
    # Damaged files raise anything, errors of the Rust library included.
    if not _is_of_libraries(error):
      raise
    raise ValueError(_load_error(place, error)) from error
  # Authors are assigned by character offsets.
  if not isinstance(tokenizer, FastTokenizer):
    raise ValueError(
      f'{place}: a slow tokenizer, which has no character offsets of its '
      'tokens; convert it to tokenizer.json'
    )
  tokenizer = _as_in_file(tokenizer, place)
  _check_works(tokenizer, place)
  return tokenizer


def _as_in_file(tokenizer: FastTokenizer, place: str) -> FastTokenizer:
  """Returns a tokenizer that gives the ids of its tokenizer.json.

  Args:
    tokenizer: as AutoTokenizer loads it.
    place: where it was loaded from.

  Returns:
    The same tokenizer, or one that does just what the file says.
  """
  # This class reads the file as it is.
  if type(tokenizer) is FastTokenizer or not _has_file(place):
    return tokenizer
  try:
    in_file = FastTokenizer.from_pretrained(place)
    text = _differing_text(in_file, tokenizer)
  except BaseException as error:
    if not _is_of_libraries(error):
      raise
    raise ValueError(_load_error(place, error)) from error
  # SentencePiece's '▁' before each piece, or as the class is told.
  is_old_conversion = 'Prepend' in str(
    in_file.backend_tokenizer.normalizer
  ) and 'Metaspace' in str(tokenizer.backend_tokenizer.pre_tokenizer)
  if not text or is_old_conversion:
    return tokenizer
  _warn_once(
    f'{place}: {type(tokenizer).__name__} of transformers reads '
    f'{files.shorten(text)} otherwise than tokenizer.json, which is used'
  )
  # Classes have special tokens by default. The file has the vocabulary.
  known = in_file.get_vocab()
  for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES:
    token = getattr(tokenizer, name)
    if getattr(in_file, name) is None and token in known:
      setattr(in_file, name, token)
  in_file.padding_side = tokenizer.padding_side
  return in_file


def _has_file(place: str) -> bool:
  """Returns whether a folder, or a hub id in the cache, has tokenizer.json."""
  if os.path.isdir(place):
    return bool(_existing(place, ['tokenizer.json']))
  # AutoTokenizer has just downloaded it.
  path = huggingface_hub.try_to_load_from_cache(place, 'tokenizer.json')
  return isinstance(path, str)


@functools.cache
def _warn_once(line: str) -> None:
  logging.warning('%s', line)


def _differing_text(
  ours: FastTokenizer,
  theirs: FastTokenizer,
  texts: Iterable[str] = (),
  with_ends: bool = False,
) -> str:
  """Returns a text that two tokenizers read differently; '' if none is known.

  Args:
    ours: the one whose tokens are compared.
    theirs: the other.
    texts: to compare besides those that tell usual tokenizers apart.
    with_ends: compare what the post-processor puts around a text too.
  """

  def reader(tokenizer: FastTokenizer) -> Callable[[str], list[int]]:
    if with_ends:
      return lambda text: tokenizer(text, verbose=False)['input_ids']
    encode = tokenizer.backend_tokenizer.encode
    return lambda text: encode(text, add_special_tokens=False).ids

  # Added tokens within text, and tokens by themselves: some are not what their
  # merges give.
  backend = ours.backend_tokenizer
  inside = [f'x {token} y{token}\nz' for token in ours.get_added_vocab()]
  number = backend.get_vocab_size()
  step = -(-number // _COMPARED_TOKENS)
  tokens = [backend.decode([id]) for id in range(0, number, step)]
  our_ids, their_ids = reader(ours), reader(theirs)
  for text in (*_TELLING, *inside, *tokens, *texts):
    if our_ids(text) != their_ids(text):
      return text
  return ''


def _load_gguf(place: str) -> FastTokenizer:
  file = gguf_file.read(places.gguf_path(place))
  try:
    tokenizer = gguf_tokenizer.from_gguf(file)
  except ValueError:
    raise
  except BaseException as error:
    if not _is_of_libraries(error):
      raise
    raise ValueError(_load_error(place, error)) from error
  _check_works(tokenizer, place)
  return tokenizer


def _existing(place: str, names: Iterable[str]) -> list[str]:
  """Returns the paths of the files that a folder has of some names."""
  paths = (os.path.join(place, name) for name in sorted(names))
  return [path for path in paths if os.path.exists(path)]


def _is_of_libraries(error: BaseException) -> bool:
  """Returns whether an error is not an interrupt or an exit."""
  # The exception of a Rust panic is no Exception.
  return isinstance(error, Exception) or (
    type(error).__name__ == 'PanicException'
  )


def _no_tokenizer(folder: str) -> str:
  """Returns that a folder has no tokenizer, and where one may be."""
  # Shorter than the message of transformers for a folder without a file.
  missing = ' nor '.join(sorted(_FILES))
  inner = os.path.join(folder, 'tokenizer')
  remedy = f'; name {inner}' if _existing(inner, _FILES) else ''
  return (
    f'{folder}: no tokenizer there (neither {missing} is in that folder)'
    f'{remedy}'
  )


def _load_error(place: str, error: BaseException) -> str:
  """Returns why a tokenizer cannot be loaded, with the damaged file if any."""
  if os.path.isdir(place) and not _existing(place, _FILES):
    return _no_tokenizer(place)
  reason = files.one_line(str(error).strip().split('\n')[0])
  if isinstance(error, OSError | ValueError) and not os.path.isdir(place):
    return f'{place}: no tokenizer there ({reason})'
  # Which file is it? transformers does not say.
  for path in _existing(place, _TEXTS - {'tokenizer.model'}):
    try:
      (files.read_json if path.endswith('.json') else files.read_text)(path)
    except (OSError, ValueError) as flaw:
      return str(flaw)
  for path in _existing(place, ['tokenizer.json']):
    try:
      tokenizers.Tokenizer.from_file(path)
    except BaseException as flaw:
      if not _is_of_libraries(flaw):
        raise
      place, reason = path, files.one_line(flaw)
  return (
    f'{place}: its tokenizer cannot be loaded ({type(error).__name__}: '
    f'{reason}); copy or download its files again'
  )


def _check_works(tokenizer: FastTokenizer, place: str) -> None:
  """Raises ValueError if a tokenizer cannot encode, or has odd attributes."""
  try:
    ids = rust_tokenizer(tokenizer).encode(_SAMPLE).ids
    tokenizer(_SAMPLE)
    decode(tokenizer, ids)
    special_pattern(tokenizer)
    # Two tokens with one id would mean the same to a model.
    known = tokenizer.get_vocab()
    template = tokenizer.chat_template
    named = template if isinstance(template, dict) else {'default': template}
    is_valid = len(ids) > 0 and len({*known.values()}) == len(known)
    is_valid &= template is None or all(
      isinstance(each, str) for each in (*named, *named.values())
    )
    is_valid &= isinstance(tokenizer.eos_token_id, int | None)
    reason = 'a text has no ids, two tokens share one, or a template is no text'
  except BaseException as error:
    if not _is_of_libraries(error):
      raise
    is_valid = False
    reason = files.one_line(f'{type(error).__name__}: {error}')
  if not is_valid:
    raise ValueError(
      f'{place}: its tokenizer does not work ({reason}); copy or download its '
      'files again'
    )


def save(tokenizer: FastTokenizer, folder: str | os.PathLike) -> None:
  """Writes a tokenizer so that AutoTokenizer of transformers 4 and 5 reads it.

  Beside a config.json, AutoTokenizer may still choose another class: see
  `differing_text`.

  Args:
    tokenizer: a transformers fast tokenizer.
    folder: folder to write to.
  """
  tokenizer.save_pretrained(folder)
  # Some classes do not save all of their settings: LlamaTokenizer leaves out
  # `legacy`.
  if type(tokenizer) is not FastTokenizer and not differing_text(
    tokenizer, folder
  ):
    return
  # The class that reads tokenizer.json as it is has a new name in transformers
  # 5. Version 4 knows only the old one, and would make token_type_ids, which
  # decoders do not take.
  path = os.path.join(folder, 'tokenizer_config.json')
  content = files.read_json(path) | {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_input_names': ['input_ids', 'attention_mask'],
  }
  files.write_atomically(
    path, json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  )


def differing_text(
  tokenizer: FastTokenizer, folder: str | os.PathLike, texts: Iterable[str] = ()
) -> str:
  """Compares a tokenizer with the one that AutoTokenizer loads from a folder.

  Args:
    tokenizer: a transformers fast tokenizer.
    folder: folder of a tokenizer or a model.
    texts: to compare besides those that tell usual tokenizers apart.

  Returns:
    A text to which they give other ids; '' if none is known.
  """
  theirs = transformers.AutoTokenizer.from_pretrained(
    folder, trust_remote_code=False
  )
  assert isinstance(theirs, FastTokenizer)  # it has a tokenizer.json
  different = tokenizer.get_vocab().items() ^ theirs.get_vocab().items()
  if different:
    return min(text for text, _ in different)
  return _differing_text(tokenizer, theirs, texts, with_ends=True)


def beside(records: str) -> str:
  """Returns the folder of the tokenizer saved beside prepared records.

  Args:
    records: the folder of the records.

  Raises:
    ValueError: the tokenizer does not exist.
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
  """Returns the text of one row of ids; `options` as in transformers."""
  text = tokenizer.decode(tokens_T, **options)
  assert isinstance(text, str)
  return text


def rust_tokenizer(
  tokenizer: FastTokenizer, as_text: bool = False
) -> tokenizers.Tokenizer:
  """Returns the Rust tokenizer without truncation, padding or post-processor.

  Truncation and padding may come from the tokenizer's file or from an earlier
  call. They would cut a trajectory or add tokens that nobody wrote. Some
  post-processors leave white space out of the offsets.

  Args:
    tokenizer: a transformers fast tokenizer.
    as_text: encode the texts of special tokens as ordinary text.
  """
  return _rust_tokenizer(tokenizer, len(tokenizer), as_text)


@functools.lru_cache(maxsize=16)
def _rust_tokenizer(
  tokenizer: FastTokenizer, size: int, as_text: bool
) -> tokenizers.Tokenizer:
  del size  # part of the cache key: added tokens change the encoder
  # A copy through JSON: the original's settings stay as they are.
  encoder = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
  encoder.no_truncation()
  encoder.no_padding()
  encoder.post_processor = tokenizers.processors.Sequence([])
  encoder.encode_special_tokens = as_text
  return encoder


def size(tokenizer: FastTokenizer) -> int:
  """Returns the largest id plus one. Some smaller ids may have no token."""
  return max(tokenizer.get_vocab().values()) + 1


def special_ids(tokenizer: FastTokenizer) -> dict[int, str]:
  """Returns {id: text} of special tokens, which only templates may write."""
  added = tokenizer.added_tokens_decoder
  return {id: token.content for id, token in added.items() if token.special}


def special_pattern(tokenizer: FastTokenizer) -> re.Pattern:
  """Returns a pattern that matches the text of any special token."""
  # The longest first: one token's text may be a prefix of another's. '(?!)'
  # never matches.
  texts = sorted(special_ids(tokenizer).values(), key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, texts)) or '(?!)')


def fingerprint(tokenizer: FastTokenizer, rendering: Mapping) -> str:
  """Returns a digest of everything that affects the ids of a trajectory.

  Records store it. A run with another fingerprint must not train on them.

  Args:
    tokenizer: a transformers fast tokenizer.
    rendering: `Renderer.rendering`: the chat template and its settings.

  Returns:
    The first 16 hexadecimal digits of a SHA-256.
  """
  everything = {
    **rendering,
    'tokenizer': json.loads(rust_tokenizer(tokenizer).to_str()),
  }
  # Sorted keys: equal settings give equal digests.
  text = json.dumps(everything, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(tokenizer: FastTokenizer, metadata: Mapping, where: str) -> str:
  """Checks that records were made with a tokenizer.

  Args:
    tokenizer: the tokenizer.
    metadata: the metadata of the records.
    where: the folder of the records, for the message.

  Returns:
    The fingerprint of both.

  Raises:
    ValueError: another tokenizer made the records.
  """
  expected = metadata.get('fingerprint')
  actual = fingerprint(tokenizer, metadata.get('rendering', {}))
  if actual != expected:
    raise ValueError(
      f'{where} was rendered with fingerprint {expected}, but this tokenizer '
      f'gives {actual}, so that its ids mean something else; name the '
      'tokenizer that made the records, or prepare them again'
    )
  return actual
