"""From files of agent runs to records: every row written, or set aside."""

import copy
import json
import os
import signal
import subprocess
import sys
import zipfile

import datasets
import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations import local

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare, verify
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance
from tests.data import chat_tokenizer

P = Provenance
WORDS = 'You can look things up. What is the answer? It is 42, I think.'


@pytest.fixture(scope='module')
def renderer():
  encoder = tokenizer.train([f'User: Agent: Tool: {WORDS}\n'] * 3, 320)
  return Renderer(encoder, chat_template.PLAIN)


def row(id, *turns):
  roles = {'s': 'system', 'u': 'user', 'a': 'assistant', 't': 'tool'}
  messages = [{'role': roles[r], 'content': text} for r, text in turns]
  return {'id': id, 'messages': messages}


GOOD = [
  row('one', ('s', WORDS), ('u', 'What is it?'), ('a', 'It is 42.')),
  row('two', ('u', 'What?'), ('a', 'look up'), ('t', '42'), ('a', '42.')),
  row('three', ('u', 'You can look.'), ('a', 'I think it is 42.')),
]
BAD = {
  'malformed': '{"messages": [{"role": "user"',
  'template_raises': json.dumps(row('x', ('u', 'two\nlines'))),
  'special_text': json.dumps(row('x', ('u', 'a <|endoftext|> b'))),
  'no_targets': json.dumps(row('x', ('s', 'You can.'))),
}


def write_rows(path, rows):
  lines = (r if isinstance(r, str) else json.dumps(r) for r in rows)
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


def run(renderer, source, output, **settings):
  return prepare.prepare(
    prepare.Settings(str(source), **settings),
    renderer,
    Rules.default(),
    str(output),
  )


