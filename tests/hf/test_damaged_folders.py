"""A damaged model folder loads as before, or is refused in one line.

Each seed damages one file: a value of JSON of a wrong kind or out of range, a
missing key, a cut or another text, the header of weights, a chat template.
"""

import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from isft_jax import api
from isft_jax.config import ModelConfig
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.hf import config_json, pretrained, tensor_files
from isft_jax.inference import chat_loop
from isft_jax.models import decoder
from isft_jax.train import start
from tests.commands import error_line
from tests.damaged_files import POINTER
from tests.hf import damaged_folders
from tests.hf.damaged_folders import flaw_of

SEEDS = 308  # 44 for each file
FIRST = 'model-00001-of-00003.safetensors'


def init_from(folder):
  """What isft-train starts from: the shape, then the weights."""
  config = start.with_shape(ModelConfig(init_from=folder))
  model, _ = pretrained.load(folder)
  leaves = jax.tree.leaves(jax.tree.map(np.asarray, model.params))
  return [repr(config).replace(folder, ''), *(x.tobytes() for x in leaves)]


def chat(folder):
  """What isft-generate, isft-probe and isft_jax.load prompt a model with."""
  model = api.load(folder)
  settings = model.merge_settings({})
  line = chat_loop.describe(model, settings, model.stop_texts, raw=False)
  turns = [{'role': 'user', 'content': 'Tell me about 12 metals.'}]
  prompts = [model.prompt(turns), model.prompt('Gold is')]
  return [line, *(prompt.ids_T.tolist() for prompt in prompts)]


def tokenizer(folder):
  """What isft-prepare, isft-inspect and isft-export take of a tokenizer."""
  loaded = tokenizer_lib.load(folder)
  renderer = Renderer(loaded)
  return [renderer.metadata(), loaded('Gold and 12 words.')['input_ids']]


ENTRANCES = {'init_from': init_from, 'chat': chat, 'tokenizer': tokenizer}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return damaged_folders.write_folder(tmp_path_factory.mktemp('model') / 'm')


@pytest.fixture(scope='module', autouse=True)
def quick_shapes():
  """Tracing the decoder takes most of the time, and its shapes repeat."""
  known: dict = {}
  trace = decoder.abstract

  def abstract(config):
    if repr(config) not in known:
      known[repr(config)] = trace(config)
    return known[repr(config)]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(decoder, 'abstract', abstract)
    yield


def may_differ(file, what):
  """Returns whether a change may describe another model, which is no damage.

  A number in the place of a number, an optional setting that is missing, and a
  character in the text of a template or a token.
  """
  numbers = 'rms_norm_eps', 'rope_theta', 'max_new_tokens'
  return (
    file in ('generation_config.json', 'chat_template.jinja')
    or (file == 'config.json' and any(name in what for name in numbers))
    or any(key in what for key in ("'content'", '_token', 'special_tokens'))
  )


@pytest.mark.parametrize('block', range(7))
def test_damaged_folders_load_as_before_or_are_refused(block, folder, tmp_path):
  expected = {name: enter(str(folder)) for name, enter in ENTRANCES.items()}
  flaws, outcomes = [], dict.fromkeys(ENTRANCES, 0)
  for seed in range(block * SEEDS // 7, (block + 1) * SEEDS // 7):
    copy = shutil.copytree(folder, tmp_path / str(seed))
    file, what = damaged_folders.damage(copy, seed)
    for name, enter in ENTRANCES.items():
      flaw = ''
      try:
        result = enter(str(copy))
        if result != expected[name] and not may_differ(file, what):
          flaw = 'loads as another model'
      except BaseException as error:  # panics of Rust are no Exceptions
        outcomes[name] += 1
        flaw = flaw_of(error, str(copy))
      if flaw:
        flaws.append(f'seed {seed}, {file}: {what!a:.80}: {name} {flaw}')
    shutil.rmtree(copy)
  assert not flaws, '\n'.join(flaws)
  # The damage must be seen: a chat needs all files.
  assert outcomes['chat'] > SEEDS / 7 / 2
  assert min(outcomes.values()) > 5


# ------------------------------------------------------- one kind at a time


def config_with(**changes):
  def change(folder):
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

  return change


def rope(**values):
  return config_with(
    rope_parameters={'rope_type': 'default', 'rope_theta': 1e4, **values}
  )


def index_with(name, file):
  def change(folder):
    path = folder / tensor_files.INDEX
    index = json.loads(path.read_text())
    index['weight_map'][name] = file
    path.write_text(json.dumps(index))

  return change


def pointer(name):
  return lambda folder: (folder / name).write_bytes(POINTER)


def cut(name):
  def change(folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])

  return change


