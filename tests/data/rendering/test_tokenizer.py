"""The tokenizer: every text has ids, files are closed, digests tell apart."""

import json
import os
import socket
import subprocess
import sys

import pytest
import tokenizers
import transformers

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import (
  END_OF_TEXT,
  beside,
  check,
  differing_text,
  fingerprint,
  load,
  rust_tokenizer,
  save,
  special_ids,
  train,
)

TEXTS = (
  'User: Tell me about gold.\nAgent: Its symbol is Go.\n',
  'User: Tell me about silver.\nAgent: Its symbol is Ag.\n',
)
RENDERING = {'template': '{{ x }}', 'values': {}, 'special_text': 'reject'}


@pytest.fixture(scope='module')
def trained():
  return train(TEXTS, vocab_size=280)


# --------------------------------------------------------------------- train


@pytest.mark.parametrize('vocab_size', [257, 270, 290])
def test_the_vocabulary_is_as_large_as_asked_for(vocab_size):
  assert len(train(TEXTS, vocab_size)) == vocab_size


def test_the_vocabulary_ends_where_nothing_is_left_to_merge():
  assert 290 < len(train(TEXTS, 10_000)) < 400


def test_id_0_is_the_end_of_text_and_the_padding(trained):
  assert trained(END_OF_TEXT)['input_ids'] == [0]
  assert (trained.eos_token_id, trained.pad_token_id) == (0, 0)
  assert trained.eos_token == trained.pad_token == END_OF_TEXT


@pytest.mark.parametrize(
  'text',
  [
    '',
    ' ',
    'User: Hi.\n',
    ' two  spaces  \n\n and lines \t\r\n',
    '金銀 is 金',
    '👍🏽 and 👩‍👧',
    'naïve café',  # one letter and its accent are two characters here
    '\x00\x07\x7f\u200b\ufeff',
  ],
)
def test_a_text_that_was_never_seen_comes_back_to_the_letter(trained, text):
  ids = trained(text)['input_ids']
  assert trained.decode(ids) == text
  assert all(0 <= i < len(trained) for i in ids)


def test_each_of_the_256_bytes_has_an_id(trained):
  letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  assert len(letters) == 256
  ids = trained.convert_tokens_to_ids(letters)
  assert None not in ids and len(set(ids)) == 256


def test_nothing_is_put_before_or_after_a_text(trained):
  """Or the ids of a text would depend on how it was cut into calls."""
  ids = trained('User')['input_ids']
  assert trained('UserUser')['input_ids'] == ids + ids


def test_with_room_for_all_merges_every_word_is_one_token():
  tokenizer = train(TEXTS, vocab_size=10_000)
  ids = tokenizer(TEXTS[0])['input_ids']
  assert [tokenizer.decode([i]) for i in ids] == [
    *('User', ':', ' Tell', ' me', ' about', ' gold', '.', '\n'),
    *('Agent', ':', ' Its', ' symbol', ' is', ' Go', '.', '\n'),
  ]


def test_the_same_texts_give_the_same_tokenizer_in_another_process(trained):
  """Merges of equal frequency must not depend on the order of a hash table."""
  script = (
    'from isft_jax.data.rendering.tokenizer import fingerprint, train\n'
    f'print(fingerprint(train({TEXTS!r}, 280), {RENDERING!r}))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, 'PYTHONHASHSEED': '1', 'RAYON_NUM_THREADS': '1'},
  )
  assert done.stdout.strip() == fingerprint(trained, RENDERING)


# ---------------------------------------------------------------------- load


@pytest.fixture
def offline(monkeypatch):
  def refuse(host, *args, **kwargs):
    pytest.fail(f'the network was asked for {host}')

  monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.mark.usefixtures('offline')
