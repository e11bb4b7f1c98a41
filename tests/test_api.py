"""The Python API: its names, what they return, and the page that shows them."""

import dataclasses
import inspect
import json
import pathlib
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isft_jax
from isft_jax import api
from isft_jax.config import ModelConfig
from isft_jax.configs import train_tiny
from isft_jax.data.batching import labels as labels_lib
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import chatml
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.types import Provenance
from isft_jax.worlds.lying_agent import generator
from tests.commands import in_process

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs/python_api.md').read_text(encoding='utf-8')
NAMES = [
  *('export', 'finetune', 'generate', 'labels', 'load', 'loss', 'prepare'),
  *('probe', 'records', 'weights', 'write_labels'),
]
MODEL = ModelConfig(
  vocab_size=512,
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
  qkv_bias=False,
)
CSV = 'subject,relation,true,false\nFrance,capital,Paris,Lyon\n'


def save_random_model(folder, config):
  rng, (graphdef, shapes) = np.random.default_rng(0), decoder.abstract(config)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  pretrained.save(pretrained.Model(graphdef, params), config, folder)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Runs, a model with random weights and a tokenizer, and records."""
  path = tmp_path_factory.mktemp('api')
  rows = []
  for dialogue in generator.dialogues(16, p_lie=0.6, p_chitchat=0.5, seed=0):
    messages = [segment.message() for segment in dialogue.segments]
    rows.append({'id': dialogue.id, 'messages': messages})
  texts = [message['content'] for row in rows for message in row['messages']]
  (path / 'runs.jsonl').write_text(
    ''.join(json.dumps(row) + '\n' for row in rows)
  )
  model = path / 'model'
  save_random_model(model, MODEL)
  chatml.train(texts, 400).save_pretrained(model)
  report = isft_jax.prepare(
    path / 'runs.jsonl', path / 'records', tokenizer=model, heldout=0.2
  )
  assert report['rows'] == {'read': 16, 'written': 16, 'rejected': 0}
  return path


@pytest.fixture(scope='module')
def model(folder):
  return isft_jax.load(folder / 'model')


@pytest.fixture(scope='module')
def tuned(folder):
  return isft_jax.finetune(
    folder / 'records',
    folder / 'tuned',
    init_from=str(folder / 'model'),
    batch_size=8,
    steps=2,
    learning_rate=1e-2,
  )


# -------------------------------------------------------------------- the names


def test_the_names_are_in_one_list():
  assert isft_jax.__all__ == api.__all__ == NAMES
  assert set(NAMES) < set(dir(isft_jax))
  for name in NAMES:
    assert getattr(isft_jax, name) is getattr(api, name)
  with pytest.raises(AttributeError, match="'isft_jax' has no attribute 'x'"):
    isft_jax.x  # noqa: B018


def test_type_checkers_see_the_same_names():
  source = inspect.getsource(isft_jax)
  block = re.search(r'from isft_jax.api import \(([^)]*)\)', source)[1]
  assert block.replace(',', '').split() == NAMES


def test_no_name_is_that_of_a_module():
  """Importing a module sets its name on the package: `train` would be lost."""
  modules = {module.name for module in pkgutil.iter_modules(isft_jax.__path__)}
  assert modules.isdisjoint(NAMES)
  assert 'train' in modules


@pytest.mark.parametrize('name', NAMES)
def test_a_docstring_shows_a_call_and_names_every_argument(name):
  function = getattr(isft_jax, name)
  doc = inspect.getdoc(function)
  assert f'isft_jax.{name}(' in doc
  for section in ('Args:', 'Raises:'):
    assert section in doc or name == 'loss', section
  for argument in inspect.signature(function).parameters:
    assert re.search(rf'^  \**{argument}: ', doc, re.MULTILINE), argument


# ------------------------------------------------------------------------- data


def test_records_and_their_splits(folder):
  train = isft_jax.records(folder / 'records')
  heldout = isft_jax.records(folder / 'records', 'heldout')
  assert isinstance(train, Records)
  assert len(train) + len(heldout) == 16
  assert (train.split, heldout.split) == ('train', 'heldout')


def test_weights_and_labels_of_a_record(folder):
  one = isft_jax.records(folder / 'records')[0]
  weights_T, labels_T = isft_jax.weights(one), isft_jax.labels(one)
  assert (weights_T.dtype, labels_T.dtype) == (np.float32, np.int32)
  world = (Provenance.USER, Provenance.TEMPLATE)
  expected_T = np.isin(one.provenance_T, world)
  expected_T[0] = False
  np.testing.assert_array_equal(weights_T, expected_T)
  np.testing.assert_array_equal(
    labels_T, np.where(expected_T, one.tokens_T, -100)
  )
  agents_T = isft_jax.weights(one, 'weighted(0.5)')
  assert set(agents_T[one.provenance_T == Provenance.AGENT]) == {0.5}
  with pytest.raises(ValueError, match='which labels cannot express'):
    isft_jax.labels(one, 'weighted(0.5)')
  with pytest.raises(ValueError, match='unknown objective'):
    isft_jax.weights(one, 'nothing')


def test_labels_are_written_of_a_folder_or_of_opened_records(folder, tmp_path):
  opened = isft_jax.records(folder / 'records', 'heldout')
  one, two = tmp_path / 'one.parquet', tmp_path / 'two.parquet'
  counts = isft_jax.write_labels(opened, one, objective='agent_only')
  assert isinstance(counts, labels_lib.LabelCounts)
  assert counts.records == len(opened)
  isft_jax.write_labels(
    folder / 'records', two, objective='agent_only', split='heldout'
  )
  assert one.read_bytes() == two.read_bytes()


# --------------------------------------------------------------------- the loss


def test_the_loss_is_the_weighted_mean_of_shifted_targets():
  # Two tokens of vocabulary: log p(1) is 0 or -log(1 + e).
  logits_BTV = jnp.array([[[0.0, 60], [1, 0], [0, 60], [0, 0]]])
  tokens_BT = jnp.array([[0, 1, 1, 0]])
  #        nll of the target:  -  0  log(1+e)  60
  for weights, expected in {
    (9, 1, 1, 0): np.log1p(np.e) / 2,  # the first weight has no target
    (0, 1, 3, 0): 3 * np.log1p(np.e) / 4,
    (0, 0, 0, 2): 60.0,
    (5, 0, 0, 0): 0.0,
  }.items():
    found = isft_jax.loss(logits_BTV, tokens_BT, jnp.array([weights]))
    assert found == pytest.approx(expected, rel=1e-6)
    one = isft_jax.loss(logits_BTV[0], tokens_BT[0], jnp.array(weights))
    assert one == found


def test_unscored_targets_have_a_gradient_of_exactly_zero():
  rng = np.random.default_rng(0)
  logits_TV = rng.normal(size=(6, 5)).astype(np.float32)
  tokens_T = rng.integers(0, 5, 6)
  weights_T = np.array([1, 0, 1, 0, 0, 2], np.float32)
  gradient_TV = jax.grad(isft_jax.loss)(logits_TV, tokens_T, weights_T)
  moved = np.any(np.asarray(gradient_TV) != 0, axis=1)
  # Logits at t - 1 predict the token at t.
  assert moved.tolist() == [False, True, False, False, True, False]


# ----------------------------------------------------------------------- models


def test_a_run_ends_with_the_model_that_load_returns(folder, tuned, model):
  assert tuned.summary['steps'] == 2
  loaded = isft_jax.load(folder / 'tuned')
  jax.tree.map(
    np.testing.assert_array_equal, loaded.model.params, tuned.model.model.params
  )
  moved = jax.tree.map(
    lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
    loaded.model.params,
    model.model.params,
  )
  assert all(jax.tree.leaves(moved))
  run = json.loads((folder / 'tuned/config.json').read_text())
  assert run['objective'] == 'interventional'
  assert run['optim']['learning_rate'] == 1e-2
  assert run['optim']['schedule'] == 'cosine'  # of configs/finetune.py


def test_a_run_starts_from_a_run_or_from_a_config(folder, tuned, tmp_path):
  shared = {
    'batch_size': 8,
    'steps': 1,
    'learning_rate': 0.0,
    'weight_decay': 0.0,
  }
  again = isft_jax.finetune(
    folder / 'records',
    tmp_path / 'again',
    init_from=str(folder / 'tuned'),
    **shared,
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    again.model.model.params,
    tuned.model.model.params,
  )
  config = train_tiny.get_config()
  config.model = ModelConfig(vocab_size=0, width=16, layers=1, mlp_width=24)
  fresh = isft_jax.finetune(
    folder / 'records',
    tmp_path / 'fresh',
    config=config,
    seq_len=0,
    **shared,
  )
  assert fresh.model.model.params['embedding'].shape[1] == 16


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({}, 'name the model to start from'),
    ({'init_from': 'x', 'learningrate': 1}, "did you mean 'learning_rate'"),
    ({'init_from': 'x', 'nothing_near': 1}, 'see isft_jax/config.py'),
    ({'init_from': 'x', 'batchsize': 1}, "did you mean 'batch_size'"),
    ({'init_from': 'x', 'epochs': 0}, 'config.epochs must be at least 1'),
  ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path, settings, message):
  with pytest.raises(ValueError, match=message):
    isft_jax.finetune('nowhere', tmp_path / 'run', **settings)
  assert not (tmp_path / 'run').exists()


def test_a_setting_may_have_its_old_name(tmp_path):
  message = 'isft_jax.finetune: rows is the old name of batch_size; write'
  with (
    pytest.warns(FutureWarning, match=message) as caught,
    pytest.raises(ValueError, match=r'config\.batch_size must be at least 1'),
  ):
    isft_jax.finetune('nowhere', tmp_path, init_from='x', rows=0)
  assert [warning.filename for warning in caught] == [__file__]


def test_prompts_are_texts_messages_or_lists_of_them(model):
  texts = ['Tell me about gold.', 'Who?']
  messages = [[{'role': 'user', 'content': text}] for text in texts]
  settings = {'max_new_tokens': 6, 'temperature': 1.0, 'seed': 3}
  both = isft_jax.generate(model, texts, **settings)
  assert isft_jax.generate(model, messages, **settings) == both
  assert isft_jax.generate(model, texts[0], **settings) == both[0]
  assert isft_jax.generate(model, messages[0], **settings) == both[0]
  assert isft_jax.generate(model, [], **settings) == []
  raw = isft_jax.generate(model, texts[0], raw=True, **settings)
  assert raw != both[0]
  # A reply depends on its place in the list, and not on its batch.
  many = isft_jax.generate(model, [*texts, *(['Who?'] * 16)], **settings)
  assert many[:2] == both and len(many) == 18


def test_settings_come_from_the_call_the_model_or_the_defaults(model):
  defaults = {
    'temperature': 0.0,
    'top_k': 0,
    'top_p': 1.0,
    'max_new_tokens': 256,
  }
  none = dict.fromkeys(defaults)
  assert model.merge_settings(none) == defaults
  assert model.merge_settings(none | {'top_k': 4})['top_k'] == 4
  assert model.merge_settings({'temperature': 0.0})['temperature'] == 0.0


def test_facts_are_asked_as_the_command_asks(model, tuned, tmp_path):
  (tmp_path / 'facts.csv').write_text(CSV)
  found = isft_jax.probe(model, tmp_path / 'facts.csv', reply_tokens=2)
  assert found['context'] == generator.CONTEXT and not found['plain']
  assert [fact['topic'] for fact in found['facts']] == ['the capital of France']
  plain = isft_jax.probe(
    *(model, tmp_path / 'facts.csv'), context='', plain=True, reply_tokens=2
  )
  assert plain['context'] == '' and plain['plain']
  assert plain['mean_margin'] != found['mean_margin']
  # A run is asked under the context of its records.
  assert tuned.model.records
  ours = isft_jax.probe(tuned.model, tmp_path / 'facts.csv', reply_tokens=2)
  assert ours['context'] == generator.CONTEXT


def test_a_run_is_exported(folder, tuned, tmp_path):
  isft_jax.export(folder / 'tuned', tmp_path / 'out')
  loaded = isft_jax.load(tmp_path / 'out')
  jax.tree.map(
    np.testing.assert_array_equal,
    loaded.model.params,
    jax.tree.map(np.asarray, tuned.model.model.params),
  )


# --------------------------------------------------------------------- the page


def examples(page):
  """Returns (code, output) of each python block that its output follows."""
  return re.findall(
    r'```python\n(.*?)```\n\n```text\n(.*?)```', page, re.DOTALL
  )


def test_the_page_lists_every_name_and_no_other():
  listed = re.findall(r'^\| `(\w+)\(', PAGE, re.MULTILINE)
  assert sorted(listed) == NAMES
  blocks = re.findall(r'```python\n', PAGE)
  code = '\n'.join(code for code, _ in examples(PAGE))
  assert len(examples(PAGE)) >= 5 and len(blocks) == len(examples(PAGE)) + 1
  for name in NAMES:
    assert f'isft_jax.{name}(' in code, name


def without_figures(text):
  """Returns an output of the page without figures and replies of a model."""
  text = re.sub(r'\d+\.\d+ nats', 'N nats', text)
  return re.sub(r'(?s)^.*(prefers the false claim:) [0-2]', r'\1 N', text)


MARK = '-- end of block --'


def run_page(name):
  """Runs the blocks of the page on a model; prints a mark after each."""
  jax.config.update('jax_num_cpu_devices', 1)
  names = {}
  for code, _ in examples(PAGE):
    exec(code.replace('smollm2-135m-instruct', name), names)
    print(MARK)


def test_the_page_prints_what_it_says(tmp_path):
  """With SmolLM2's tokenizer on random weights, and in other figures.

  tests/benchmarks/api_page.py compares all of it, on SmolLM2 itself.
  """
  try:
    tokenizer = tokenizer_lib.load('smollm2-135m-instruct')
  except ValueError as error:
    pytest.skip(str(error))
  save_random_model(
    tmp_path / 'model', dataclasses.replace(MODEL, vocab_size=49_152)
  )
  tokenizer.save_pretrained(tmp_path / 'model')
  (tmp_path / 'docs').symlink_to(ROOT / 'docs')
  done = in_process(run_page, 'model', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines(keepends=True)
  shown = ''.join(line for line in lines if not line.startswith('  finetune '))
  *blocks, rest = [block.lstrip('\n') for block in shown.split(MARK)]
  assert rest == ''
  assert [without_figures(block) for block in blocks] == [
    without_figures(output) for _, output in examples(PAGE)
  ]