def in_a_folder(name):
  def change(folder):
    (folder / name).unlink()
    (folder / name).mkdir()

  return change


def linked(name):
  """Moves a file out of the folder, and links to it."""

  def change(folder):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)

  return change


NORM = 'model.norm.weight'
LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}
# What was done to the folder -> file and message of the refusal.
REFUSED = [
  (config_with(hidden_size=True), 'config.json: hidden_size=True must be an'),
  (config_with(hidden_size=16.0), 'hidden_size=16.0 must be an integer'),
  (config_with(vocab_size=0), 'vocab_size=0 must be an integer from 1 to'),
  (config_with(num_hidden_layers=10**12), 'num_hidden_layers=1000000000000'),
  (config_with(num_attention_heads=3), 'heads=3 must divide hidden_size=16'),
  (config_with(num_key_value_heads=0), 'num_key_value_heads=0 must be an'),
  (config_with(num_key_value_heads=3), '2 query heads do not divide into 3'),
  (config_with(head_dim=7), 'heads of size 7 cannot be rotated'),
  (config_with(head_dim=None, hidden_size=17), 'must divide hidden_size=17'),
  (config_with(rms_norm_eps=0), 'rms_norm_eps=0 must be a number from 1e-30'),
  (config_with(rms_norm_eps=float('nan')), 'rms_norm_eps=nan must be a number'),
  (config_with(rms_norm_eps=float('inf')), 'rms_norm_eps=inf must be a number'),
  (config_with(rms_norm_eps='1e-6'), "rms_norm_eps='1e-6' must be a number"),
  (rope(rope_theta=-1.0), 'has rope_theta=-1.0, which must be a number from 1'),
  (rope(rope_theta=float('nan')), 'has rope_theta=nan, which must be'),
  (rope(rope_theta=None), 'has rope_theta=None, which must be'),
  (rope(full_attention={}), "has the unknown attribute 'full_attention'"),
  (rope(**LLAMA3 | {'factor': 0}), 'has factor=0, which must be a number'),
  (
    rope(**LLAMA3 | {'low_freq_factor': 4.0}),
    'low_freq_factor=4 must be below',
  ),
  (config_with(rope_scaling=LLAMA3), 'rope_scaling=.* differs from rope_param'),
  (
    config_with(rope_parameters=[1]),
    r'rope_parameters=\[1\] must be an object',
  ),
  (config_with(layer_types=3), 'layer_types=3 must be a list'),
  (config_with(layer_types=['full_attention']), 'one entry for each layer'),
  (config_with(tie_word_embeddings='no'), "='no' must be true or false"),
  (
    config_with(model_type=['llama']),
    r"model_type=\['llama'\] is not supported",
  ),
  (index_with(NORM, '../m2.safetensors'), 'must be a .* in this folder'),
  (index_with(NORM, '/etc/passwd'), r"in this folder \(got '/etc/passwd'\)"),
  (index_with(NORM, '/x.safetensors'), 'must be a .* in this folder'),
  (index_with(NORM, 'sub\\x.safetensors'), 'must be a .* in this folder'),
  (index_with(NORM, 3), r'must be a .* in this folder \(got 3\)'),
  (linked(FIRST), f'{FIRST}: a link to .*, outside of the folder'),
  (pointer(FIRST), f'{FIRST}: a git-lfs pointer, not the file itself'),
  (pointer('config.json'), 'config.json: a git-lfs pointer'),
  (pointer('tokenizer.json'), 'tokenizer.json: a git-lfs pointer'),
  (pointer('chat_template.jinja'), 'chat_template.jinja: a git-lfs pointer'),
  (pointer(tensor_files.INDEX), f'{tensor_files.INDEX}: a git-lfs pointer'),
  (cut(FIRST), f'{FIRST}: cut off or damaged .*; download it again'),
  (cut('tokenizer.json'), 'tokenizer.json: not JSON'),
  (in_a_folder(FIRST), f'{FIRST}: a folder; name a file'),
  (in_a_folder('config.json'), 'config.json: a folder; name a file'),
  (in_a_folder('generation_config.json'), 'generation_config.json: a folder'),
]


