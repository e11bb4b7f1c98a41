"""Builds a tokenizer from the metadata of a GGUF file of llama.cpp.

Only byte-level BPE is supported. The file has only the name of its
pre-tokenizer; the definitions are in llama.cpp and in the models'
tokenizer.json. transformers 5.24 leaves out two of their steps. For 'smollm' it
does not split off numerals: ' ½' becomes 'ĠÂ', '½', although SmolLM was trained
on 'Ġ', 'Â½' (0 to 9 are the same either way). For 'qwen2' it does not compose
letters and accents (NFC).
"""

from collections.abc import Mapping

import tokenizers
import transformers
from tokenizers import normalizers, pre_tokenizers

from isft_jax import files
from isft_jax.gguf_file import GGUFFile

_CONTROL, _USER_DEFINED = 3, 4  # codes of tokenizer.ggml.token_type
# Regular expressions of the models' tokenizer.json. Qwen2 splits numbers into
# single digits, Llama 3 into groups of up to three.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
  _CONTRACTIONS + r'|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}'
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_QWEN2 = _LLAMA3.replace('{1,3}', '')


def _split(regex: str) -> pre_tokenizers.PreTokenizer:
  """Returns a pre-tokenizer that splits by a regex and then maps bytes."""
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(regex), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


# The library has the regular expression of GPT-2. SmolLM splits numbers into
# digits before it.
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_DIGITS = pre_tokenizers.Digits(individual_digits=True)
# By the value of tokenizer.ggml.pre.
_PRE_TOKENIZERS = {
  'gpt-2': _GPT2,
  'llama-bpe': _split(_LLAMA3),
  'qwen2': _split(_QWEN2),
  'smollm': pre_tokenizers.Sequence([_DIGITS, _GPT2]),
}
# Attributes of a transformers tokenizer, and the GGUF keys of their ids.
_SPECIAL = {
  'bos_token': 'bos_token_id',
  'eos_token': 'eos_token_id',
  'unk_token': 'unknown_token_id',
  'pad_token': 'padding_token_id',
}


def from_gguf(file: GGUFFile) -> transformers.PreTrainedTokenizerFast:
  """Returns the tokenizer of a GGUF file, with its chat template.

  Args:
    file: the file, with its metadata.

  Raises:
    ValueError: the file has no tokenizer, or one of an unsupported kind. The
      message names the key.
  """
  # Check the keys before the libraries fail with less helpful messages.
  prefix = 'tokenizer.ggml.'
  keys = {
    key.removeprefix(prefix): value
    for key, value in file.metadata.items()
    if key.startswith(prefix)
  }
  # Only byte-level BPE ('gpt2') with a known pre-tokenizer gives the ids of the
  # model.
  for key, known in (('model', ('gpt2',)), ('pre', tuple(_PRE_TOKENIZERS))):
    if keys.get(key) not in known:
      raise ValueError(
        f'{file.path}: {prefix}{key} must be one of {", ".join(known)} (got '
        f'{files.shorten(keys.get(key))}); pass a folder with tokenizer.json '
        'instead'
      )
  # The vocabulary, the kinds of its tokens, and the merges.
  for key, kind in (('tokens', str), ('token_type', int), ('merges', str)):
    value = keys.get(key)
    if not isinstance(value, list) or not all(
      isinstance(entry, kind) for entry in value
    ):
      raise ValueError(f'{file.path}: {prefix}{key} must be a list')

  # Special tokens that are in the vocabulary.
  tokens = keys['tokens']
  special = {
    attribute: tokens[keys[key]]
    for attribute, key in _SPECIAL.items()
    if keys.get(key) in range(len(tokens))
  }
  # If the key is missing, llama.cpp begins texts with bos only for Llama 3.
  adds_bos = keys.get('add_bos_token', keys['pre'] == 'llama-bpe')
  # Decoding must return the text exactly, so spaces are not cleaned up.
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=_backend(keys, f'{file.path}: {prefix}'),
    add_bos_token=bool(adds_bos and 'bos_token' in special),
    add_eos_token=bool(keys.get('add_eos_token') and 'eos_token' in special),
    chat_template=_chat_template(file),
    clean_up_tokenization_spaces=False,
    **{'bos_token': None, 'eos_token': None, **special},
  )


def _backend(keys: Mapping, where: str) -> tokenizers.Tokenizer:
  """Returns the byte-level BPE of a vocabulary and its merges.

  Args:
    keys: the metadata below tokenizer.ggml.
    where: beginning of error messages: the file and the prefix of its keys.
  """
  tokens, kinds, name = keys['tokens'], keys['token_type'], keys['pre']
  # Ids are positions in the list. Two equal tokens would share an id.
  vocab = {token: id for id, token in enumerate(tokens)}
  if len(vocab) != len(tokens) or len(kinds) != len(tokens):
    raise ValueError(
      f'{where}tokens has {len(tokens)} entries, {len(vocab)} of them '
      f'different, and token_type has {len(kinds)}'
    )
  try:
    bpe = tokenizers.models.BPE(
      vocab=vocab,
      # A merge is two tokens with a space between them.
      merges=[tuple(merge.split(' ')) for merge in keys['merges']],
      # Llama 3 uses a whole word that is in the vocabulary without merging.
      ignore_merges=name == 'llama-bpe',
    )
  except Exception as error:  # tokenizers raises bare Exceptions
    raise ValueError(f'{where}merges: {files.one_line(error)}') from error
  backend = tokenizers.Tokenizer(bpe)
  # Only Qwen2 normalises text, to Unicode's composed form.
  backend.normalizer = normalizers.NFC() if name == 'qwen2' else None
  backend.pre_tokenizer = _PRE_TOKENIZERS[name]
  backend.decoder = tokenizers.decoders.ByteLevel()
  # Control tokens become special tokens; user-defined ones stay visible when
  # special tokens are skipped in decoding.
  for kind, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
    added = [
      tokenizers.AddedToken(token, special=is_special, normalized=False)
      for token, token_kind in zip(tokens, kinds, strict=True)
      if token_kind == kind
    ]
    # Their ids do not change, because they are in the vocabulary.
    (backend.add_special_tokens if is_special else backend.add_tokens)(added)
  return backend


def _chat_template(file: GGUFFile) -> str | dict[str, str] | None:
  """Returns the chat template, or all of them by name if there are several."""
  prefix = 'tokenizer.chat_template'
  # Further templates have the keys tokenizer.chat_template.NAME.
  default = file.metadata.get(prefix)
  more = {
    key.removeprefix(f'{prefix}.'): value
    for key, value in file.metadata.items()
    if key.startswith(f'{prefix}.')
  }
  return {'default': default, **more} if more and default else default
