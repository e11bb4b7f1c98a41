"""The evidence, every part of it, too small to show anything."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import evidence_tiny
from isft_jax import objectives
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, StageConfig
from isft_jax.data.records.dataset import Records
from isft_jax.experiments.config import (
  DialoguesConfig,
  DocumentsConfig,
  EvidenceConfig,
  FlywheelConfig,
  WorldsConfig,
)
from isft_jax.experiments.evidence import arms, bases, flywheel, grid
from isft_jax.experiments.evidence import results as results_lib
from isft_jax.train.optim import make_optimizer
from isft_jax.types import Provenance, Verdict
from isft_jax.worlds.lying_agent import fact_bank, generator
from isft_jax.worlds.lying_agent.probes import user_says

ARMS = ('observational', 'interventional', 'demonstration')


def stage(steps):
  return StageConfig(
    batch_size=2,
    seq_len=256,
    targets_per_row=256,
    steps=steps,
    optim=OptimConfig(learning_rate=3e-3),
  )


def config(**values):
  return EvidenceConfig(
    **{
      'seeds': 2,
      'facts': 8,
      'vocab_size': 480,
      'arms': ARMS,
      'heldout_arms': ARMS[:2],
      'model': ModelConfig(
        vocab_size=480, width=16, layers=1, head_size=4, mlp_width=32
      ),
      'mesh': MeshConfig(data=1),
      'documents': DocumentsConfig(number=30, p_true=0.75),
      'dialogues': DialoguesConfig(number=8, heldout=3, acknowledge='restate'),
      'pretrain': stage(4),
      'finetune': stage(3),
      'reply_tokens': 5,
      'flywheel': FlywheelConfig(rounds=2, arms=ARMS[:2], stage=stage(3)),
      'worlds': WorldsConfig(
        seeds=1,
        dialogues=8,
        styles=('restate', 'deny'),
        p_user_wrong=(0.0, 1.0),
        p_lie=(0.6,),
        stage=stage(3),
      ),
      **values,
    }
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('evidence')
  return workdir, grid.reproduce(config(), str(workdir))


def test_the_order_of_arms_does_not_decide_which_are_compared():
  """Two seeds by hand: 0.8 - 0.5 and 0.7 - 0.6 after the only round."""
  last = {('interventional', 0): 0.8, ('interventional', 1): 0.7}
  last |= {('observational', 0): 0.5, ('observational', 1): 0.6}
  runs = {
    (seed, arm): {
      'accuracy': [0.4, value],
      'heldout_accuracy': [0.4, value],
      'margin': 0.0,
      'unread': 0,
    }
    for (arm, seed), value in last.items()
  }
  for order in (('interventional', 'observational'), ARMS[:2]):
    settings = config(flywheel=FlywheelConfig(arms=order, stage=stage(3)))
    wheel = results_lib.flywheel(settings, runs)['interventional']
    before, after = wheel['against_observational']
    assert before['per_seed'] == [0.0, 0.0]
    np.testing.assert_allclose(after['per_seed'], [0.3, 0.1], rtol=1e-12)
    assert after['positive'] == 2


def test_results_have_the_promised_form(run):
  workdir, results = run
  assert results == json.loads((workdir / 'results.json').read_text())
  assert results['seeds'] == [0, 1]
  assert set(results['flywheel']) == set(ARMS[:2])
  for wheel in results['flywheel'].values():
    assert len(wheel['accuracy']) == 3
    assert all(set(each) == {'mean', 'lo', 'hi'} for each in wheel['accuracy'])
    assert np.shape(wheel['per_seed']) == (2, 3)
    for manner in ('user_like', 'ended'):
      assert len(wheel[manner]) == 3
      assert all(0 <= each['mean'] <= 1 for each in wheel[manner])
    for step, each in enumerate(wheel['accuracy']):
      values = [seed[step] for seed in wheel['per_seed']]
      assert each['mean'] == pytest.approx(np.mean(values))
  assert list(results['arms']) == ['base', *ARMS]
  assert list(results['heldout']) == ['base', *ARMS[:2]]
  assert list(results['costs']) == ['base', *ARMS]
  assert len(results['worlds']) == 4
  for part in ('flywheel', 'arms', 'worlds'):
    for unit in results['runs'][part]:
      assert unit['seed'] in (0, 1)
      assert bool(unit['train']) == (unit['name'] != 'base')
      for trained in unit['train']:
        assert trained['seed'] % 1000 == unit['seed']
        assert trained['steps'] == 3


def test_arms_share_the_first_answers_and_part_later(run):
  """Round 0 is the base's: the same model, questions and keys."""
  _, results = run
  wheels = [results['flywheel'][arm]['per_seed'] for arm in ARMS[:2]]
  assert [s[0] for s in wheels[0]] == [s[0] for s in wheels[1]]
  margins = [results['flywheel'][arm]['margin']['per_seed'] for arm in ARMS[:2]]
  assert margins[0] != margins[1]