def test_a_saved_tokenizer_is_loaded_as_it_was(trained, tmp_path):
  trained.save_pretrained(tmp_path)
  loaded = load(str(tmp_path))
  assert loaded.get_vocab() == trained.get_vocab()
  assert loaded(TEXTS[0])['input_ids'] == trained(TEXTS[0])['input_ids']
  assert (loaded.eos_token_id, loaded.pad_token_id) == (0, 0)
  assert fingerprint(loaded, RENDERING) == fingerprint(trained, RENDERING)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
  message = (
    f'{tmp_path}: no tokenizer there .neither tokenizer.json nor '
    'tokenizer_config.json is in that folder'
  )
  with pytest.raises(ValueError, match=message):
    load(str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path}/none: no tokenizer there'):
    load(str(tmp_path / 'none'))


@pytest.mark.usefixtures('offline')
@pytest.mark.parametrize(
  'place', ['none', './runs/none', '/none', '../none', 'runs/a/tokenizer', '']
)
def test_what_is_no_id_of_the_hub_is_not_looked_for_in_the_network(
  place, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=f'^{place}: no tokenizer there; name'):
    load(place)


@pytest.mark.usefixtures('offline')
def test_a_folder_that_reads_like_an_id_of_the_hub_is_a_folder(
  trained, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  trained.save_pretrained('runs/one')
  os.mkdir('runs/empty')
  assert load('runs/one').get_vocab() == trained.get_vocab()
  with pytest.raises(ValueError, match=r'^runs/empty: no tokenizer there'):
    load('runs/empty')


def test_an_id_is_asked_of_the_hub_and_its_refusal_is_one_line(
  monkeypatch, tmp_path
):
  def refuse(place, trust_remote_code):
    assert trust_remote_code is False  # not even asked for
    raise OSError(f'{place} is not there\nIf this is private, log in\n')

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(
    transformers.AutoTokenizer, 'from_pretrained', staticmethod(refuse)
  )
  with pytest.raises(ValueError) as caught:
    load('owner/name-0.5B')
  assert str(caught.value) == (
    'owner/name-0.5B: no tokenizer there (owner/name-0.5B is not there)'
  )


def test_a_slow_tokenizer_is_refused(monkeypatch, tmp_path):
  class Slow:
    is_fast = False

  (tmp_path / 'tokenizer_config.json').write_text('{}')
  monkeypatch.setattr(
    transformers.AutoTokenizer, 'from_pretrained', lambda *_, **__: Slow()
  )
  with pytest.raises(ValueError, match=f'{tmp_path}: a slow tokenizer'):
    load(str(tmp_path))


# ------------------------------------------- the file, and classes of their own

# Numbers that are merged, which Qwen2's steps would split.
YEARS = 'In 1999 and 2000, 2000 of 1999.\n' * 3
# The steps of Qwen2Tokenizer, as Qwen2.5's tokenizer.json spells them.
QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
FLAGS = dict.fromkeys(
  ('single_word', 'lstrip', 'rstrip', 'normalized', 'special'), False
)
HARD = (
  YEARS,
  "We'LL see 1234567 cafe\u0301s,  金銀\n\n\tx = 3.14 <|end|> 20",
)
# model_type of config.json, class of tokenizer_config.json, and the class that
# AutoTokenizer takes.
CLASSES = [
  ('qwen2', 'TokenizersBackend', 'Qwen2Tokenizer'),
  ('qwen3', 'Qwen2Tokenizer', 'Qwen2Tokenizer'),
  ('qwen3', None, 'Qwen2Tokenizer'),
  ('llama', 'GPT2Tokenizer', 'GPT2Tokenizer'),
]


def write_folder(tokenizer, folder, model_type, tokenizer_class):
  """Saves a tokenizer for a class that does not read all of its file."""
  tokenizer.save_pretrained(folder)
  (folder / 'config.json').write_text(json.dumps({'model_type': model_type}))
  path = folder / 'tokenizer_config.json'
  content = json.loads(path.read_text()) | {'tokenizer_class': tokenizer_class}
  if not tokenizer_class:
    del content['tokenizer_class']
  path.write_text(json.dumps(content))
  return str(folder)


def years_tokenizer(steps=None, normalizer=None, end=END_OF_TEXT):
  """Returns a tokenizer that has a template and a special token '<|end|>'."""
  backend = tokenizers.Tokenizer(tokenizers.models.BPE())
  # Merges may cross spaces, unlike those of GPT-2.
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=270,
    special_tokens=[end],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator([YEARS], trainer)
  backend.pre_tokenizer = steps or backend.pre_tokenizer
  backend.normalizer = normalizer
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    eos_token=end,
    additional_special_tokens=['<|end|>'],
    chat_template='{{ messages }}',
  )


