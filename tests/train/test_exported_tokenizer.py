"""An exported model reads texts as its run did, and so gives its figures."""

import json

import jax
import pytest
import tokenizers
import transformers

import isft_jax
from isft_jax.config import ModelConfig
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.models import decoder
from isft_jax.train import export
from isft_jax.worlds.lying_agent.facts import Fact
from tests.dialogues import dialogues, write_records
from tests.train.saved_runs import save_run

MODEL = ModelConfig(
  vocab_size=512,
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
)
FACTS = [
  Fact(
    f'the year of the {thing}',
    f'The year of the {thing} is {true}.',
    f'The year of the {thing} is {false}.',
    true,
    false,
  )
  for thing, true, false in (
    ('tower', '1889', '1898'),
    ('moon', '1969', '1996'),
  )
]
TEXTS = (
  'In 1889 and 1969, 1234567 of 3.14.\n',
  "User: it's 2 x 21?\nAgent: 42 <|endoftext|>\n",
  *(fact.true_claim for fact in FACTS),
)


@pytest.fixture(scope='module')
def encoder():
  """A tokenizer whose tokens have several digits, unlike Qwen2's."""
  text = chat_template.ChatTemplate(chat_template.PLAIN).text
  years = ' '.join(f'{fact.true_claim} {fact.false_claim}' for fact in FACTS)
  return tokenizer_lib.train([*map(text, dialogues()[:8]), *[years] * 50], 512)


@pytest.fixture(scope='module')
def workdir(encoder, tmp_path_factory):
  """A run of the tiny experiment's family, on records that are still there."""
  path = tmp_path_factory.mktemp('run')
  renderer = Renderer(encoder, chat_template.PLAIN)
  records = write_records(path / 'records', dialogues()[:4], renderer)
  params = decoder.init(MODEL, jax.random.key(0))
  save_run(path, MODEL, params, f'{records}/tokenizer', records)
  return path


@pytest.fixture(scope='module')
def exported(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported') / 'model'
  export.export(str(workdir), str(folder))
  return folder


def test_auto_tokenizer_and_ours_read_texts_as_the_run(encoder, exported):
  ids = [encoder(text)['input_ids'] for text in TEXTS]
  assert len(encoder(' 1889')['input_ids']) == 1
  for found in (
    transformers.AutoTokenizer.from_pretrained(exported),
    tokenizer_lib.load(str(exported)),
  ):
    assert [found(text)['input_ids'] for text in TEXTS] == ids
    assert found.get_vocab() == encoder.get_vocab()
    assert (found.eos_token_id, found.pad_token_id) == (0, 0)


def test_the_probes_of_the_export_are_those_of_the_checkpoint(
  workdir, exported
):
  options = {'plain': True, 'context': 'c', 'reply_tokens': 2}
  run, model = isft_jax.load(workdir), isft_jax.load(exported)
  # A run is loaded onto all devices, which sum in another order.
  params = jax.device_put(run.model.params, jax.devices()[0])
  run.model = run.model._replace(params=params)
  expected = isft_jax.probe(run, FACTS, **options)
  assert isft_jax.probe(model, FACTS, **options) == expected
  assert expected['facts'][0]['margin'] != 0


def test_a_warning_says_why_config_json_is_that_of_seed_oss(
  workdir, tmp_path, caplog
):
  export.export(str(workdir), str(tmp_path / 'model'))
  (message,) = caplog.messages
  assert message.startswith(f'{tmp_path}/model: transformers would give a qwen')
  assert message.endswith('config.json says seed_oss, the same decoder')
  content = json.loads((tmp_path / 'model' / 'config.json').read_text())
  assert content['model_type'] == 'seed_oss'


def test_a_run_with_the_tokenizer_of_qwen2_stays_qwen2(
  encoder, tmp_path, caplog
):
  model = json.loads(encoder.backend_tokenizer.to_str())['model']
  merges = [tuple(pair) for pair in model['merges']]
  found = transformers.Qwen2Tokenizer(model['vocab'], merges)
  found.save_pretrained(tmp_path / 'tokenizer')
  params = decoder.init(MODEL, jax.random.key(0))
  save_run(tmp_path / 'run', MODEL, params, str(tmp_path / 'tokenizer'))
  export.export(str(tmp_path / 'run'), str(tmp_path / 'model'))
  assert not caplog.messages
  content = json.loads((tmp_path / 'model' / 'config.json').read_text())
  assert content['model_type'] == 'qwen2'
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'model')
  for text in TEXTS:
    assert again(text)['input_ids'] == found(text)['input_ids']


@pytest.mark.parametrize('change', ['a token', 'a word of the records'])
def test_a_tokenizer_that_is_not_read_back_is_an_error(
  change, workdir, tmp_path, monkeypatch
):
  """Neither in the fixed texts nor in the vocabulary is the second word."""
  read = transformers.AutoTokenizer.from_pretrained

  def read_otherwise(place, **options):
    found = read(place, **options)
    if '.model.part' in str(place) and change == 'a token':
      found.add_tokens(['zinc'])
    elif '.model.part' in str(place):
      found.backend_tokenizer.normalizer = tokenizers.normalizers.Replace(
        'Agent: ', 'Agent:'
      )
    return found

  monkeypatch.setattr(
    transformers.AutoTokenizer, 'from_pretrained', read_otherwise
  )
  message = (
    f'^{tmp_path}/model: AutoTokenizer would read .* otherwise than the run; '
    'export it with another version of transformers$'
  )
  with pytest.raises(ValueError, match=message):
    export.export(str(workdir), str(tmp_path / 'model'))
  assert not [*tmp_path.glob('[!.]*')]
