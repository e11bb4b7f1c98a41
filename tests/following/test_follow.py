"""A followed folder: events, decisions, parameters, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from isft_jax import follow_file
from isft_jax.config import LoraConfig, OptimConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.following import follow
from isft_jax.following.settings import Settings
from isft_jax.train import loop, preemption, saved
from isft_jax.train import trainer as trainer_lib
from tests.dialogues import chatml_tokenizer, dialogues, write_records
from tests.following import folders


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Records of ten dialogues and their tokenizer. To read only."""
  folder = tmp_path_factory.mktemp('data')
  write_records(folder / 'records', dialogues()[30:])
  (folder / 'records' / 'tokenizer').rename(folder / 'tokenizer')
  return folder


def run(config, workdir, folder, **settings):
  """Follows until nothing is new; returns (event, increment, file) of each."""
  settings = {'seconds': 0.01, 'until_idle': True} | settings
  events = follow.follow(config, workdir, Settings(str(folder), **settings))
  return [(e['event'], e['increment'], e.get('file', '')) for e in events]


def events_of(workdir):
  return follow_file.read(workdir / follow_file.NAME)


def one(workdir, kind, increment):
  (event,) = [
    e
    for e in events_of(workdir)
    if (e['event'], e['increment']) == (kind, increment)
  ]
  return event


def equal(one, other):
  return jax.tree.all(
    jax.tree.map(lambda x, y: np.array_equal(x, y), one, other)
  )


@pytest.fixture(scope='module')
def followed(data, tmp_path_factory):
  """Five transcripts, one of them damaged, in two increments. To read only."""
  place = tmp_path_factory.mktemp('followed')
  folders.put(place / 'in', dialogues()[:4])
  (place / 'in' / '0002b.json').write_text('{"messages": [')
  config = folders.config(data)
  found = run(config, place / 'run', place / 'in', most=3)
  return place, config, found


START = [('begun', 0, ''), ('measured', 0, '')]


def ends(increment, decision):
  return [(kind, increment, '') for kind in ('trained', 'measured', decision)]


def test_the_events_of_two_increments(followed):
  place, _, found = followed
  assert found == [
    *START,
    ('found', 1, ''),
    ('scored', 1, '0000.json'),
    ('scored', 1, '0001.json'),
    ('scored', 1, '0002.json'),
    *ends(1, 'accepted'),
    ('found', 2, ''),
    ('set_aside', 2, '0002b.json'),
    ('scored', 2, '0003.json'),
    *ends(2, 'accepted'),
  ]
  taken = one(place / 'run', 'found', 1)['files']
  assert [each['file'] for each in taken] == [
    *('0000.json', '0001.json', '0002.json')
  ]
  losses = [one(place / 'run', 'measured', n)['heldout_loss'] for n in range(3)]
  assert losses[0] > losses[1] > losses[2]
  # The copies are gone, and the checkpoints of the last two accepted are left.
  assert [*(place / 'run' / 'incoming').iterdir()] == []
  increments = sorted((place / 'run' / 'increments').iterdir())
  assert [each.name for each in increments] == ['0000', '0001', '0002']
  assert [(each / 'checkpoints').exists() for each in increments] == [
    *(False, True, True)
  ]


def test_an_increment_is_an_ordinary_run_from_the_one_before(
  followed, tmp_path
):
  place, config, _ = followed
  ordinary = dataclasses.replace(
    config,
    records=str(place / 'run' / 'records' / '0002'),
    heldout='',
    model=dataclasses.replace(
      config.model, init_from=str(place / 'run' / 'increments' / '0001')
    ),
  )
  trained = loop.train(ordinary, tmp_path / 'run')
  assert equal(trained.params, saved.load(str(place / 'run')).model.params)
  summary = one(place / 'run', 'trained', 2)
  for name in ('steps', 'scored_tokens', 'final_loss'):
    assert summary[name] == trained.summary[name]


