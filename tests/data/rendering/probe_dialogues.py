"""Short conversations that try what chat templates do differently."""

from isft_jax.types import Provenance, Segment, Trajectory


def _system(text):
  return Segment('system', text, Provenance.CONTEXT)


def _user(text):
  return Segment('user', text, Provenance.USER)


def _agent(text, *calls, thought=None):
  fields = {}
  if thought:
    fields['reasoning_content'] = thought
  if calls:
    fields['tool_calls'] = [*calls]
  return Segment('assistant', text, Provenance.AGENT, fields=fields)


def _tool(text, id='call00001', name='look'):
  fields = {'tool_call_id': id, 'name': name}
  return Segment('tool', text, Provenance.TOOL, fields=fields)


def _call(id, name, **arguments):
  function = {'name': name, 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


_LOOK = _call('call00001', 'look', city='Rome')
_BOOK = _call('call00002', 'book', city='Oslo', days=2)
_TOOLS = tuple(
  {
    'type': 'function',
    'function': {
      'name': name,
      'description': f'Does {name}.',
      'parameters': {
        'type': 'object',
        'properties': {
          'city': {'type': 'string', 'description': 'A city.'},
          'days': {'type': 'integer', 'description': 'Days.'},
        },
        'required': ['city'],
      },
    },
  }
  for name in ('look', 'book')
)
_ASK, _SAY = _user('Ask one?'), _agent('Say one.')
_ASK_2, _SAY_2 = _user('Ask two?'), _agent('Say two.')
_TURNS = {
  'chat': [_ASK, _SAY, _ASK_2, _SAY_2],
  'system': [_system('Be brief.'), _ASK, _SAY],
  'ends with the user': [_ASK, _SAY, _ASK_2],
  'two users': [_ASK, _ASK_2, _SAY_2],
  'two turns of the agent': [_ASK, _SAY, _agent('Say more.'), _ASK_2, _SAY_2],
  'no word': [_ASK, _agent(''), _ASK_2, _SAY_2],
  'white space': [_user('Café 😀?\n\n  x'), _agent('Ünï 日本\n  code\n')],
  'thought': [_ASK, _agent('Say one.', thought='Hm, one.')],
  'two thoughts': [
    *(_ASK, _agent('Say one.', thought='Hm, one.')),
    *(_ASK_2, _agent('Say two.', thought='Hm, two.')),
  ],
  'thought in the content': [
    *(_ASK, _agent('<think>\nHm, one.\n</think>\n\nSay one.')),
  ],
}
_TURNS_WITH_TOOLS = {
  'call': [_ASK, _agent('', _LOOK), _tool('warm'), _SAY_2],
  'words and a call': [
    *(_system('Be brief.'), _ASK, _agent('Let me see.', _LOOK)),
    *(_tool('warm'), _SAY_2, _ASK_2, _SAY),
  ],
  'two calls at once': [
    *(_ASK, _agent('', _LOOK, _BOOK), _tool('warm')),
    *(_tool('done', 'call00002', 'book'), _SAY_2),
  ],
  'one call after the other': [
    *(_ASK, _agent('', _LOOK), _tool('warm'), _agent('', _BOOK)),
    *(_tool('done', 'call00002', 'book'), _SAY_2),
  ],
  'thought and a call': [
    *(_ASK, _agent('', _LOOK, thought='Hm, look.'), _tool('warm')),
    _agent('Say two.', thought='Hm, two.'),
  ],
  'ends with a call': [_ASK, _agent('', _LOOK)],
  'ends with a tool': [_ASK, _agent('', _LOOK), _tool('warm')],
}
PROBES = {
  name: Trajectory(name, tuple(turns), tools)
  for group, tools in ((_TURNS, None), (_TURNS_WITH_TOOLS, _TOOLS))
  for name, turns in group.items()
}
