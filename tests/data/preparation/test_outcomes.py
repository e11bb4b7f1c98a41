"""One row in, and records or a note out, whatever the row holds."""

import json
import pathlib

import pytest

from isft_jax.data.files import rows as rows_lib
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import outcomes, prepare, verify
from isft_jax.data.preparation.outcomes import Preparer
from isft_jax.data.rendering.rejection import REASONS
from isft_jax.data.rendering.renderer import Renderer
from tests.data.chat_tokenizer import template, trained

CALL = {'id': 'c1', 'function': {'name': 'f', 'arguments': '{}'}}


def row(id, **fields):
  asked = {'role': 'user', 'content': 'What is it?'}
  answered = {'role': 'assistant', 'content': 'It is.', **fields}
  return {'id': id, 'messages': [asked, answered]}


def run(folder, rows, num_workers=1):
  """Returns the report and the notes of a preparation."""
  source = folder / 'runs.jsonl'
  source.write_text('\n'.join(map(json.dumps, rows)))
  report, _ = prepare.prepare(
    prepare.Settings(str(source)),
    Renderer(trained(), template('chatml')),
    Rules.default(),
    folder / 'out',
    num_workers=num_workers,
  )
  lines = (folder / 'out' / prepare.REJECTED).read_text().splitlines()
  assert [*verify.damages(str(folder / 'out'))] == []
  return report, [*map(json.loads, lines)]


@pytest.mark.parametrize('value', [5, True, 1.5, 'x', {'a': 1}])
@pytest.mark.parametrize(
  'fields',
  [
    lambda value: {'tool_calls': [{**CALL, 'tool_calls': value}]},
    lambda value: {
      'tool_calls': [
        {**CALL, 'function': {**CALL['function'], 'tool_calls': value}}
      ]
    },
    lambda value: {'function': {'tool_calls': value}},
  ],
  ids=['in a call', 'in a function', 'in a message'],
)
def test_calls_inside_of_a_call_set_the_row_aside(value, fields, tmp_path):
  rows = [row('one'), row('bad', **fields(value)), row('two')]
  report, notes = run(tmp_path, rows)
  assert report['rows'] == {'read': 3, 'written': 2, 'rejected': 1}
  assert report['unexpected_errors'] == {}
  assert [(note['id'], note['reason']) for note in notes] == [
    ('bad', 'malformed')
  ]
  assert notes[0]['message'].startswith('turn 1: tool_calls inside of ')


@pytest.fixture
def failing(monkeypatch):
  """Lets a step fail for the rows whose ids are the name of an exception."""
  errors = {e.__name__: e for e in (TypeError, KeyError, RecursionError)}

  def fail(place, name, id_at):
    step = getattr(place, name)

    def failing_step(*arguments):
      id = id_at(arguments)
      if id in errors:
        raise errors[id]('two\nlines ' + 'x' * 1_000)
      return step(*arguments)

    monkeypatch.setattr(place, name, failing_step)

  return fail


IDS = ['one', 'TypeError', 'two', 'KeyError', 'TypeError', 'RecursionError']


@pytest.mark.parametrize(
  ('place', 'name', 'id_at'),
  [
    (registry, 'id_of', lambda arguments: arguments[0]['id']),
    (registry, 'parse', lambda arguments: arguments[1]),
    (Renderer, 'render', lambda arguments: arguments[1].id),
    (Preparer, '_fit', lambda arguments: arguments[1].id),
    (Preparer, '_encode', lambda arguments: arguments[1].id),
  ],
  ids=['id', 'parse', 'render', 'windows', 'encode'],
)
def test_an_unknown_error_costs_one_row_and_is_named(
  place, name, id_at, failing, tmp_path
):
  failing(place, name, id_at)
  report, notes = run(tmp_path, map(row, IDS))
  assert report['rows'] == {'read': 6, 'written': 2, 'rejected': 4}
  assert report['rejected'] == {'malformed': 4}
  assert report['unexpected_errors'] == {
    'TypeError': 2,
    'KeyError': 1,
    'RecursionError': 1,
  }
  # Counts are those of the rows that are written.
  assert report['splits'] == {'train': {'rows': 2, 'records': 2}}
  for note, id in zip(notes, IDS[1:2] + IDS[3:], strict=True):
    assert note['reason'] == 'malformed'
    assert note['message'].startswith(f'a bug of isft_jax: {id} at ')
    assert 'lines xxx' in note['message']
    assert '\n' not in note['message'] and len(note['message']) < 400