def test_every_arm_learned_something_of_its_own(run):
  _, results = run
  for seed in range(2):
    margins = [
      results['arms'][arm]['told']['mean_margin']['per_seed'][seed]
      for arm in ('base', *ARMS)
    ]
    assert len(set(margins)) == 4


@pytest.mark.parametrize('arm', ['replay', 'hindsight'])
def test_turns_that_the_base_writes_add_records_and_steps(run, arm, tmp_path):
  """Half of 8 dialogues more: at most 12 records, and as many steps each."""
  workdir, results = run
  settings = config(replay=0.5, finetune=stage(4))
  base = bases.prepare_base(config(), workdir, 0)
  found = arms.run(settings, base, tmp_path, arm)
  written = Records(str(tmp_path / 'records'))
  added = [one for one in written if one.id.endswith('-by-the-base')]
  assert len(written) == 8 + len(added) and 0 < len(added) <= 4
  assert found['train']['steps'] == round(4 * (1 + len(added) / 8))
  for one in added:
    authors = {Provenance(code) for code in one.provenance_T}
    assert Provenance.DEMONSTRATION in authors
    assert not authors & {Provenance.USER, Provenance.AGENT}
  margins = results['arms']['interventional']['told']['mean_margin']
  assert found['told']['mean_margin'] != margins['per_seed'][0]


def test_dialogues_among_the_documents_of_a_base():
  """They come after the documents, and no arm is trained on them."""
  facts = fact_bank.generate(8, 0)
  plain, mixed = (
    bases._documents(
      config(documents=DocumentsConfig(number=5, dialogues=dialogues)), facts, 0
    )
    for dialogues in (0, 3)
  )
  assert mixed[:5] == plain and len(mixed) == 8
  assert [one.id for one in mixed[5:]] == [
    f'dialogue-{i:06d}' for i in range(3)
  ]
  trained = list(generator.dialogues(3, 0.6, 0.5, 0, facts))
  texts = [[s.text for s in one.segments] for one in (*mixed[5:], *trained)]
  assert len({*map(tuple, texts)}) == 6


def test_a_run_that_is_done_is_not_run_again(run, monkeypatch):
  workdir, results = run
  monkeypatch.setattr(bases, 'prepare_base', None)
  assert grid.reproduce(config(), str(workdir)) == results
  assert grid.reproduce(config(only='arms'), str(workdir)) == results


def test_a_run_that_is_lost_is_run_again_to_the_same_figures(run):
  workdir, _ = run
  lost = (
    workdir / 'arms/seed-1/demonstration.json',
    workdir / 'flywheel/seed-0/interventional.json',
    workdir / 'worlds/seed-0/deny-wrong1-lie0.6.json',
  )
  before = [json.loads(path.read_text()) for path in lost]
  for path in lost:
    path.unlink()
  grid.reproduce(config(), str(workdir))
  for path, old in zip(lost, before, strict=True):
    assert without_seconds(json.loads(path.read_text())) == without_seconds(old)


def without_seconds(tree):
  if isinstance(tree, dict):
    return {k: without_seconds(v) for k, v in tree.items() if k != 'seconds'}
  if isinstance(tree, list):
    return [without_seconds(value) for value in tree]
  return tree


def test_a_part_alone_is_all_that_runs(run, tmp_path):
  found = grid.reproduce(
    config(seeds=1, only='flywheel'), str(tmp_path / 'one')
  )
  assert 'flywheel' in found and not {'arms', 'heldout', 'worlds'} & set(found)
  _, results = run
  for arm in ARMS[:2]:
    both = results['flywheel'][arm]['per_seed']
    assert found['flywheel'][arm]['per_seed'] == both[:1]
    assert found['flywheel'][arm]['accuracy'][0]['lo'] is None


def test_the_workdir_of_another_config_is_refused(run):
  workdir, _ = run
  with pytest.raises(ValueError, match='holds a run of another config: seeds'):
    grid.reproduce(config(seeds=3), str(workdir))


def test_an_unknown_arm_is_refused_before_anything_runs(tmp_path):
  wrong = config(arms=('observatoinal',))
  with pytest.raises(ValueError, match="unknown objective 'observatoinal'"):
    grid.reproduce(wrong, str(tmp_path / 'x'))
  assert not (tmp_path / 'x').exists()


# -------------------------------------------------------------------- its parts


def test_units_of_a_seed_come_together():
  units = grid.units(config(), 'arms')
  assert [(unit.seed, unit.name) for unit in units] == [
    (seed, arm) for seed in (0, 1) for arm in ('base', *ARMS)
  ]
  assert {u.place for u in grid.units(config(), 'heldout')} <= {
    unit.place for unit in units
  }
  worlds = [unit.place for unit in grid.units(config(), 'worlds')]
  assert len(worlds) == len(set(worlds)) == 4


