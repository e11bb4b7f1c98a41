"""Sessions of Claude Code: turns of an agent from lines, and their authors."""

import pytest

from isft_jax.data.formats import claude_code
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def user(content, uuid='', parent=None, **more):
  """A line of the user; with a parent, it is in a tree."""
  ids = {'uuid': uuid or None, 'parentUuid': parent, 'sessionId': 's'}
  message = {'role': 'user', 'content': content}
  return {'type': 'user', **ids, 'message': message, **more}


def agent(id, *blocks, uuid='', parent=None, model='m', **more):
  """A line of the agent with the id of its message."""
  ids = {'uuid': uuid or None, 'parentUuid': parent, 'sessionId': 's'}
  message = {'id': id, 'type': 'message', 'role': 'assistant', 'model': model}
  message |= {'content': [*blocks], 'usage': {'output_tokens': 1}}
  return {'type': 'assistant', **ids, 'message': message, **more}


def text(words):
  return {'type': 'text', 'text': words}


def thinking(words):
  return {'type': 'thinking', 'thinking': words, 'signature': 'Eo0B'}


def use(id):
  return {'type': 'tool_use', 'id': id, 'name': 'Bash', 'input': {'n': id}}


def result(id, content, **more):
  block = {'type': 'tool_result', 'tool_use_id': id, 'content': content}
  return user([block | more], toolUseResult={'stdout': content})


def call(id):
  function = {'name': 'Bash', 'arguments': {'n': id}}
  return {'id': id, 'type': 'function', 'function': function}


def segments(*lines):
  chat = claude_code.read([*lines])
  found = Rules.default().trajectory('x', chat).segments
  return [
    (
      s.role,
      s.text,
      s.provenance.name,
      *((s.text[p.start : p.stop], p.provenance.name) for p in s.parts),
    )
    for s in found
  ]


def test_lines_of_one_message_are_one_turn():
  """Results stand between calls if tools start before the message ends."""
  lines = [
    user('q'),
    agent('m1', thinking('h')),
    agent('m1', text('a')),
    agent('m1', use('x')),
    result('x', '1'),
    agent('m1', use('y')),
    result('y', [text('2')], is_error=True),
    agent('m2', text('b')),
  ]
  chat = claude_code.read(lines)
  assert [turn.message for turn in chat.turns] == [
    {'role': 'user', 'content': 'q'},
    {
      'role': 'assistant',
      'content': 'a',
      'reasoning_content': 'h',
      'tool_calls': [call('x'), call('y')],
    },
    {'role': 'tool', 'content': '1', 'tool_call_id': 'x'},
    {'role': 'tool', 'content': '2', 'tool_call_id': 'y', 'is_error': True},
    {'role': 'assistant', 'content': 'b'},
  ]
  assert chat.left_out == {}


def test_a_streamed_session():
  """Lines of --output-format=stream-json."""
  lines = [
    {'type': 'system', 'subtype': 'init', 'session_id': 's', 'tools': ['Bash']},
    {**agent('m1', text('a'), use('x')), 'session_id': 's'},
    {**result('x', '1'), 'session_id': 's', 'parent_tool_use_id': None},
    {'type': 'result', 'subtype': 'success', 'session_id': 's', 'result': 'b'},
  ]
  lines = [
    {k: v for k, v in line.items() if k not in ('uuid', 'parentUuid')}
    for line in lines
  ]
  for line in lines:
    line.pop('sessionId', None)
  chat = claude_code.read(lines)
  roles = [turn.message['role'] for turn in chat.turns]
  assert roles == ['assistant', 'tool']
  assert chat.left_out == {'system': 1, 'result': 1}


def test_lines_without_a_message_are_counted():
  lines = [
    {'type': 'summary', 'summary': 'x', 'leafUuid': 'u'},
    {'type': 'file-history-snapshot', 'snapshot': {}},
    user('Caveat: ...', isMeta=True),
    user('q'),
    {'type': 'system', 'subtype': 'turn_duration', 'sessionId': 's'},
    agent('m1', text('API Error: 500'), isApiErrorMessage=True),
    user('only shown', isVisibleInTranscriptOnly=True),
    agent('m2', text('a')),
    {'type': 'x' * 1_000},
    {},
  ]
  chat = claude_code.read(lines)
  assert [turn.message['content'] for turn in chat.turns] == ['q', 'a']
  assert chat.left_out == {
    'summary': 1,
    'file-history-snapshot': 1,
    'meta': 1,
    'system': 1,
    'API error': 1,
    'transcript only': 1,
    'x' * 40: 1,
    'no type': 1,
  }