@pytest.mark.parametrize('error', [MemoryError, OSError, KeyboardInterrupt])
def test_what_no_row_is_to_blame_for_ends_the_preparation(
  error, monkeypatch, tmp_path
):
  def fail(*_):
    raise error

  monkeypatch.setattr(registry, 'parse', fail)
  with pytest.raises(error):
    run(tmp_path, map(row, IDS))
  assert not (tmp_path / 'out').exists()


LONG = 'ab ' * 40
LONG_ROWS = {
  'a message': row('long', content=LONG),
  'a call': row(
    'long',
    tool_calls=[{'function': {'name': 'f', 'arguments': {'x': [{'y': LONG}]}}}],
  ),
  'JSON text of a call': row(
    'long',
    tool_calls=[
      {'function': {'name': 'f', 'arguments': json.dumps({'x': LONG})}}
    ],
  ),
  'keys of a call': row(
    'long',
    tool_calls=[{'function': {'name': 'f', 'arguments': {LONG: 1}}}],
  ),
  'thinking': row('long', reasoning_content=LONG),
  'a tool': row('long') | {'tools': [{'name': 'f', 'description': LONG}]},
  'many turns': {'id': 'long', 'messages': row('one')['messages'] * 9},
}


@pytest.mark.parametrize('kind', LONG_ROWS)
def test_a_row_with_too_many_characters_is_not_rendered(
  kind, monkeypatch, tmp_path
):
  monkeypatch.setattr(outcomes, 'LONGEST_ROW', 100)
  rendered = []
  render = Renderer.render

  def noted(self, trajectory, *arguments):
    rendered.append(trajectory.id)
    return render(self, trajectory, *arguments)

  monkeypatch.setattr(Renderer, 'render', noted)
  rows = [row('one'), LONG_ROWS[kind], {**row('two'), 'notes': LONG}]
  report, notes = run(tmp_path, rows)
  assert rendered == ['one', 'two']
  assert report['rejected'] == {'too_long': 1}
  (note,) = notes
  assert note['id'] == 'long'
  assert note['message'].endswith(
    ' characters in messages and tools; the limit is 100'
  )


def test_the_documented_limits_are_those_of_the_code():
  limit = f'{outcomes.LONGEST_ROW:,}'
  assert limit in REASONS['too_long']
  page = pathlib.Path(__file__).parents[3] / 'docs' / 'preparing_data.md'
  assert f'more than {limit} characters' in page.read_text()


def test_an_unknown_error_of_a_file_keeps_the_rows_before_it(
  monkeypatch, tmp_path
):
  read = rows_lib.strict_json.parse

  def fail(text, **settings):
    if 'fails' in text:
      raise IndexError('out of range')
    return read(text, **settings)

  monkeypatch.setattr(rows_lib.strict_json, 'parse', fail)
  (tmp_path / 'runs').mkdir()
  # More lines than are examined to detect a session.
  for name, ids in (('a', [*'123456789', 'fails', '11']), ('b', '12')):
    lines = '\n'.join(json.dumps(row(id)) for id in ids)
    (tmp_path / 'runs' / f'{name}.jsonl').write_text(lines)
  report, _ = prepare.prepare(
    prepare.Settings(str(tmp_path / 'runs')),
    Renderer(trained(), template('chatml')),
    Rules.default(),
    tmp_path / 'out',
  )
  assert report['rows'] == {'read': 12, 'written': 11, 'rejected': 1}
  assert report['unexpected_errors'] == {'IndexError': 1}
  note = json.loads((tmp_path / 'out' / prepare.REJECTED).read_text())
  assert (note['row'], note['reason']) == (10, 'malformed')
  assert note['message'].startswith('a bug of isft_jax: IndexError at ')
  assert note['message'].endswith('; the rest of the file is not read')