@pytest.mark.parametrize(('model_type', 'name', 'chosen'), CLASSES)
def test_the_file_is_used_if_a_class_reads_texts_otherwise(
  model_type, name, chosen, tmp_path, caplog
):
  ours = years_tokenizer()
  folder = write_folder(ours, tmp_path, model_type, name)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  assert type(theirs).__name__ == chosen
  assert theirs(YEARS)['input_ids'] != ours(YEARS)['input_ids']

  caplog.clear()
  loaded = load(folder)
  load(folder)
  (message,) = caplog.messages  # once for both
  assert message.startswith(f'{folder}: {chosen} of transformers reads ')
  assert message.endswith(' otherwise than tokenizer.json, which is used')
  for text in HARD:
    assert loaded(text)['input_ids'] == ours(text)['input_ids']
    offsets = rust_tokenizer(loaded).encode(text).offsets
    assert offsets == rust_tokenizer(ours).encode(text).offsets
  assert fingerprint(loaded, RENDERING) == fingerprint(ours, RENDERING)
  assert loaded.get_vocab() == ours.get_vocab()
  assert special_ids(loaded) == special_ids(ours)
  assert loaded.chat_template == ours.chat_template
  assert loaded.eos_token_id == 0
  assert loaded.name_or_path == folder
  # Saved, it is one that transformers reads as it is.
  loaded.save_pretrained(tmp_path / 'again')
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'again')
  assert again(YEARS)['input_ids'] == ours(YEARS)['input_ids']


def test_special_tokens_of_a_class_are_kept_if_the_file_has_them(tmp_path):
  """Qwen2Tokenizer pads with <|endoftext|>; GPT2Tokenizer would add it."""
  folder = write_folder(
    years_tokenizer(), tmp_path / 'a', 'qwen3', 'Qwen2Tokenizer'
  )
  assert load(folder).pad_token_id == 0
  other = years_tokenizer(end='<|stop|>')
  folder = write_folder(other, tmp_path / 'b', 'llama', 'GPT2Tokenizer')
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  assert END_OF_TEXT in theirs.get_vocab()
  loaded = load(folder)
  assert loaded.get_vocab() == other.get_vocab()
  assert (loaded.eos_token, loaded.bos_token) == ('<|stop|>', None)


def test_a_class_that_reads_texts_as_its_file_says_is_kept(tmp_path, caplog):
  """Its JSON may differ: Qwen2.5's file has a flag that changes no id."""
  steps = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2), 'isolated'),
      tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False, trim_offsets=False
      ),
    ]
  )
  ours = years_tokenizer(steps, tokenizers.normalizers.NFC())
  folder = write_folder(ours, tmp_path, 'qwen2', 'Qwen2Tokenizer')
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  loaded = load(folder)
  assert type(loaded).__name__ == 'Qwen2Tokenizer'
  assert not caplog.messages
  # The fingerprint of records stays what it was.
  assert fingerprint(loaded, RENDERING) == fingerprint(theirs, RENDERING)
  assert fingerprint(loaded, RENDERING) != fingerprint(ours, RENDERING)