REMINDER = '<system-reminder>\nNo todos.\n</system-reminder>'
COMMAND = '<command-name>/review</command-name>'
NOTE = '[Request interrupted by user]'
REFUSED = (
  "The user doesn't want to proceed with this tool use. The tool use was "
  'rejected (eg. if it was a file edit, the new_string was NOT written to the '
  'file). '
)
STOP = REFUSED + 'STOP what you are doing and wait for the user.'
TELL = REFUSED + 'To tell you how to proceed, the user said:\n'
AFTER = "\n\nNote: The user's next message may contain a correction."


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    (user('a'), ('user', 'a', 'USER')),
    (user([text('a'), text('b')]), ('user', 'ab', 'USER')),
    (agent('m', text('a')), ('assistant', 'a', 'AGENT')),
    (result('x', 'a'), ('tool', 'a', 'TOOL')),
    # The program wrote all of it.
    (user(REMINDER), ('user', REMINDER, 'HARNESS')),
    (user([text(NOTE)]), ('user', NOTE, 'HARNESS')),
    (
      user([text('[Request interrupted by user for tool use]')]),
      ('user', '[Request interrupted by user for tool use]', 'HARNESS'),
    ),
    (
      user('Stop hook feedback:\nlint'),
      ('user', 'Stop hook feedback:\nlint', 'HARNESS'),
    ),
    (
      user('<local-command-stdout>ok</local-command-stdout>'),
      (
        'user',
        '<local-command-stdout>ok</local-command-stdout>',
        'HARNESS',
      ),
    ),
    (
      user(f'{COMMAND}\n<command-args></command-args>'),
      ('user', f'{COMMAND}\n<command-args></command-args>', 'HARNESS'),
    ),
    # A part of it.
    (
      user(f'{REMINDER}\n\nFix it.'),
      (
        'user',
        f'{REMINDER}\n\nFix it.',
        'USER',
        (f'{REMINDER}\n\n', 'HARNESS'),
      ),
    ),
    (
      user([text(NOTE), text('Stop.')]),
      ('user', f'{NOTE}Stop.', 'USER', (NOTE, 'HARNESS')),
    ),
    (
      user(f'{COMMAND}<command-args>all</command-args>'),
      (
        'user',
        f'{COMMAND}<command-args>all</command-args>',
        'USER',
        (COMMAND, 'HARNESS'),
      ),
    ),
    (
      result('x', f'a\n{REMINDER}'),
      ('tool', f'a\n{REMINDER}', 'TOOL', (REMINDER, 'HARNESS')),
    ),
    # Calls that the user refused.
    (result('x', NOTE), ('tool', NOTE, 'HARNESS')),
    (result('x', STOP), ('tool', STOP, 'HARNESS')),
    (
      result('x', f'{TELL}No.'),
      ('tool', f'{TELL}No.', 'TOOL', (TELL, 'HARNESS'), ('No.', 'USER')),
    ),
    (
      result('x', f'{TELL}No.{AFTER}'),
      (
        'tool',
        f'{TELL}No.{AFTER}',
        'TOOL',
        (TELL, 'HARNESS'),
        ('No.', 'USER'),
        (AFTER, 'HARNESS'),
      ),
    ),
    # The user's own command, and its output.
    (
      user('<bash-input>ls</bash-input>'),
      ('user', '<bash-input>ls</bash-input>', 'USER'),
    ),
    (
      user('<bash-stdout>a</bash-stdout><bash-stderr></bash-stderr>'),
      (
        'user',
        '<bash-stdout>a</bash-stdout><bash-stderr></bash-stderr>',
        'TOOL',
      ),
    ),
    # Elements that do not end, and notes that come later, are the user's.
    (user('<system-reminder>'), ('user', '<system-reminder>', 'USER')),
    (user(f'a {NOTE}'), ('user', f'a {NOTE}', 'USER')),
    # The agent may write such an element itself.
    (agent('m', text(REMINDER)), ('assistant', REMINDER, 'AGENT')),
    # A summary of earlier turns.
    (
      user('sum', isCompactSummary=True, isVisibleInTranscriptOnly=True),
      ('user', 'sum', 'CONTEXT'),
    ),
    # The program wrote it in the agent's place.
    (
      agent('m', text('No response requested.'), model='<synthetic>'),
      ('assistant', 'No response requested.', 'HARNESS'),
    ),
    # An element inside of another one, and a longer name.
    (
      user(f'<bash-stdout>{REMINDER}</bash-stdout>'),
      ('user', f'<bash-stdout>{REMINDER}</bash-stdout>', 'TOOL'),
    ),
    (
      user('<system-reminders>a</system-reminder>'),
      ('user', '<system-reminders>a</system-reminder>', 'USER'),
    ),
    # Annotations come first.
    (user(REMINDER, author='user'), ('user', REMINDER, 'USER')),
  ],
)
def test_who_wrote_a_turn(line, expected):
  assert segments(line) == [expected]


