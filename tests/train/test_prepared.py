"""From files of agent runs to a model that predicts the world better."""

import json
import random

import pytest

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.train import loop
from isft_jax.train import metrics as metrics_lib
from tests.data.chat_tokenizer import template, trained

CITIES = ('Paris', 'Rome', 'Oslo', 'Lima')


def runs(number):
  """Users ask for the weather; the tool knows it; the agent is at random."""
  rng = random.Random(0)
  for i in range(number):
    city = rng.choice(CITIES)
    call = {'name': 'weather', 'arguments': json.dumps({'city': city})}
    degrees = CITIES.index(city) * 10
    yield {
      'id': f'run {i}',
      'messages': [
        {'role': 'system', 'content': 'Help.'},
        {'role': 'user', 'content': f'The weather in {city}, please?'},
        {'role': 'assistant', 'content': None, 'tool_calls': [call]},
        {'role': 'tool', 'content': json.dumps({city: degrees, 'rain': False})},
        {'role': 'assistant', 'content': ' '.join(rng.choices(CITIES, k=3))},
        {'role': 'user', 'content': f'So {city} has {degrees} degrees.'},
      ],
    }


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  """The metrics of a short run under L_do."""
  folder = tmp_path_factory.mktemp('prepared')
  lines = map(json.dumps, runs(80))
  (folder / 'runs.jsonl').write_text('\n'.join(lines))
  prepare.prepare(
    prepare.Settings(str(folder / 'runs.jsonl'), heldout=0.2),
    Renderer(trained(), template('chatml')),
    Rules.default(),
    str(folder / 'records'),
  )
  config = RunConfig(
    records=str(folder / 'records'),  # tokenizer and held-out split are there
    batch_size=8,
    seq_len=256,
    targets_per_row=256,
    steps=30,
    eval_every=10,
    log_every=10,
    model=ModelConfig(
      vocab_size=0, width=32, layers=2, heads=2, head_size=16, mlp_width=64
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )
  loop.train(config, str(folder / 'run'))
  return metrics_lib.read(folder / 'run' / 'metrics.jsonl')


@pytest.mark.parametrize('author', ['TOOL', 'USER'])
def test_the_world_is_predicted_better_in_training_and_held_out(rows, author):
  first, last = rows[0]['nll_by_author'], rows[-1]['nll_by_author']
  assert last[author] < 0.6 * first[author]
  measured = [r['heldout_nll_by_author'] for r in rows if r['step'] % 10 == 0]
  assert len(measured) == 3
  falls = [nll[author] for nll in measured]
  assert falls == sorted(falls, reverse=True)
  assert falls[-1] < 0.6 * first[author]


def test_the_agents_words_are_measured_and_not_trained_on(rows):
  """They are at random: nobody could learn to predict them."""
  assert all('AGENT' not in row['nll_by_author'] for row in rows)
  assert 'AGENT' in rows[-1]['heldout_nll_by_author']