@pytest.mark.parametrize(
  ('change', 'message'), REFUSED, ids=[message for _, message in REFUSED]
)
def test_what_is_wrong_is_named(change, message, folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'm')
  change(copy)
  with pytest.raises(ValueError, match=message) as failure:
    api.load(copy)
  assert flaw_of(failure.value, str(copy)) == ''


def test_weights_of_whole_numbers_are_refused(folder, tmp_path):
  """They are quantised, and would be read as large weights."""
  copy = shutil.copytree(folder, tmp_path / 'm')
  data = (copy / FIRST).read_bytes()
  (copy / FIRST).write_bytes(data.replace(b'"F32"', b'"I32"'))
  with pytest.raises(ValueError, match=f'{FIRST}: the type of .*got I32'):
    pretrained.load(copy)


def test_links_into_a_cache_of_the_hub_are_read(folder, tmp_path):
  """models--ORG--NAME/snapshots/REVISION links to models--ORG--NAME/blobs."""
  blobs = tmp_path / 'models--org--name' / 'blobs'
  snapshot = blobs.parent / 'snapshots' / 'revision'
  blobs.mkdir(parents=True)
  snapshot.mkdir(parents=True)
  for number, path in enumerate(sorted(folder.iterdir())):
    shutil.copy(path, blobs / str(number))
    (snapshot / path.name).symlink_to(f'../../blobs/{number}')
  assert chat(str(snapshot))[1:] == chat(str(folder))[1:]
  # A link to such a folder is one too.
  (tmp_path / 'link').symlink_to(snapshot)
  assert chat(str(tmp_path / 'link'))[1:] == chat(str(folder))[1:]


def test_a_new_file_of_weights_has_the_mode_of_the_umask(folder, tmp_path):
  model, config = pretrained.load(folder)
  before = os.umask(0o027)
  try:
    pretrained.save(model, config, tmp_path / 'm', shard_bytes=30_000)
  finally:
    os.umask(before)
  modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / 'm').iterdir()}
  assert len(modes) == 5
  assert set(modes.values()) == {0o640}


# ------------------------------------------------------------- and as commands


@pytest.mark.parametrize(
  ('name', 'flags', 'files'),
  [
    ('generate', ['--model={m}', '--prompt=x'], ('config.json', FIRST)),
    ('probe', ['--model={m}'], ('tokenizer.json', 'generation_config.json')),
    (
      'prepare',
      ['--input={m}/runs.jsonl', '--output={m}/out', '--tokenizer={m}'],
      ('tokenizer.json', 'chat_template.jinja'),
    ),
    (
      'inspect',
      ['--input={m}/runs.jsonl', '--tokenizer={m}'],
      ('tokenizer_config.json',),
    ),
  ],
)
def test_commands_end_with_one_line(name, flags, files, folder, tmp_path):
  turns = [{'role': r, 'content': 'Gold.'} for r in ('user', 'assistant')]
  # No warning about the tokenizer, which is not Qwen2's.
  config = json.dumps(config_json.to_json(damaged_folders.MODEL, True))
  for file in files:
    copy = shutil.copytree(folder, tmp_path / file / 'm')
    (copy / 'config.json').write_text(config)
    pathlib.Path(copy, 'runs.jsonl').write_text(json.dumps({'messages': turns}))
    pointer(file)(copy)
    line = error_line(name, *(flag.format(m=copy) for flag in flags))
    assert f'{copy}/{file}: a git-lfs pointer' in line


def test_training_ends_with_one_line(data_folder, folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'm')
  config_with(rms_norm_eps=-1.0)(copy)
  line = error_line(
    'train',
    '--config=finetune',
    f'--config.records={data_folder}/records',
    f'--config.tokenizer={data_folder}/tokenizer',
    f'--config.model.init_from={copy}',
    f'--workdir={tmp_path}/run',
  )
  assert f'{copy}/config.json: rms_norm_eps=-1.0 must be a number' in line