def test_a_result_and_a_note_of_one_line():
  block = {'type': 'tool_result', 'tool_use_id': 'x', 'content': 'rejected'}
  assert segments(agent('m', use('x')), user([block, text(NOTE)])) == [
    ('assistant', '', 'AGENT'),
    ('tool', 'rejected', 'TOOL'),
    ('user', NOTE, 'HARNESS'),
  ]


def test_time_is_linear_in_open_elements():
  words = '<system-reminder>' * 100_000
  assert segments(result('x', words)) == [('tool', words, 'TOOL')]
  words += '</system-reminder>' + words
  [(_, _, author, *spans)] = segments(result('x', words))
  assert (author, len(spans)) == ('TOOL', 1)


TREE = [
  # (line of the tree, whether it is kept)
  (user('q', 'u1'), True),
  (agent('m1', text('a'), uuid='u2', parent='u1'), True),
  (user('wrong turn', 'u3', 'u2'), False),
  ({'type': 'attachment', 'uuid': 'u4', 'parentUuid': 'u3'}, False),
  (agent('m2', text('b'), uuid='u5', parent='u4'), False),
  (user('better', 'u6', 'u2'), True),
  (agent('m3', text('c'), uuid='u7', parent='u6'), True),
]


def test_a_branch_that_the_user_left_is_left_out():
  chat = claude_code.read([line for line, _ in TREE])
  assert [turn.message['content'] for turn in chat.turns] == [
    line['message']['content']
    if line['type'] == 'user'
    else line['message']['content'][0]['text']
    for line, is_kept in TREE
    if is_kept
  ]
  assert chat.left_out == {'rewound': 2, 'attachment': 1}


def test_parallel_results_are_no_branches():
  lines = [
    user('q', 'u1'),
    agent('m1', use('x'), uuid='u2', parent='u1'),
    agent('m1', use('y'), uuid='u3', parent='u2'),
    {**result('x', '1'), 'uuid': 'u4', 'parentUuid': 'u2'},
    {**result('y', '2'), 'uuid': 'u5', 'parentUuid': 'u3'},
    agent('m2', text('a'), uuid='u6', parent='u5'),
  ]
  chat = claude_code.read(lines)
  roles = [turn.message['role'] for turn in chat.turns]
  assert roles == ['user', 'assistant', 'tool', 'tool', 'assistant']
  assert chat.left_out == {}


def test_lines_that_a_resumed_session_repeats():
  lines = [user('q', 'u1'), agent('m1', text('a'), uuid='u2', parent='u1')]
  chat = claude_code.read([*lines, *lines])
  assert [turn.message['content'] for turn in chat.turns] == ['q', 'a']
  assert chat.left_out == {'repeated': 2}


IMAGE = {'type': 'image', 'source': {'type': 'base64', 'data': ''}}


@pytest.mark.parametrize(
  ('line', 'error'),
  [
    ('a', 'line 1 is a string, expected an object'),
    ({'type': 'user'}, 'line 1: message is null, expected an object'),
    (
      {'type': 'user', 'message': {'role': 'assistant', 'content': 'a'}},
      'line 1: the role of its message is not its type',
    ),
    (
      user([text('a'), IMAGE]),
      "message 1: a block is of type 'image', which this turn cannot have",
    ),
    (
      agent('m', thinking('')),
      'message 1: a thinking block has no text: the words of the agent are not',
    ),
    (
      agent('m', {'type': 'redacted_thinking', 'data': 'x'}),
      'message 1: block 0 is redacted_thinking: the words of the agent are not',
    ),
  ],
)
def test_malformed_lines(line, error):
  with pytest.raises(Malformed) as raised:
    claude_code.read([user('q'), line])
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    [],
    user('a'),
    [{'type': 'summary', 'summary': 'x', 'sessionId': 's'}],
    [{'role': 'user', 'content': 'a'}],
    [{'type': 'user', 'message': {'role': 'user', 'content': 'a'}}],
    [{'type': 'user', 'uuid': 'u', 'content': 'a'}],
  ],
)
def test_rows_of_no_such_format(row):
  assert not claude_code.matches(row)