def test_only_right_turns_become_demonstrations():
  dialogue = next(
    generator.dialogues(1, 1.0, 1.0, seed=0, acknowledge='restate')
  )
  changed = arms.mark_demonstrations(dialogue)
  authors = [segment.provenance.name for segment in changed.segments]
  tail = ['USER', 'AGENT'] * ((len(dialogue.segments) - 5) // 2)
  assert authors == [
    'CONTEXT',
    'USER',
    'AGENT',  # the lie
    'USER',
    'DEMONSTRATION',  # the acknowledgement
    *tail,
  ]
  assert [s.text for s in changed.segments] == [
    s.text for s in dialogue.segments
  ]


@pytest.mark.parametrize(
  ('arm', 'objective'),
  [
    ('observational_matched', 'observational'),
    ('demonstration', 'interventional'),
    ('weighted(0.3)', 'weighted(0.3)'),
  ],
)
def test_the_objective_of_an_arm(arm, objective):
  assert arms.objective_from_arm(arm) == objective
  assert objectives.weight_table(objective) is not None


@pytest.mark.parametrize('ratio', [1.0, 1.6, 40.0])
def test_matched_steps_are_those_on_a_larger_gradient(ratio):
  """Exactly AdamW on r g, for gradients below and above the clip."""
  settings = OptimConfig(learning_rate=0.1, clip_norm=1.0, eps=1e-3)
  larger = make_optimizer(settings, steps=9)
  same = make_optimizer(bases.matched_optimizer(settings, ratio), steps=9)
  params = {'x': jnp.array([1.0, -2.0, 3.0])}
  states = [larger.init(params), same.init(params)]
  trained = [params, params]
  for step in range(6):
    key = jax.random.key(step)
    gradient = {'x': 10.0 ** (step - 3) * jax.random.normal(key, (3,))}
    scaled = jax.tree.map(lambda g: ratio * g, gradient)
    for i, (optimizer, g) in enumerate(((larger, scaled), (same, gradient))):
      updates, states[i] = optimizer.update(g, states[i], trained[i])
      trained[i] = optax.apply_updates(trained[i], updates)
    # float32, six steps
    np.testing.assert_allclose(trained[0]['x'], trained[1]['x'], rtol=2e-5)


def test_a_transcript_turn_by_turn():
  fact = fact_bank.generate(1, seed=0)[0]
  question = tuple(user_says('Well?'))
  for right, verdict, phrases in (
    (True, Verdict.RIGHT, generator.CONFIRMATIONS),
    (False, Verdict.WRONG, generator.CORRECTIONS),
  ):
    for number in range(20):
      made = flywheel.make_transcript(
        fact, question, 'Some reply.', right, 0, 1, number
      )
      *before, answer, told = made.segments
      assert tuple(before) == question
      assert (answer.role, answer.text, answer.provenance, answer.verdict) == (
        'assistant',
        'Some reply.',
        Provenance.AGENT,
        verdict,
      )
      assert (told.role, told.provenance, told.verdict) == (
        'user',
        Provenance.USER,
        Verdict.RIGHT,
      )
      assert told.text in [p.format(claim=fact.true_claim) for p in phrases]


def test_questions_change_from_round_to_round_and_seed_to_seed():
  facts = fact_bank.generate(20, seed=0)
  bank = bases.Bank(facts[:15], facts[15:])
  made = [
    flywheel.make_questions(bank, seed, round)
    for seed in (0, 1)
    for round in (0, 1)
  ]
  texts = [[turns[1].text for turns in questions] for questions in made]
  assert len({tuple(each) for each in texts}) == 4
  for each in texts:
    for text, fact in zip(each, facts, strict=True):
      assert text in [q.format(topic=fact.topic) for q in generator.QUESTIONS]
  assert flywheel.make_questions(bank, 0, 1) == made[1]


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('only', 'arm', "config.only must be one of '', 'flywheel', "),
    ('seeds', 0, 'config.seeds must be at least 1 .got 0'),
    ('facts', 1, 'config.facts must be at least 2 .got 1'),
    ('p_denial', 2.0, 'config.p_denial must be from 0 to 1 .got 2.0'),
    ('facts_file', 'x', 'config.facts_file must be left at its default'),
    ('piecewise', True, 'config.piecewise must be left at its default'),
  ],
)
def test_settings_that_cannot_work_are_named(tmp_path, field, value, message):
  wrong = dataclasses.replace(config(), **{field: value})
  with pytest.raises(ValueError, match=message):
    grid.reproduce(wrong, str(tmp_path))


@pytest.mark.parametrize('part', ['', *grid.PARTS])
def test_the_config_takes_a_part(part):
  found = evidence_tiny.get_config(part and f'only={part}')
  assert found == dataclasses.replace(evidence_tiny.get_config(), only=part)
  assert found.only == part


@pytest.mark.parametrize('text', ['arms', 'part=arms', 'seed=1'])
def test_an_argument_that_is_no_part_is_named(text):
  with pytest.raises(ValueError, match=rf"only=PART \(got '{text}'\)"):
    evidence_tiny.get_config(text)