def test_a_transcript_is_scored_before_it_is_learned(followed):
  place, _, _ = followed
  workdir = place / 'run'
  model = saved.load(str(workdir / 'increments' / '0001')).model
  example = Records(str(workdir / 'records' / '0002'))[0]
  assert example.id == '0003.json:1'
  expected = {}
  for author, nll in folders.losses(model.graphdef, model.params, example):
    total, count = expected.get(author, (0.0, 0))
    expected[author] = total + nll, count + 1
  (scored,) = [e for e in events_of(workdir) if e.get('file') == '0003.json']
  sums = scored['nll_by_author']
  assert [*sums] == ['TEMPLATE', 'USER', 'AGENT']
  codes = {'TEMPLATE': 1, 'USER': 3, 'AGENT': 5}
  for author, (total, count) in sums.items():
    assert count == expected[codes[author]][1]
    # float32 logits.
    assert total == pytest.approx(expected[codes[author]][0], rel=1e-5)


def test_the_workdir_is_that_of_its_last_accepted_run(followed):
  place, _, _ = followed
  loaded = saved.load(str(place / 'run'))
  assert loaded.run['name'] == 'increment_0002'
  assert loaded.config.width == 16
  chat = saved.chat_model_from_run(str(place / 'run'))
  assert chat.tokenizer.vocab_size == 512


def test_increments_share_what_is_compiled(data, tmp_path, capsys):
  # A transcript is a row, and a batch has 8: two steps, and then one.
  config = folders.config(data, heldout='', epochs=1, documents_per_row=1)
  trainer_lib._make_trainer.cache_clear()
  folders.put(tmp_path / 'in', dialogues()[:10])
  run(config, tmp_path / 'run', tmp_path / 'in', most=9)
  steps = [one(tmp_path / 'run', 'trained', n)['steps'] for n in (1, 2)]
  assert steps == [2, 1]
  assert trainer_lib._make_trainer.cache_info().currsize == 1
  assert 'compiled again' not in capsys.readouterr().out
  # A cosine needs the number of steps.
  cosine = dataclasses.replace(
    config, optim=OptimConfig(learning_rate=1e-2, schedule='cosine')
  )
  run(cosine, tmp_path / 'cosine', tmp_path / 'in', most=1, increments=1)
  assert (
    'warning: the step is compiled again for an increment of another number of '
    'steps; --config.optim.schedule=constant compiles it once\n'
  ) in capsys.readouterr().out


def test_nothing_new_changes_nothing(followed, capsys):
  place, config, found = followed
  before = (place / 'run' / 'follow.jsonl').read_bytes()
  assert run(config, place / 'run', place / 'in', most=3) == found
  assert (place / 'run' / 'follow.jsonl').read_bytes() == before
  assert capsys.readouterr().out == ''


def test_garbage_is_rolled_back(data, tmp_path, capsys):
  config = folders.config(data, epochs=6, optim=OptimConfig(learning_rate=2e-2))
  workdir, folder = tmp_path / 'run', tmp_path / 'in'
  folders.put(folder, dialogues()[:4])
  run(config, workdir, folder)
  good = saved.load(str(workdir)).model.params
  (folder / 'bad.json').write_text(folders.GARBAGE)
  assert run(config, workdir, folder)[-2:] == [
    ('measured', 2, ''),
    ('rolled_back', 2, ''),
  ]
  lowest, risen = (one(workdir, 'measured', n)['heldout_loss'] for n in (1, 2))
  assert one(workdir, 'rolled_back', 2)['because'] == (
    f'the held-out loss is {risen:.4f}, {risen - lowest:.4f} above the lowest '
    'so far; the limit is 0.02'
  )
  assert 'increment 2: rolled back: the held-out' in capsys.readouterr().out
  assert equal(good, saved.load(str(workdir)).model.params)
  assert not (workdir / 'increments' / '0002' / 'checkpoints').exists()
  # Its transcript is not tried again by itself, and the next increment starts
  # from the good parameters.
  folders.put(folder, dialogues()[4:6], first=4)
  assert run(config, workdir, folder)[-1] == ('accepted', 3, '')
  ordinary = dataclasses.replace(
    config,
    records=str(workdir / 'records' / '0003'),
    heldout='',
    model=dataclasses.replace(
      config.model, init_from=str(workdir / 'increments' / '0001')
    ),
  )
  trained = loop.train(ordinary, tmp_path / 'ordinary')
  assert equal(trained.params, saved.load(str(workdir)).model.params)
  # Under another name, and with a limit that lets it pass, it is learned.
  (folder / 'again.json').write_text(folders.GARBAGE)
  assert run(config, workdir, folder, rise=100.0)[-1] == ('accepted', 4, '')


