"""Builds the tokenizer that a GGUF file of llama.cpp describes.

Byte-level BPE only. The file names its pre-tokenizer and does not spell it
out; what each name means is in llama.cpp and in the models' tokenizer.json.
transformers 5.24 leaves out two of their steps. For 'smollm' it does not set
numerals apart: ' ½' becomes 'ĠÂ', '½', and SmolLM was trained on 'Ġ', 'Â½'
(0 to 9 come out the same). For 'qwen2' it does not join letters and accents.
"""

import tokenizers
import transformers
from tokenizers import normalizers, pre_tokenizers

from isft_jax.gguf_file import GGUFFile

_CONTROL, _USER_DEFINED = 3, 4  # codes of tokenizer.ggml.token_type
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
  _CONTRACTIONS + r'|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}'
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_QWEN2 = _LLAMA3.replace('{1,3}', '')


def _split(regex: str) -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(regex), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer | None:
  gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  digits = pre_tokenizers.Digits(individual_digits=True)
  return {
    'gpt-2': gpt2,
    'llama-bpe': _split(_LLAMA3),
    'qwen2': _split(_QWEN2),
    'smollm': pre_tokenizers.Sequence([digits, gpt2]),
  }.get(name)


_NAMES = ('gpt-2', 'llama-bpe', 'qwen2', 'smollm')


def from_gguf(file: GGUFFile) -> transformers.PreTrainedTokenizerFast:
  """Returns the tokenizer of a GGUF file, with its chat template.

  Args:
    file: its metadata.

  Raises:
    ValueError: there is none in the file, or one of another kind. The message
      names the key.
  """
  keys = {
    key.removeprefix('tokenizer.ggml.'): value
    for key, value in file.metadata.items()
  }

  def get(name, kind=list):
    value = keys.get(name)
    if not isinstance(value, kind):
      raise ValueError(f'{file.path}: tokenizer.ggml.{name} is missing')
    return value

  model, name = keys.get('model'), keys.get('pre')
  if model != 'gpt2':
    raise ValueError(
      f'{file.path}: tokenizer.ggml.model={model!r} is not supported, only '
      "'gpt2' (byte-level BPE); name a folder with tokenizer.json"
    )
  if name not in _NAMES:
    raise ValueError(
      f'{file.path}: tokenizer.ggml.pre={name!r} is not supported, only '
      f'{", ".join(_NAMES)}; name a folder with tokenizer.json'
    )
  tokens, kinds = get('tokens'), get('token_type')
  vocab = {token: id for id, token in enumerate(tokens)}
  if len(vocab) != len(tokens) or len(kinds) != len(tokens):
    raise ValueError(
      f'{file.path}: tokenizer.ggml.tokens has {len(tokens)} entries, '
      f'{len(vocab)} of them different, and token_type has {len(kinds)}'
    )
  try:
    bpe = tokenizers.models.BPE(
      vocab=vocab,
      merges=[tuple(merge.split(' ')) for merge in get('merges')],
      # Llama 3 takes a word that is a token as it is, without any merge.
      ignore_merges=name == 'llama-bpe',
    )
  except Exception as error:  # of the library, of no class of its own
    raise ValueError(f'{file.path}: tokenizer.ggml.merges: {error}') from error
  backend = tokenizers.Tokenizer(bpe)
  backend.normalizer = normalizers.NFC() if name == 'qwen2' else None
  backend.pre_tokenizer = _pre_tokenizer(name)
  backend.decoder = tokenizers.decoders.ByteLevel()
  for kind, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
    added = [
      tokenizers.AddedToken(token, special=is_special, normalized=False)
      for token, its_kind in zip(tokens, kinds, strict=True)
      if its_kind == kind
    ]
    (backend.add_special_tokens if is_special else backend.add_tokens)(added)

  special = {
    f'{role}_token': tokens[keys[f'{key}_token_id']]
    for role, key in (
      *(('bos', 'bos'), ('eos', 'eos')),
      *(('unk', 'unknown'), ('pad', 'padding')),
    )
    if 0 <= keys.get(f'{key}_token_id', -1) < len(tokens)
  }
  # Where a file says nothing, llama.cpp begins texts with bos for Llama 3.
  adds_bos = keys.get('add_bos_token', name == 'llama-bpe')
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    add_bos_token=bool(adds_bos and 'bos_token' in special),
    add_eos_token=bool(keys.get('add_eos_token') and 'eos_token' in special),
    chat_template=_chat_template(file),
    clean_up_tokenization_spaces=False,
    **{'bos_token': None, 'eos_token': None, **special},
  )


def _chat_template(file: GGUFFile) -> str | dict[str, str] | None:
  """Returns the template, or several by name if the file has more."""
  prefix = 'tokenizer.chat_template'
  default = file.metadata.get(prefix)
  more = {
    key.removeprefix(f'{prefix}.'): value
    for key, value in file.metadata.items()
    if key.startswith(f'{prefix}.')
  }
  return {'default': default, **more} if more and default else default