def sentencepiece_folder(folder, **settings):
  """Writes a tokenizer.json as transformers 4 converted it from Llama 2's."""
  texts = ['▁a', '▁b', 'a', 'b', '▁', '<unk>', '<s>', '</s>']
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab={text: id for id, text in enumerate(texts)},
      merges=[('▁', 'a'), ('▁', 'b')],
      unk_token='<unk>',
    )
  )
  backend.normalizer = tokenizers.normalizers.Sequence(
    [
      tokenizers.normalizers.Prepend('▁'),
      tokenizers.normalizers.Replace(' ', '▁'),
    ]
  )
  ours = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token='<s>',
    eos_token='</s>',
    unk_token='<unk>',
    **settings,
  )
  return write_folder(ours, folder, 'llama', 'LlamaTokenizer')


@pytest.mark.parametrize(
  ('settings', 'ids'),
  [
    # 'a' after a special token has no space, or has one with `legacy`. The file
    # gives [4, 0, 1, 7, 0].
    ({}, [0, 1, 7, 2]),
    ({'legacy': False}, [0, 1, 7, 2]),
    ({'legacy': True}, [0, 1, 7, 0]),
  ],
)
def test_an_old_conversion_of_sentencepiece_is_read_as_its_settings_say(
  settings, ids, tmp_path, caplog
):
  folder = sentencepiece_folder(tmp_path / 'hub', **settings)
  loaded = load(folder)
  text = ' a b</s>a'
  assert loaded(text, add_special_tokens=False)['input_ids'] == ids
  assert type(loaded).__name__ == 'LlamaTokenizer'
  assert not caplog.messages
  # Saved by transformers, as beside records, the class would lose `legacy`.
  loaded.save_pretrained(tmp_path / 'records')
  again = load(str(tmp_path / 'records'))
  assert again(text)['input_ids'] == loaded(text)['input_ids']
  assert fingerprint(again, RENDERING) == fingerprint(loaded, RENDERING)
  assert len(caplog.messages) == bool(settings.get('legacy'))
  # Saved by us, AutoTokenizer has it.
  save(loaded, tmp_path / 'saved')
  assert not differing_text(loaded, tmp_path / 'saved')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'saved')
  assert theirs(text)['input_ids'] == loaded(text)['input_ids']


# ----------------------------------------------------------------------- save


@pytest.mark.parametrize(('model_type', 'name', 'chosen'), CLASSES[1:])
def test_a_saved_tokenizer_is_the_one_that_auto_tokenizer_loads(
  model_type, name, chosen, tmp_path
):
  del chosen
  folder = write_folder(years_tokenizer(), tmp_path, model_type, name)
  loaded = load(folder)
  (tmp_path / 'new').mkdir()
  save(loaded, tmp_path / 'new')
  (tmp_path / 'config.json').rename(tmp_path / 'new' / 'config.json')
  assert not differing_text(loaded, tmp_path / 'new')
  content = json.loads((tmp_path / 'new/tokenizer_config.json').read_text())
  # transformers 4 knows no other name of this class, and would add
  # token_type_ids, which no decoder takes.
  assert content['tokenizer_class'] == 'PreTrainedTokenizerFast'
  assert content['model_input_names'] == ['input_ids', 'attention_mask']
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'new')
  assert again.chat_template == '{{ messages }}'
  for text in HARD:
    assert again(text)['input_ids'] == loaded(text)['input_ids']


@pytest.mark.parametrize(
  'change',
  [
    {'pre_tokenizer': {'type': 'Digits', 'individual_digits': True}},
    {'normalizer': {'type': 'NFC'}},
    {'post_processor': None},
    {'added_tokens': [{'id': 270, 'content': '<|x|>', **FLAGS}]},
  ],
  ids=str,
)
def test_whatever_changes_ids_is_a_differing_text(change, tmp_path):
  ours = years_tokenizer()
  ours.backend_tokenizer.post_processor = (
    tokenizers.processors.TemplateProcessing(
      single=f'{END_OF_TEXT} $A', special_tokens=[(END_OF_TEXT, 0)]
    )
  )
  save(ours, tmp_path)
  assert not differing_text(ours, tmp_path)
  path = tmp_path / 'tokenizer.json'
  content = json.loads(path.read_text())
  path.write_text(json.dumps(content | change))
  assert differing_text(ours, tmp_path)


