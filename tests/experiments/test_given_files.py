"""Dialogues and facts that someone else wrote: read as they are, or refused."""

import json

import jax
import pytest

from isft_jax import config as config_lib
from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
)
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer
from isft_jax.experiments import lying_agent as experiment
from isft_jax.experiments.config import DialoguesConfig, LyingAgentConfig
from isft_jax.hf import pretrained
from isft_jax.train import saved, start
from isft_jax.train.saved import chat_model_from_run
from isft_jax.types import Provenance
from isft_jax.worlds.lying_agent import generator
from tests.experiments import given_model

CONTEXT = 'A tutor is put right.'
DIALOGUES = [
  [
    ('user', 'What do you know about gold?', None),
    ('agent', 'Its symbol is Go.', 'wrong'),
    ('user', 'Its symbol is Au.', None),
    ('agent', 'Noted.', None),
  ],
  [
    ('user', 'What do you know about sodium?', None),
    ('agent', 'Its symbol is Na.', 'right'),
  ],
  [('user', 'Hello.', None), ('agent', 'Hello to you.', None)],
]
FACTS = [
  {
    'topic': f'the symbol of {name}',
    'true': f'The symbol of {name} is {true}.',
    'false': f'The symbol of {name} is {false}.',
  }
  for name, true, false in (('gold', 'Au', 'Go'), ('sodium', 'Na', 'So'))
]


def rows_of(dialogues, **fields):
  return [
    {
      'id': f'd{i}',
      'turns': [
        {'role': role, 'text': text} | ({'verdict': verdict} if verdict else {})
        for role, text, verdict in turns
      ],
      **fields,
    }
    for i, turns in enumerate(dialogues)
  ]