def test_a_probe_decides_too(data, tmp_path):
  margins = iter([0.0, 1.0, 0.75, 0.0])
  asked = []

  def make_probe(renderer, records):
    asked.append(records)
    return lambda graphdef, params: {'mean_margin': next(margins)}

  config = folders.config(data, heldout='')
  folders.put(tmp_path / 'in', dialogues()[:3])
  events = follow.follow(
    config,
    tmp_path / 'run',
    Settings(
      str(tmp_path / 'in'), seconds=0.01, most=1, until_idle=True, fall=0.5
    ),
    make_probe,
  )
  assert asked == [config.records]
  decisions = [e['event'] for e in events if e['event'] in follow_file.ENDS]
  assert decisions == ['accepted', 'accepted', 'rolled_back']
  assert 'heldout_loss' not in one(tmp_path / 'run', 'measured', 1)


def test_without_measures_every_increment_is_accepted(data, tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / 'bad.json').write_text(folders.GARBAGE)
  config = folders.config(data, heldout='')
  assert run(config, tmp_path / 'run', tmp_path / 'in')[-1] == (
    *('accepted', 1, ''),
  )
  assert (
    'warning: every increment is accepted, because there are neither held-out '
    'records (config.heldout) nor --probe to measure\n'
  ) in capsys.readouterr().out