def test_texts_of_the_caller_are_compared_too(tmp_path):
  ours = years_tokenizer()
  save(ours, tmp_path)
  path = tmp_path / 'tokenizer.json'
  content = json.loads(path.read_text())
  replace = {'type': 'Replace', 'pattern': {'String': 'gold'}, 'content': 'x'}
  path.write_text(json.dumps(content | {'normalizer': replace}))
  assert not differing_text(ours, tmp_path)
  assert differing_text(ours, tmp_path, ['ok', 'a gold ring']) == 'a gold ring'


# -------------------------------------------------------------------- beside


def test_the_tokenizer_beside_records_is_in_their_folder(trained, tmp_path):
  trained.save_pretrained(tmp_path / 'tokenizer')
  assert beside(str(tmp_path)) == str(tmp_path / 'tokenizer')
  assert load(beside(str(tmp_path))).get_vocab() == trained.get_vocab()


def test_records_without_a_tokenizer_beside_them_are_named(tmp_path):
  message = f'{tmp_path}/tokenizer: no tokenizer there; name its folder'
  with pytest.raises(ValueError, match=message):
    beside(str(tmp_path))
  (tmp_path / 'tokenizer').mkdir()  # a copy that was cut
  with pytest.raises(ValueError, match=message):
    beside(str(tmp_path))


# ------------------------------------------------------ encoder, special tokens


def test_an_encoder_has_no_past_and_no_post_processor(trained):
  """Only ids and offsets: no limit, no padding, no token around the text."""
  used = train(TEXTS, vocab_size=280)
  used.backend_tokenizer.post_processor = (
    tokenizers.processors.TemplateProcessing(
      single=f'{END_OF_TEXT} $A', special_tokens=[(END_OF_TEXT, 0)]
    )
  )
  used(list(TEXTS), padding=True, truncation=True, max_length=4)
  assert len(used(TEXTS[0], truncation=True, max_length=4)['input_ids']) == 4
  encoding = rust_tokenizer(used).encode(TEXTS[0], add_special_tokens=True)
  assert encoding.ids == trained(TEXTS[0])['input_ids']
  assert used.backend_tokenizer.truncation is not None, 'it is a copy'


@pytest.mark.parametrize(('as_text', 'specials'), [(False, 2), (True, 0)])
def test_the_text_of_a_special_token_is_a_token_or_only_text(
  trained, as_text, specials
):
  text = f'a{END_OF_TEXT}b{END_OF_TEXT}'
  ids = rust_tokenizer(trained, as_text).encode(text).ids
  assert ids.count(0) == specials
  assert trained.decode(ids) == text


def test_a_token_that_is_added_makes_another_encoder():
  growing = train(TEXTS, vocab_size=280)
  before = rust_tokenizer(growing).encode('<|end|>').ids
  growing.add_special_tokens({'additional_special_tokens': ['<|end|>']})
  assert len(before) > 1
  assert rust_tokenizer(growing).encode('<|end|>').ids == [280]


def test_special_tokens_are_those_that_a_template_alone_may_write():
  """A tool's tag is a token like any other: an agent writes it itself."""
  tokenizer = train(TEXTS, vocab_size=280)
  assert special_ids(tokenizer) == {0: END_OF_TEXT}
  tokenizer.add_tokens(['<tool_call>'])
  tokenizer.add_special_tokens({'additional_special_tokens': ['<|end|>']})
  assert special_ids(tokenizer) == {0: END_OF_TEXT, 281: '<|end|>'}


# --------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_16_hexadecimal_digits(trained):
  digest = fingerprint(trained, RENDERING)
  assert len(digest) == 16 and set(digest) <= set('0123456789abcdef')


