"""isft-probe: whose model, which facts, in which words; errors as one line."""

import json
import types

import jax
import numpy as np
import pytest

from isft_jax.config import ModelConfig, RunConfig
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.worlds.lying_agent import facts, generator
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.probes import probe
from tests.commands import command, error_line
from tests.dialogues import chatml_tokenizer, dialogues, write_records

MODEL = ModelConfig(
  vocab_size=512,
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
)
CSV = """\
subject,relation,true,false
France,capital,Paris,Lyon
Paris,river,Seine,Paris
"""
FRANCE = Fact(
  'the capital of France',
  'The capital of France is Paris.',
  'The capital of France is Lyon.',
  'Paris',
  'Lyon',
)


@pytest.fixture(scope='module')
def encoder():
  return chatml_tokenizer()


@pytest.fixture(scope='module')
def model():
  rng, (graphdef, shapes) = np.random.default_rng(0), decoder.abstract(MODEL)
  return pretrained.Model(
    graphdef,
    jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
    ),
  )


@pytest.fixture(scope='module')
def folder(encoder, model, tmp_path_factory):
  """The model with its chat template, as a Hugging Face folder."""
  path = tmp_path_factory.mktemp('model')
  pretrained.save(model, MODEL, path)
  encoder.save_pretrained(path)
  return path


@pytest.fixture(scope='module')
def workdir(encoder, model, tmp_path_factory):
  """The model as a run on records in the plain format has left it."""
  path = tmp_path_factory.mktemp('run')
  renderer = Renderer(encoder, chat_template.PLAIN)
  records = write_records(path / 'records', dialogues()[:4], renderer)
  encoder.save_pretrained(path / 'tokenizer')
  config = RunConfig(
    records=records,
    tokenizer=str(path / 'tokenizer'),
    model=MODEL,
  )
  params = model.params
  opt_state = {'none': params['norm']}
  state = types.SimpleNamespace(params=params, opt_state=opt_state)
  with Checkpoints(path, config) as checkpoints:
    checkpoints.save(1, state, {}, 'fingerprint')
  return path


def close(found, expected):
  """Another number of devices, another order of sums in float32."""
  assert found['truth_probe'] == expected['truth_probe']
  assert found['lie_probe'] == expected['lie_probe']
  for ours, theirs in zip(found['facts'], expected['facts'], strict=True):
    # About ten terms of size 7, as in tests/worlds/lying_agent/test_probes.py.
    margins = {
      name: pytest.approx(theirs[name], abs=2e-5)
      for name in ('margin', 'paper_margin')
    }
    assert ours == theirs | margins


def test_a_checkpoint_is_asked_as_its_records_were_rendered(
  workdir, model, encoder, tmp_path
):
  path = tmp_path / 'probes.json'
  flags = f'--checkpoint={workdir}', f'--output={path}', '--reply_tokens=4'
  done = command('probe', *flags)
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  close(
    found, probe(*model, facts.FACTS, Renderer(encoder, chat_template.PLAIN), 4)
  )
  assert found['model'] == str(workdir)
  assert found['context'] == generator.CONTEXT  # the records'
  lines = done.stdout.splitlines()
  row = next(line for line in lines if line.startswith('the longest river'))
  margin = {f['topic']: f['margin'] for f in found['facts']}
  assert row.split()[6] == f'{margin["the longest river in the world"]:+.3f}'
  assert lines[-1] == f'the probes are in {path}'


def test_a_folder_is_asked_in_its_own_template_of_facts_in_a_table(
  folder, model, encoder, tmp_path
):
  path, table = tmp_path / 'probes.json', tmp_path / 'facts.csv'
  table.write_text(CSV)
  flags = f'--model={folder}', f'--facts={table}', f'--output={path}'
  done = command('probe', *flags, '--reply_tokens=4')
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  close(found, probe(*model, [FRANCE], Renderer(encoder), 4))
  assert found['plain'] is False
  assert found['context'] == generator.CONTEXT
  assert 'skipped 1 of 2 facts' in done.stderr


@pytest.mark.parametrize(
  ('flag', 'expected'),
  [
    ([], 'Be kind.'),  # the file's
    (['--context='], ''),
    (['--context=@{folder}/context.txt'], 'Be patient.'),
  ],
)
def test_whose_context(folder, model, encoder, tmp_path, flag, expected):
  (tmp_path / 'context.txt').write_text('Be patient.\n')
  path, table = tmp_path / 'probes.json', tmp_path / 'facts.json'
  fact = {'topic': FRANCE.topic, 'true': FRANCE.true_claim}
  fact['false'] = FRANCE.false_claim
  table.write_text(json.dumps({'context': 'Be kind.\n', 'facts': [fact]}))
  flags = f'--model={folder}', f'--facts={table}', f'--output={path}', '--plain'
  done = command(
    'probe',
    *flags,
    '--reply_tokens=4',
    *(f.format(folder=tmp_path) for f in flag),
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  assert found['context'] == expected
  renderer = Renderer(encoder, chat_template.PLAIN)
  close(found, probe(*model, [FRANCE], renderer, 4, expected))


def test_a_flag_that_takes_the_other_kind_is_named(folder, workdir):
  line = error_line('probe', f'--checkpoint={folder}')
  assert f'give it as --model={folder}' in line
  line = error_line('probe', f'--model={workdir}')
  assert f'give it as --checkpoint={workdir}' in line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name either --checkpoint=WORKDIR or --model=FOLDER'),
    (['--checkpoint=a', '--model=b'], 'name either --checkpoint=WORKDIR'),
    (['--checkpoint=nowhere'], 'nowhere: no checkpoints there'),
    (['--model=/nowhere'], '/nowhere: no tokenizer there'),
    (['--model=x', '--facts=nowhere.csv'], 'nowhere.csv: No such file'),
    (['--model=x', '--facts=setup.py'], 'setup.py: '),
    (['--model=x', '--context=@nowhere.txt'], 'nowhere.txt: No such file'),
    (['--reply_tokens=0'], 'reply_tokens'),
    (['--checkpoint=x.gguf'], 'give it as --model=x.gguf'),
    (['--checkpoint=r', '--adapter=a'], '--adapter belongs to --model'),
    (['--model=m', '--base=b'], '--base belongs to --checkpoint'),
    (['--model=x', '--output=no/x.json'], 'the folder no does not exist'),
    (['--model=x', '--output=docs'], 'docs: a folder; name a file in it'),
    (['--model=x', '--context=@docs'], 'docs: a folder; name a file'),
    (['--model=x', '--facts=docs'], 'docs: a folder; name a file'),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  assert message in error_line('probe', *flags)