def test_an_increment_that_cannot_be_learned(data, tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  (folder / 'a.json').write_text('{')
  config = folders.config(data, objective='TOOL=1', heldout='')
  assert run(config, tmp_path / 'run', folder) == [
    *START,
    ('found', 1, ''),
    ('set_aside', 1, 'a.json'),
    ('skipped', 1, ''),
  ]
  folders.put(folder, dialogues()[:1])
  assert run(config, tmp_path / 'run', folder)[-3:] == [
    ('found', 2, ''),
    ('scored', 2, '0000.json'),
    ('skipped', 2, ''),
  ]
  assert one(tmp_path / 'run', 'skipped', 2)['because'] == (
    "objective 'TOOL=1' scores no token of the transcripts"
  )


def test_a_loss_that_is_not_finite_is_rolled_back(data, tmp_path):
  config = folders.config(
    data, optim=OptimConfig(learning_rate=1e30, clip_norm=0.0)
  )
  folders.put(tmp_path / 'in', dialogues()[:2])
  assert run(config, tmp_path / 'run', tmp_path / 'in')[-2:] == [
    ('scored', 1, '0001.json'),
    ('rolled_back', 1, ''),
  ]
  because = one(tmp_path / 'run', 'rolled_back', 1)['because']
  assert because.startswith('increment_0001: the ')
  loaded = saved.load(str(tmp_path / 'run'))
  assert loaded.run['name'] == config.name  # the start


def test_a_file_that_changes_is_reported_once(data, tmp_path, capsys):
  folder = tmp_path / 'in'
  names = folders.put(folder, dialogues()[:2])
  config = folders.config(data, heldout='')
  run(config, tmp_path / 'run', folder)
  # Another time with the same content says nothing.
  (folder / names[0]).write_text(folders.transcript(dialogues()[0]))
  (folder / names[1]).write_text(folders.transcript(dialogues()[5]))
  for _ in range(2):
    found = run(config, tmp_path / 'run', folder)
    assert [each for each in found if each[0] == 'changed'] == [
      ('changed', 0, names[1])
    ]
  assert 'warning: 0001.json has changed' in capsys.readouterr().out
  assert found.count(('found', 1, '')) == 1 and ('found', 2, '') not in found


def test_a_growing_file_waits(data, tmp_path, monkeypatch):
  folder = tmp_path / 'in'
  folder.mkdir()
  text = folders.transcript(dialogues()[0])
  sizes = iter((10, 200, len(text)))

  def sleep(seconds):
    # Somebody writes between two looks.
    if size := next(sizes, None):
      (folder / 'a.json').write_text(text[:size])

  monkeypatch.setattr(follow.time, 'sleep', sleep)
  (folder / 'a.json').write_text('')
  found = run(folders.config(data, heldout=''), tmp_path / 'run', folder)
  assert found[2:] == [
    ('found', 1, ''),
    ('scored', 1, 'a.json'),
    *ends(1, 'accepted'),
  ]


def test_how_many_transcripts_and_increments(data, tmp_path, capsys):
  folder, workdir = tmp_path / 'in', tmp_path / 'run'
  folders.put(folder, dialogues()[:5])
  config = folders.config(data, heldout='')
  found = run(config, workdir, folder, least=2, most=2, increments=1)
  assert found[-1] == ('accepted', 1, '')
  found = run(config, workdir, folder, least=2, most=2)
  assert [n for kind, n, _ in found if kind == 'found'] == [1, 2]
  assert (
    '1 new transcripts are fewer than --follow_least=2, and wait'
    in capsys.readouterr().out
  )


def test_a_second_process_cannot_follow_into_a_workdir(data, tmp_path):
  with pytest.raises(ValueError, match='another training is writing there'):
    folders.put(tmp_path / 'in', dialogues()[:1])
    from isft_jax.train import lock

    with lock.locked(tmp_path / 'run'):
      run(folders.config(data), tmp_path / 'run', tmp_path / 'in')


def test_replay_repeats_earlier_records(data, tmp_path):
  folder, workdir = tmp_path / 'in', tmp_path / 'run'
  folders.put(folder, dialogues()[:4])
  config = folders.config(data, heldout='')
  assert run(config, workdir, folder, most=2, replay=0.5)[-1] == (
    *('accepted', 2, ''),
  )
  stored = json.loads(
    (workdir / 'increments' / '0002' / 'config.json').read_text()
  )
  records = str(workdir / 'records' / '0002')
  assert stored['mixture'] == [
    [records, 0.5, ''],
    [f'{records}_replay', 0.5, ''],
  ]
  repeated, new = Records(f'{records}_replay'), Records(records)
  ids = {repeated[n].id for n in range(len(repeated))}
  earlier = {d.id for d in dialogues()[30:]} | {'0000.json:1', '0001.json:1'}
  assert ids <= earlier
  tokens = [
    sum(len(each[n].tokens_T) for n in range(len(each)))
    for each in (repeated, new)
  ]
  # At least as many tokens, by less than one record.
  last = len(repeated[len(repeated) - 1].tokens_T)
  assert tokens[1] <= tokens[0] < tokens[1] + last


@pytest.fixture(scope='module')
def base(data, tmp_path_factory):
  """The workdir of a run to start from. To read only."""
  workdir = tmp_path_factory.mktemp('base')
  loop.train(folders.config(data, heldout='', epochs=1), workdir)
  return str(workdir)


KINDS = {
  'all weights': {},
  'adapters': dict(lora=LoraConfig(rank=2)),
  'anchored': dict(objective='anchored(0.5)'),
  'cosine': dict(optim=OptimConfig(learning_rate=1e-2, schedule='cosine')),
}


@pytest.mark.parametrize('kind', KINDS)
def test_it_starts_from_a_run_and_resumes(kind, base, data, tmp_path):
  model = dataclasses.replace(folders.MODEL, init_from=base)
  # Tokenizer and template are those of the run.
  config = folders.config(
    data, records='', tokenizer='', model=model, **KINDS[kind]
  )
  folder = tmp_path / 'in'
  folders.put(folder, dialogues()[:4])
  found = run(config, tmp_path / 'run', folder, most=2)
  assert [each for each in found if each[0] == 'accepted'] == [
    ('accepted', 1, ''),
    ('accepted', 2, ''),
  ]
  # With a pause between the increments, parameters are read from the disk.
  for number in (1, 2):
    run(config, tmp_path / 'paused', folder, most=2, increments=number)
  quick, paused = (
    saved.load(str(tmp_path / name)).model.params for name in ('run', 'paused')
  )
  assert equal(quick, paused)
  assert not equal(quick, saved.load(base).model.params)
  measured = [
    [
      e['heldout_loss']
      for e in events_of(tmp_path / name)
      if 'heldout_loss' in e
    ]
    for name in ('run', 'paused')
  ]
  assert measured[0] == measured[1] and len(measured[0]) == 3


def test_records_of_another_template_are_refused(base, data, tmp_path):
  renderer = Renderer(chatml_tokenizer())
  records = write_records(tmp_path / 'records', dialogues()[:3], renderer)
  model = dataclasses.replace(folders.MODEL, init_from=base)
  config = folders.config(
    data, records='', tokenizer='', model=model, heldout=records
  )
  folders.put(tmp_path / 'in', dialogues()[:1])
  with pytest.raises(ValueError, match='was rendered with fingerprint'):
    run(config, tmp_path / 'run', tmp_path / 'in')


def test_a_signal_in_the_last_step_ends_it(data, tmp_path, monkeypatch):
  folders.put(tmp_path / 'in', dialogues()[:2])
  config = folders.config(data, heldout='')
  train = loop.train

  def signalled(*arguments, **settings):
    trained = train(*arguments, **settings)
    preemption._missed.append(15)
    return trained

  monkeypatch.setattr(loop, 'train', signalled)
  with pytest.raises(SystemExit) as stop:
    run(config, tmp_path / 'run', tmp_path / 'in')
  assert stop.value.code == 75
  monkeypatch.undo()
  found = run(config, tmp_path / 'run', tmp_path / 'in')
  assert found[-3:] == ends(1, 'accepted')


REFUSED = {
  'seq_len': (dict(seq_len=0), 'needs config.seq_len above 0'),
  'keep_best': (dict(keep_best=True), 'no config.keep_best'),
  'tokenizer': (
    dict(records='', heldout='', tokenizer=''),
    '--follow needs a tokenizer: name earlier records with config.records',
  ),
  'anchored': (
    dict(objective='anchored(0.3)'),
    'an anchored objective needs a base',
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_config_that_cannot_work(name, data, tmp_path):
  settings, message = REFUSED[name]
  (tmp_path / 'in').mkdir()
  with pytest.raises(ValueError, match=message):
    run(folders.config(data, **settings), tmp_path / 'run', tmp_path / 'in')
  assert not (tmp_path / 'run').exists()


def test_other_inputs_need_another_workdir(followed, data, tmp_path):
  place, config, _ = followed
  (tmp_path / 'other').mkdir()
  with pytest.raises(ValueError, match='was begun with another folder'):
    run(config, place / 'run', tmp_path / 'other')
  records = write_records(tmp_path / 'records', dialogues()[:3])
  other = dataclasses.replace(config, heldout=records)
  with pytest.raises(ValueError, match=r'another config: heldout \(there'):
    run(other, place / 'run', place / 'in')
  with pytest.raises(ValueError, match=r'lies in the folder'):
    run(config, place / 'in' / 'run', place / 'in')


def test_a_workdir_is_followed_or_trained_into(followed, data, tmp_path):
  place, config, _ = followed
  with pytest.raises(ValueError, match='belongs to isft-train --follow'):
    loop.train(config, place / 'run')
  short = dataclasses.replace(config, epochs=1)
  loop.train(short, tmp_path / 'run')
  (tmp_path / 'in').mkdir()
  with pytest.raises(ValueError, match='holds an ordinary run'):
    run(short, tmp_path / 'run', tmp_path / 'in')


def test_a_start_that_fails_claims_no_workdir(data, tmp_path):
  (tmp_path / 'in').mkdir()
  model = dataclasses.replace(folders.MODEL, init_from=f'{data}/none')
  with pytest.raises(ValueError, match='init_from'):
    run(folders.config(data, model=model), tmp_path / 'run', tmp_path / 'in')
  run(folders.config(data), tmp_path / 'run', tmp_path / 'in')


def test_a_folder_that_does_not_exist(data, tmp_path):
  with pytest.raises(ValueError, match='create the folder'):
    run(folders.config(data), tmp_path / 'run', tmp_path / 'none')


@pytest.mark.parametrize('field', ['seconds', 'rise', 'fall', 'increments'])
def test_settings_must_not_be_negative(field):
  with pytest.raises(ValueError, match=f'--follow_{field} must be at least 0'):
    Settings('in', **{field: -1})


def test_settings_of_numbers():
  with pytest.raises(ValueError, match='--follow_least must be at least 1'):
    Settings('in', least=0)
  with pytest.raises(ValueError, match='--follow_most must be at least 3'):
    Settings('in', least=3, most=2)
  with pytest.raises(
    ValueError, match=r'--follow_replay must be from 0 to 0\.9'
  ):
    Settings('in', replay=1.0)