def test_whatever_decides_the_ids_is_in_the_fingerprint(trained):
  normalizing = train(TEXTS, vocab_size=280)
  normalizing.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  with_another_token = train(TEXTS, vocab_size=280)
  with_another_token.add_tokens(['Zn'])
  with_a_special_token = train(TEXTS, vocab_size=280)
  with_a_special_token.add_tokens(['Zn'], special_tokens=True)
  digests = [
    fingerprint(trained, RENDERING),
    fingerprint(trained, {**RENDERING, 'template': '{{ y }}'}),
    fingerprint(trained, {**RENDERING, 'values': {'thinking': True}}),
    fingerprint(trained, {**RENDERING, 'values': {'thinking': False}}),
    fingerprint(trained, {**RENDERING, 'special_text': 'escape'}),
    fingerprint(trained, {}),
    fingerprint(train(TEXTS, vocab_size=279), RENDERING),
    fingerprint(train(TEXTS[:1], vocab_size=280), RENDERING),
    fingerprint(normalizing, RENDERING),
    fingerprint(with_another_token, RENDERING),
    fingerprint(with_a_special_token, RENDERING),
  ]
  assert len(set(digests)) == len(digests)


def test_what_decides_nothing_is_not_in_the_fingerprint(trained):
  same = train(TEXTS, vocab_size=280)
  same.chat_template = 'not the one that is used'
  assert fingerprint(same, RENDERING) == fingerprint(trained, RENDERING)
  reverse = dict(reversed(RENDERING.items()))
  assert list(reverse) != list(RENDERING)
  assert fingerprint(trained, reverse) == fingerprint(trained, RENDERING)
  assert fingerprint(trained, {'values': {'a': 1, 'b': 2}}) == fingerprint(
    trained, {'values': {'b': 2, 'a': 1}}
  )


def test_using_a_tokenizer_does_not_change_its_fingerprint():
  """A batched call leaves its padding and its limit in the tokenizer."""
  used = train(TEXTS, vocab_size=280)
  before = fingerprint(used, RENDERING)
  used(list(TEXTS), padding=True, truncation=True, max_length=4)
  assert fingerprint(used, RENDERING) == before


# --------------------------------------------------------------------- check


def test_the_tokenizer_that_made_records_is_accepted(trained):
  made = fingerprint(trained, RENDERING)
  metadata = {'fingerprint': made, 'rendering': RENDERING}
  assert check(trained, metadata, 'records') == made
  assert check(train(TEXTS, vocab_size=280), metadata, 'records') == made


def test_another_tokenizer_is_refused_with_the_remedy(trained):
  """Its own digest is taken with the rendering of the records."""
  theirs = fingerprint(trained, RENDERING)
  other = train(TEXTS, vocab_size=279)
  message = (
    f'runs/records was rendered with fingerprint {theirs}, but this tokenizer '
    f'gives {fingerprint(other, RENDERING)}, so that its ids mean something '
    'else; name the tokenizer that made the records, or prepare them again'
  )
  metadata = {'fingerprint': theirs, 'rendering': RENDERING}
  with pytest.raises(ValueError, match=f'^{message}$'):
    check(other, metadata, 'runs/records')


@pytest.mark.parametrize(
  'change',
  [
    {'rendering': {**RENDERING, 'template': 'another'}},
    {'rendering': {}},
    {'fingerprint': 'feed5eed'},
  ],
  ids=str,
)
def test_metadata_that_do_not_fit_together_are_refused(trained, change):
  made = fingerprint(trained, RENDERING)
  metadata = {'fingerprint': made, 'rendering': RENDERING, **change}
  with pytest.raises(ValueError, match='was rendered with fingerprint'):
    check(trained, metadata, 'records')


@pytest.mark.parametrize('metadata', [{}, {'rendering': RENDERING}])
def test_records_that_do_not_say_what_made_them_are_refused(trained, metadata):
  with pytest.raises(ValueError, match='rendered with fingerprint None'):
    check(trained, metadata, 'records')


def test_the_end_marker_is_what_the_module_says(trained):
  assert tokenizer_lib.END_OF_TEXT == '<|endoftext|>'
  assert trained.decode([0]) == '<|endoftext|>'