def rejections(folder):
  lines = (folder / prepare.REJECTED).read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_every_row_is_written_or_set_aside_with_its_reason(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', [*GOOD, *BAD.values()])
  report, was_there = run(renderer, source, tmp_path / 'out')
  assert not was_there
  assert report['rows'] == {'read': 7, 'written': 3, 'rejected': 4}
  assert report['rejected'] == dict.fromkeys(
    ['malformed', 'template_raises', 'special_text', 'no_targets'], 1
  )
  assert [
    (note['file'], note['row'], note['reason'])
    for note in rejections(tmp_path / 'out')
  ] == [(source, 4 + i, reason) for i, reason in enumerate(BAD)]
  found = dataset.Records(str(tmp_path / 'out'))
  assert [found[i].id for i in range(len(found))] == ['one', 'two', 'three']


def test_the_records_are_what_the_renderer_makes(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  run(renderer, source, tmp_path / 'out')
  found = dataset.Records(str(tmp_path / 'out'))
  encoder = tokenizer.load(tokenizer.beside(str(tmp_path / 'out')))
  assert encoder.chat_template == chat_template.PLAIN
  assert tokenizer.check(encoder, found.metadata, 'out')
  said = {
    author.name: encoder.decode(
      found[1].tokens_T[found[1].provenance_T == author].tolist()
    )
    for author in np.unique(found[1].provenance_T).tolist()
    for author in [P(author)]
  }
  assert said == {
    'TEMPLATE': 'User:\nAgent:Tool:\nAgent:',
    'USER': ' What?',
    'TOOL': ' 42',
    'AGENT': ' look up\n 42.\n',
  }


def test_the_counts_of_the_report_are_those_of_the_records(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  report, _ = run(renderer, source, tmp_path / 'out')
  found = dataset.Records(str(tmp_path / 'out'))
  examples = [found[i] for i in range(len(found))]
  authors = np.concatenate([e.provenance_T for e in examples])
  assert report['tokens'] == len(authors)
  assert report['tokens_by_author'] == {
    P(author).name: count
    for author, count in zip(
      *(array.tolist() for array in np.unique(authors, return_counts=True)),
      strict=True,
    )
  }
  targets = np.concatenate([e.provenance_T[1:] for e in examples])
  share = report['scored_share']
  assert share['agent_only'] == np.sum(targets == P.AGENT) / len(authors)
  assert share['observational'] == pytest.approx(
    share['agent_only'] + share['interventional'], abs=1e-12
  )
  lengths = [len(e.tokens_T) for e in examples]
  assert report['length_quantiles']['0'] == min(lengths)
  assert report['length_quantiles']['1'] == max(lengths)


def test_the_report_has_what_was_not_read(renderer, tmp_path):
  """Of rows that are written; others are set aside whole."""
  good = [
    {**GOOD[0], 'reward': 1, 'meta': {}},
    {**copy.deepcopy(GOOD[1]), 'reward': 0.5, 'split': 'a'},
    {'messages': [*GOOD[2]['messages'], {'role': 'exit', 'content': 'bye'}]},
  ]
  good[1]['messages'][0]['stamp'] = 7
  bad = {**row('x', ('u', 'two\nlines')), 'other': 1}
  source = write_rows(tmp_path / 'runs.jsonl', [*good, bad])
  rules = tmp_path / 'rules.json'
  rules.write_text('{"rules": [{"when": {"role": "exit"}, "drop": true}]}')
  report, _ = prepare.prepare(
    prepare.Settings(source), renderer, Rules.load(rules), tmp_path / 'out'
  )
  assert report['rows'] == {'read': 4, 'written': 3, 'rejected': 1}
  assert report['keys_not_used'] == {
    'row.reward': 2,
    'message.stamp': 1,
    'row.split': 1,
  }
  assert report['turns_left_out'] == {'exit': 1}
  file = json.loads((tmp_path / 'out' / prepare.REPORT).read_text())
  assert file['keys_not_used'] == report['keys_not_used']
  assert file['turns_left_out'] == report['turns_left_out']


def test_held_out_rows_are_chosen_by_their_id_alone(renderer, tmp_path):
  many = [
    {**GOOD[i % 3], 'id': f'row {i}', 'messages': GOOD[i % 3]['messages']}
    for i in range(40)
  ]
  first = write_rows(tmp_path / 'a.jsonl', [*many, BAD['malformed']])
  again = write_rows(tmp_path / 'b.jsonl', many[::-1])
  splits = []
  for source, output in ((first, 'a'), (again, 'b')):
    report, _ = run(renderer, source, tmp_path / output, heldout=0.25)
    assert sum(s['rows'] for s in report['splits'].values()) == 40
    held = dataset.Records(str(tmp_path / output), 'heldout')
    kept = dataset.Records(str(tmp_path / output))
    ids = [{part[i].id for i in range(len(part))} for part in (kept, held)]
    assert ids[0] | ids[1] == {f'row {i}' for i in range(40)}
    splits.append(ids)
  assert splits[0] == splits[1]
  assert 3 <= len(splits[0][1]) <= 20


def test_long_rows_become_windows_that_score_each_token_once(
  renderer, tmp_path
):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  whole, _ = run(renderer, source, tmp_path / 'whole')
  cut, _ = run(renderer, source, tmp_path / 'cut', max_length=12, overlap=4)
  assert cut['rows'] == whole['rows']
  assert cut['tokens_by_author'] == whole['tokens_by_author']
  assert cut['splits']['train']['records'] > whole['splits']['train']['records']
  for folder in ('whole', 'cut'):
    index = dataset.Records(str(tmp_path / folder)).index
    assert index.length_N.max() <= (12 if folder == 'cut' else 10**9)
    scored = index.counts_NPV.sum()
    assert scored == whole['tokens'] - 3  # all but each first token


def test_rows_that_are_too_long_can_be_set_aside_instead(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  lengths = {
    g['id']: len(
      renderer.example(
        registry.read(g, g['id'], 'auto', Rules.default())
      ).tokens_T
    )
    for g in GOOD
  }
  limit = sorted(lengths.values())[1]
  report, _ = run(
    renderer,
    source,
    tmp_path / 'out',
    max_length=limit,
    overlong='reject',
  )
  longest = max(lengths, key=lengths.get)
  assert report['rejected'] == {'too_long': 1}
  (note,) = rejections(tmp_path / 'out')
  assert (note['id'], note['message']) == (
    longest,
    f'{lengths[longest]} tokens; --max_length is {limit}',
  )


# Words beside a call are left out, and earlier thinking is hidden.
HIDES = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n'
  '{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}'
  '</think>{% endif %}{% for c in m.tool_calls or [] %}{{ c.function.name }}'
  '{% else %}{{ m.content }}{% endfor %}<|im_end|>\n{% endfor %}'
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


@pytest.mark.parametrize(
  ('on_dropped', 'written', 'lost'),
  [
    # thinks: 1 record, whose first thought is hidden. calls: rejected.
    ('reject', {'thinks': 1}, {'thinking_characters': 2}),
    ('keep', {'thinks': 1, 'calls': 1}, {'dropped_characters': 8}),
    # One record per turn of the agent, which shows all thoughts.
    ('split', {'thinks': 2, 'calls': 2}, {'thinking_characters': 0}),
  ],
)
def test_rows_of_which_a_template_leaves_out_words(
  on_dropped, written, lost, tmp_path
):
  renderer = Renderer(chat_tokenizer.trained(), HIDES)
  user, call = {'role': 'user'}, {'name': 'f', 'arguments': {}}
  agent = {'role': 'assistant'}
  rows = [
    {
      'id': 'thinks',
      'messages': [
        {**user, 'content': 'Hi?'},
        {**agent, 'content': 'Yo.', 'reasoning_content': 'Hm'},
        {**user, 'content': 'So?'},
        {**agent, 'content': 'No.', 'reasoning_content': 'Ah'},
      ],
    },
    {
      'id': 'calls',
      'messages': [
        {**user, 'content': 'Hi?'},
        {**agent, 'content': 'I see. A', 'tool_calls': [{'function': call}]},
        {'role': 'tool', 'content': '21'},
        {**agent, 'content': 'It is 21.'},
      ],
    },
  ]
  source = write_rows(tmp_path / 'runs.jsonl', rows)
  report, _ = run(renderer, source, tmp_path / 'out', on_dropped=on_dropped)
  records = dataset.Records(str(tmp_path / 'out'))
  ids = [example.id for example in records]
  assert {id: ids.count(id) for id in ids} == written
  assert report['lost'].items() >= lost.items()
  # Every token is counted once: the windows' own tokens are all tokens.
  own = sum(len(e.tokens_T) - e.scored_from for e in records)
  assert report['tokens'] == own
  if on_dropped == 'split':
    windows = [(e.id, e.window, bool(e.scored_from)) for e in records]
    assert sorted(windows) == [
      *(('calls', 0, False), ('calls', 1, True)),
      *(('thinks', 0, False), ('thinks', 1, True)),
    ]


def test_tokens_pass_through_untouched(renderer, tmp_path):
  rows = [
    {'id': 'x', 'tokens': [5, 0, 7], 'provenance': ['USER', 'AGENT', 'TOOL']},
    {'id': 'y', 'tokens': [5, 999], 'provenance': ['USER', 'AGENT']},
  ]
  source = write_rows(tmp_path / 'runs.jsonl', rows)
  report, _ = run(renderer, source, tmp_path / 'out')
  assert report['rejected'] == {'malformed': 1}
  (note,) = rejections(tmp_path / 'out')
  assert note['message'] == (
    f'id 999; the tokenizer has ids below {tokenizer.size(renderer.tokenizer)}'
  )
  example = dataset.Records(str(tmp_path / 'out'))[0]
  assert example.tokens_T.tolist() == [5, 0, 7]
  assert example.provenance_T.tolist() == [P.USER, P.AGENT, P.TOOL]


REACT = 'Question: What?\nThought: 42.\nAction: look\nObservation: 42'


def test_react_text_is_proved_under_the_plain_format_or_set_aside(
  renderer, tmp_path
):
  source = write_rows(tmp_path / 'runs.jsonl', [{'text': REACT}, GOOD[0]])
  run(renderer, source, tmp_path / 'plain')
  example, _ = dataset.Records(str(tmp_path / 'plain'))
  agents = example.tokens_T[example.provenance_T == P.AGENT]
  said = renderer.tokenizer.decode(agents)
  assert said == 'Thought: 42.\nAction: look\n'
  other = Renderer(
    renderer.tokenizer,
    '{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}'
    '{% if add_generation_prompt %}<assistant>{% endif %}',
  )
  report, _ = run(other, source, tmp_path / 'other')
  assert report['rows'] == {'read': 2, 'written': 1, 'rejected': 1}
  (note,) = rejections(tmp_path / 'other')
  assert (note['row'], note['message']) == (
    1,
    'ReAct text needs the plain format; use --chat_template=plain',
  )
  with pytest.raises(ValueError, match=r'could be written \(2 template_raises'):
    run(other, source, tmp_path / 'named', format='react')


def test_a_second_run_does_nothing_and_another_one_is_refused(
  renderer, tmp_path
):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  first, _ = run(renderer, source, tmp_path / 'out')
  files = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').rglob('*')}
  again, was_there = run(renderer, source, tmp_path / 'out')
  assert was_there
  assert again == json.loads(json.dumps(first))
  with pytest.raises(
    ValueError, match=r'prepared differently \(other settings\)'
  ):
    run(renderer, source, tmp_path / 'out', max_length=64)
  write_rows(tmp_path / 'runs.jsonl', GOOD[:2])
  with pytest.raises(ValueError, match=r'prepared differently \(other files\)'):
    run(renderer, source, tmp_path / 'out')
  assert files == {
    p: p.stat().st_mtime_ns for p in (tmp_path / 'out').rglob('*')
  }


def with_edit(path, edit):
  """Edits a file without another size or time."""
  before = path.stat()
  path.write_text(edit(path.read_text()))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size


def test_an_edit_of_the_same_length_is_another_input(renderer, tmp_path):
  (tmp_path / 'runs').mkdir()
  source = tmp_path / 'runs' / 'a.jsonl'
  write_rows(source, GOOD)
  old = tmp_path / 'old'
  run(renderer, tmp_path / 'runs', old)
  source.touch()
  assert run(renderer, tmp_path / 'runs', old)[1]
  with_edit(source, lambda text: text.replace('42', '24'))
  with pytest.raises(ValueError, match=f'other contents of {source}\\)'):
    run(renderer, tmp_path / 'runs', old)
  write_rows(tmp_path / 'runs' / 'b.jsonl', GOOD[2:])
  with pytest.raises(ValueError, match=f'{source} has changed since {old}'):
    run(renderer, tmp_path / 'runs', tmp_path / 'new', extends=str(old))
  # The edit is undone: the same contents are the same input.
  with_edit(source, lambda text: text.replace('24', '42'))
  new = tmp_path / 'new'
  report, _ = run(renderer, tmp_path / 'runs', new, extends=str(old))
  assert report['rows']['read'] == 1
  # The next data set knows the contents of the first one's files, too.
  with_edit(source, lambda text: text.replace('42', '24'))
  with pytest.raises(ValueError, match=f'other contents of {source}\\)'):
    run(renderer, tmp_path / 'runs', new, extends=str(old))


def test_an_edit_of_a_member_of_an_archive_is_another_input(renderer, tmp_path):
  source = tmp_path / 'runs.zip'

  def pack(**members):
    with zipfile.ZipFile(source, 'w') as archive:
      for name, rows in members.items():
        text = '\n'.join(map(json.dumps, rows))
        archive.writestr(f'{name}.jsonl', text)

  pack(a=GOOD)
  old = tmp_path / 'old'
  run(renderer, source, old)
  pack(a=GOOD[::-1])
  with pytest.raises(ValueError, match=f'other contents of {source}/a.jsonl'):
    run(renderer, source, old)
  # Another member does not change this one.
  pack(a=GOOD, b=GOOD[2:])
  report, _ = run(renderer, source, tmp_path / 'new', extends=str(old))
  assert report['rows']['read'] == 1


def test_reports_without_digests_compare_sizes(renderer, tmp_path):
  source = tmp_path / 'runs.jsonl'
  write_rows(source, GOOD)
  run(renderer, source, tmp_path / 'out')
  path = tmp_path / 'out' / prepare.REPORT
  report = json.loads(path.read_text())
  del report['digests']
  path.write_text(json.dumps(report))
  assert run(renderer, source, tmp_path / 'out')[1]
  write_rows(source, GOOD[:2])
  with pytest.raises(ValueError, match=r'prepared differently \(other files\)'):
    run(renderer, source, tmp_path / 'out')


def test_a_data_set_from_before_a_setting_is_as_that_is_by_default(
  renderer, tmp_path
):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  run(renderer, source, tmp_path / 'out')
  path = tmp_path / 'out' / prepare.REPORT
  report = json.loads(path.read_text())
  del report['asked']['settings']['num_shards']
  path.write_text(json.dumps(report))
  _, was_there = run(renderer, source, tmp_path / 'out')
  assert was_there
  with pytest.raises(ValueError, match=r'differently \(other settings\)'):
    run(renderer, source, tmp_path / 'out', num_shards=2)


def test_new_runs_make_another_data_set_that_begins_with_the_old(
  renderer, tmp_path
):
  (tmp_path / 'runs').mkdir()
  write_rows(tmp_path / 'runs' / 'a.jsonl', GOOD[:2])
  old, new = tmp_path / 'old', tmp_path / 'new'
  run(renderer, tmp_path / 'runs', old)
  before = {p: p.stat().st_mtime_ns for p in old.rglob('*')}
  write_rows(tmp_path / 'runs' / 'b.jsonl', [GOOD[2], BAD['malformed']])
  report, _ = run(renderer, tmp_path / 'runs', new, extends=str(old))
  assert report['rows'] == {'read': 2, 'written': 1, 'rejected': 1}
  found = dataset.Records(str(new))
  assert [found[i].id for i in range(3)] == ['one', 'two', 'three']
  assert [*verify.damages(str(new))] == []
  assert before == {p: p.stat().st_mtime_ns for p in old.rglob('*')}
  # Every file is read once, however many data sets follow one another.
  with pytest.raises(ValueError, match=f'{new} already has all files of'):
    run(renderer, tmp_path / 'runs', tmp_path / 'next', extends=str(new))
  again, was_there = run(renderer, tmp_path / 'runs', new, extends=str(old))
  assert was_there
  assert again == json.loads(json.dumps(report))


def test_a_file_is_read_once_by_whatever_name(renderer, tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  write_rows(tmp_path / 'runs' / 'a.jsonl', GOOD[:2])
  run(renderer, tmp_path / 'runs', tmp_path / 'old')
  write_rows(tmp_path / 'runs' / 'b.jsonl', GOOD[2:])
  for folder, name in ((tmp_path, 'runs'), (tmp_path / 'runs', '../runs/.')):
    monkeypatch.chdir(folder)
    output = tmp_path / f'of {name[:1]}'
    report, _ = run(renderer, name, output, extends=str(tmp_path / 'old'))
    assert report['rows']['read'] == 1


def test_what_cannot_be_added_says_why(renderer, tmp_path):
  (tmp_path / 'runs').mkdir()
  source = write_rows(tmp_path / 'runs' / 'a.jsonl', GOOD[:2])
  old, new = str(tmp_path / 'old'), tmp_path / 'new'
  run(renderer, source, old)
  with pytest.raises(
    ValueError, match=f'{old} already has all files of {source}'
  ):
    run(renderer, source, new, extends=old)
  write_rows(tmp_path / 'runs' / 'a.jsonl', GOOD)
  with pytest.raises(ValueError, match=f'{source} has changed since {old} was'):
    run(renderer, tmp_path / 'runs', new, extends=old)
  write_rows(tmp_path / 'runs' / 'a.jsonl', GOOD[:2])
  write_rows(tmp_path / 'runs' / 'b.jsonl', GOOD)
  other = Renderer(renderer.tokenizer, chat_template.PLAIN + ' ')
  with pytest.raises(ValueError, match=f'{old} was rendered with another toke'):
    run(other, tmp_path / 'runs', new, extends=old)
  with pytest.raises(ValueError, match='runs is not a prepared data set: prep'):
    run(renderer, source, new, extends=str(tmp_path / 'runs'))
  assert not new.exists()


def test_a_remote_output_holds_what_a_folder_here_would(
  renderer, tmp_path, monkeypatch
):
  """Through etils.epath; the bucket is a folder under another name."""

  class Bucket(local.LocalFileSystem):
    @classmethod
    def _strip_protocol(cls, path):
      return super()._strip_protocol(
        os.fspath(path).replace('gs://', f'{tmp_path}/')
      )

    def glob(self, path):
      return [os.path.relpath(found, tmp_path) for found in super().glob(path)]

  monkeypatch.setattr(
    type(backend.fsspec_backend), '_get_filesystem', lambda *_: Bucket()
  )
  (tmp_path / 'bucket').mkdir()
  source = write_rows(tmp_path / 'runs.jsonl', [*GOOD, BAD['malformed']])
  run(renderer, source, tmp_path / 'here')
  run(renderer, source, 'gs://bucket/there')
  found = []
  for folder in (tmp_path / 'here', tmp_path / 'bucket' / 'there'):
    found.append(
      {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.name != prepare.REPORT
      }
    )
  assert found[0] == found[1]
  again, was_there = run(renderer, source, 'gs://bucket/there')
  assert was_there
  assert again['rows'] == {'read': 4, 'written': 3, 'rejected': 1}
  assert [*verify.damages('gs://bucket/there')] == []
  more = write_rows(tmp_path / 'more.jsonl', GOOD[:1])
  run(renderer, more, 'gs://bucket/next', extends='gs://bucket/there')
  assert [*verify.damages('gs://bucket/next')] == []
  (shard,) = (tmp_path / 'bucket' / 'there').rglob('*array_record-00000')
  shard.write_bytes(shard.read_bytes()[:-1])
  assert [*verify.damages('gs://bucket/there')] == [
    str(shard).replace(f'{tmp_path}/', 'gs://') + ': its bytes have changed'
  ]


def test_rows_of_the_hub(renderer, tmp_path, monkeypatch):
  asked = []

  def load(place, config, split, streaming):
    asked.append((place, config, split, streaming))
    found = [{**row, 'id': None} for row in GOOD]
    return datasets.IterableDataset.from_generator(lambda: iter(found))

  monkeypatch.setattr(datasets, 'load_dataset', load)
  report, _ = run(renderer, 'hf://org/runs', tmp_path / 'out', split='test')
  assert asked == [('org/runs', None, 'test', True)]
  assert report['asked']['files'] == {'hf://org/runs:test': None}
  found = dataset.Records(str(tmp_path / 'out'))
  assert [found[i].id for i in range(3)] == [
    f'org/runs:test:{n}' for n in (1, 2, 3)
  ]


def test_a_folder_that_is_something_else_is_left_alone(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'thesis.tex').write_text('kept')
  with pytest.raises(ValueError, match='is not a prepared data set: prep'):
    run(renderer, source, tmp_path / 'out')
  assert [p.name for p in (tmp_path / 'out').iterdir()] == ['thesis.tex']


def test_a_folder_that_is_in_the_way_is_left_alone(renderer, tmp_path):
  """Where a run writes until it is done; only its own remains are cleared."""
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  (tmp_path / 'out.part').mkdir()
  (tmp_path / 'out.part' / 'thesis.tex').write_text('kept')
  with pytest.raises(ValueError, match=r'out.part exists and was not made by'):
    run(renderer, source, tmp_path / 'out')
  assert (tmp_path / 'out.part' / 'thesis.tex').read_text() == 'kept'


def test_everything_held_out_is_no_data_set(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  with pytest.raises(
    ValueError, match='no row is left to train on: all are held'
  ):
    run(renderer, source, tmp_path / 'out', heldout=0.999999)


def test_what_is_added_may_all_be_held_out(renderer, tmp_path):
  old, new = tmp_path / 'old', tmp_path / 'new'
  run(renderer, write_rows(tmp_path / 'a.jsonl', GOOD), old)
  more = write_rows(tmp_path / 'b.jsonl', GOOD)
  run(renderer, more, new, heldout=0.999999, extends=str(old))
  sizes = [len(dataset.Records(str(new), s)) for s in ('train', 'heldout')]
  assert sizes == [3, 3]
  assert [*verify.damages(str(new))] == []


def test_files_without_a_row_say_so(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', [])
  with pytest.raises(ValueError, match=f'^no rows in {source}$'):
    run(renderer, source, tmp_path / 'out')


def test_no_row_at_all_says_why(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', [*BAD.values()] * 2)
  with pytest.raises(ValueError, match='none of 8 rows could be written') as e:
    run(renderer, source, tmp_path / 'out')
  assert '2 template_raises' in str(e.value)
  assert len(rejections(tmp_path / 'out.part')) == 8
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'format': 'csv'}, '--format must be one of auto, '),
    ({'overlong': 'cut'}, '--overlong must be one of window, reject'),
    ({'heldout': 1.0}, '--heldout=1.0 must be 0 or more, below 1'),
    ({'max_length': -1}, '--max_length=-1 must not be negative'),
    ({'num_shards': -1}, '--num_shards=-1 must not be negative'),
    ({'max_length': 8, 'overlap': 8}, '--overlap=8 must be at least 1'),
    ({'max_length': 3}, '--overlap=0 must be at least 1'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    prepare.Settings('runs', **settings)


KILLED = """
import os, signal, sys
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer

source, output, tokenizer_, after = sys.argv[1:]

def progress(tally):
  if tally.read == int(after):
    os.kill(os.getpid(), signal.SIGKILL)

renderer = Renderer(tokenizer.load(tokenizer_), chat_template.PLAIN)
prepare.prepare(
  prepare.Settings(source), renderer, Rules.default(), output, progress
)
"""


def test_a_killed_run_leaves_no_data_set_and_starts_again(renderer, tmp_path):
  source = write_rows(tmp_path / 'runs.jsonl', GOOD)
  renderer.save_tokenizer(tmp_path / 'tokenizer')
  arguments = [source, str(tmp_path / 'out'), str(tmp_path / 'tokenizer')]

  def start(kill_after):
    return subprocess.run(
      [sys.executable, '-c', KILLED, *arguments, str(kill_after)],
      capture_output=True,
      text=True,
      check=False,
    )

  assert start(2).returncode == -signal.SIGKILL
  assert (tmp_path / 'out.part').is_dir()
  assert not (tmp_path / 'out').exists()
  again = start(99)
  assert again.returncode == 0, again.stderr
  assert len(dataset.Records(str(tmp_path / 'out'))) == 3
  assert not (tmp_path / 'out.part').exists()