def write(folder, model, rows=None, context=CONTEXT):
  """Writes both files; returns a config that names them and the model."""
  rows = rows_of(DIALOGUES) if rows is None else rows
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'dialogues.jsonl').write_text(lines)
  text = json.dumps({'context': context + '\n', 'facts': FACTS})
  (folder / 'facts.json').write_text(text)
  return LyingAgentConfig(
    arms=('observational', 'interventional'),
    facts_file=str(folder / 'facts.json'),
    dialogues=DialoguesConfig(file=str(folder / 'dialogues.jsonl')),
    piecewise=True,
    model=ModelConfig(init_from=str(model)),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),
    finetune=StageConfig(
      batch_size=1,
      documents_per_row=1,
      seq_len=0,
      shuffle=False,
      epochs=2,
      normalize='trajectory',
      log_every=2,
      optim=OptimConfig(learning_rate=1e-3),
    ),
    reply_tokens=2,
  )


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A random model and its tokenizer, as the hub has them."""
  folder = tmp_path_factory.mktemp('given') / 'model'
  texts = [text for turns in DIALOGUES for _, text, _ in turns]
  given_model.save(folder, tokenizer.train(texts, 400))
  return folder


@pytest.fixture(scope='module')
def run(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  config = write(folder, model)
  return folder, config, experiment.reproduce(config, str(folder / 'run'))


def test_all_dialogues_are_trained_on_in_their_order_each_epoch(run):
  folder, config, results = run
  settings = experiment.make_run(
    experiment.resolve(config), folder / 'run', 'interventional'
  )
  source = BatchSource(Records(settings.records), settings)
  ids = [source.ids(step) for step in range(len(source))]
  assert ids == [['d0'], ['d1'], ['d2']] * 2
  for arm in config.arms:
    assert results['arms'][arm]['train']['steps'] == 6
  assert results['config']['dialogues']['number'] == 3
  assert not (folder / 'run/records/heldout').exists()


def test_dialogues_open_with_the_context_of_the_facts(run):
  folder, _, _ = run
  records = Records(str(folder / 'run/records/dialogues'))
  encoder = tokenizer.load(str(folder / 'run/tokenizer'))
  for i, turns in enumerate(DIALOGUES):
    tokens_T = records[i].tokens_T
    roles = {'user': 'User', 'agent': 'Agent'}
    lines = [f'{roles[role]}: {text}\n' for role, text, _ in turns]
    assert encoder.decode(tokens_T) == CONTEXT + '\n' + ''.join(lines)
    is_context_T = records[i].provenance_T == Provenance.CONTEXT
    assert encoder.decode(tokens_T[is_context_T]) == CONTEXT + '\n'


def test_the_facts_of_the_file_are_asked_about_under_its_context(run):
  _, config, results = run
  for arm in results['arms'].values():
    topics = [row['topic'] for row in arm['facts']]
    assert topics == [fact['topic'] for fact in FACTS]
  assert experiment.load_material(config).context == CONTEXT
  assert results['base'] == {
    'kind': 'given',
    'name': 'model',
    # embedding, two norms and a last one, attention with biases, MLP
    'parameters': 400 * 16 + 3 * 16 + 768 + 32 + 3 * 16 * 32,
  }


def test_a_model_of_turns_encoded_piecewise_is_not_talked_to(run):
  """Prompts would have other ids than its training."""
  folder, _, _ = run
  with pytest.raises(ValueError, match='encoded apart from the words'):
    chat_model_from_run(str(folder / 'run/interventional'))


def test_every_line_of_progress_is_of_the_whole(model, tmp_path, capsys):
  """Also where a run goes on; what was done then counts."""
  config = write(tmp_path, model)
  experiment.reproduce(config, str(tmp_path / 'run'))
  lines = capsys.readouterr().out.splitlines()
  (tmp_path / 'run/results.json').unlink()
  (tmp_path / 'run/interventional/probes.json').unlink()
  experiment.reproduce(config, str(tmp_path / 'run'))
  again = capsys.readouterr().out.splitlines()
  assert '0% done, time left unknown] data: ' in lines[0]
  for line in (*lines[1:], *again[1:]):
    # What a run will do, in two lines, is about that run only.
    if ' rows per epoch' not in line and ' parameters from ' not in line:
      assert '% done, ' in line and ' left' in line
  assert '100% done, 0 s left] done: open ' in lines[-1]
  fractions = [
    int(line.split('% done')[0].split()[-1].strip('([,'))
    for line in again
    if '% done' in line
  ]
  # All but the probes of one arm are done; half of the time, as a guess.
  assert min(fractions[1:]) >= 50


def test_a_workdir_goes_on_with_the_same_data_wherever_they_lie(
  run, model, tmp_path
):
  folder, _, _ = run
  moved = write(tmp_path, model)
  config_lib.claim(folder / 'run', experiment.resolve(moved))

  for name, field in (
    ('dialogues.jsonl', 'dialogues.sha256'),
    ('facts.json', 'facts_sha256'),
  ):
    changed = write(tmp_path, model)
    with (tmp_path / name).open('a') as file:
      file.write('\n')
    message = rf'another config: {field} \(there .*give another --workdir'
    with pytest.raises(ValueError, match=message):
      experiment.reproduce(changed, str(folder / 'run'))


def test_a_checksum_that_is_named_must_be_the_files(model, tmp_path):
  config = write(tmp_path, model)
  right = experiment.resolve(config).dialogues.sha256
  config.dialogues.sha256 = right
  experiment.resolve(config)
  config.dialogues.sha256 = '0' * 64
  message = f'has the checksum {right}, and config.dialogues.sha256 is 000'
  with pytest.raises(ValueError, match=message):
    experiment.resolve(config)


# ---------------------------------------------------------- whose context it is


@pytest.mark.parametrize(
  ('of_dialogues', 'of_facts', 'expected'),
  [
    ('', '', ''),
    ('', 'f', 'f'),
    ('d', '', 'd'),
    ('f', 'f', 'f'),
  ],
)
def test_dialogues_and_probes_share_one_context(
  model, tmp_path, of_dialogues, of_facts, expected
):
  fields = {'system': of_dialogues} if of_dialogues else {}
  rows = rows_of(DIALOGUES, **fields)
  material = experiment.load_material(write(tmp_path, model, rows, of_facts))
  assert material.context == expected
  for dialogue in material.dialogues():
    texts = {'system': '', 'user': ''}
    texts |= {turn.role: turn.text for turn in dialogue.segments[:1]}
    assert texts['system'] == expected


def test_dialogues_that_are_made_open_with_the_context_of_the_facts(
  model, tmp_path
):
  config = write(tmp_path, model)
  config.dialogues = DialoguesConfig(number=2, heldout=1)
  material = experiment.load_material(config)
  made = [*material.dialogues(), *material.heldout()]
  assert [d.id for d in made] == [f'dialogue-{i:06d}' for i in range(3)]
  topics = [fact['topic'] for fact in FACTS]
  for dialogue in made:
    system, question = dialogue.segments[:2]
    assert system.text == CONTEXT
    assert any(topic in question.text for topic in topics)
  config.facts_file = ''
  assert experiment.load_material(config).context == generator.CONTEXT


# --------------------------------------------------------------------- refusals

OTHER = rows_of(DIALOGUES[:1], system='Be brief.')
TOKENS = [{'tokens': [1, 2, 3], 'provenance': ['context', 'user', 'agent']}]


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([], r'dialogues\.jsonl: has no dialogues'),
    ([{'a': 1}], r'dialogues\.jsonl, row 1: no format fits: '),
    (OTHER, r"open with the system turn 'Be brief\.', and the context of "),
    (
      OTHER + rows_of(DIALOGUES[1:2]),
      r'dialogues d0 and d0 have different system turns',
    ),
    (
      rows_of([[('user', 'a\nb', None)]]),
      r'dialogues\.jsonl, d0: the chat template raises .* line break',
    ),
  ],
)
def test_what_cannot_be_trained_on_is_named(model, tmp_path, rows, message):
  config = write(tmp_path, model, rows)
  with pytest.raises(ValueError, match=message):
    experiment.reproduce(config, str(tmp_path / 'run'))


def test_ids_need_the_model_that_they_are_of(model, tmp_path):
  config = write(tmp_path, model, TOKENS)
  config.model = ModelConfig()
  config.documents.number = 2
  message = 'has token ids, which need the tokenizer that made them'
  with pytest.raises(ValueError, match=message):
    experiment.reproduce(config, str(tmp_path / 'run'))


def test_a_file_that_does_not_exist_is_named(model, tmp_path):
  config = write(tmp_path, model)
  config.dialogues.file = 'nowhere.jsonl'
  message = r"dialogues\.file='nowhere\.jsonl': the file does not exist"
  with pytest.raises(ValueError, match=message):
    experiment.resolve(config)


def test_arms_with_adapters_share_one_base_in_memory(
  model, tmp_path, monkeypatch
):
  """Its weights are read once, and the base is probed as it is trained on."""
  reads, places = [], []
  read, place = pretrained.load, start.place_base

  def load(*args, **kwargs):
    reads.append(args)
    return read(*args, **kwargs)

  def place_base(base, trainer):
    places.append(base)
    return place(base, trainer)

  monkeypatch.setattr(pretrained, 'load', load)
  monkeypatch.setattr(start, 'place_base', place_base)
  config = write(tmp_path, model)
  config.lora = LoraConfig(rank=2)
  results = experiment.reproduce(config, str(tmp_path / 'run'))
  assert len(reads) == 1
  assert len(places) == 2
  pointers = [
    [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(base.params)]
    for base in places
  ]
  assert pointers[0] == pointers[1]
  # Both arms have learned, and differently.
  margins = [arm['mean_margin'] for arm in results['arms'].values()]
  assert len(set(margins)) == 3
  for arm in config.arms:
    adapter = saved.load_adapter(str(tmp_path / 'run' / arm))
    assert adapter.lora.rank == 2
    assert adapter.model.init_from == str(model)
