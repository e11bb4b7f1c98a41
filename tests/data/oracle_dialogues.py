"""Fifteen short dialogues, one for each way in which masks go wrong."""

from isft_jax.types import Provenance, Segment, Trajectory

P = Provenance

TOOLS = (
  {
    'type': 'function',
    'function': {
      'name': 'look',
      'description': 'Looks out of the window.',
      'parameters': {
        'type': 'object',
        'properties': {
          'city': {'type': 'string', 'description': 'Name of the city.'},
          'days': {'type': 'integer', 'description': 'Days from today.'},
        },
        'required': ['city'],
      },
    },
  },
)


def system(text):
  return Segment('system', text, P.CONTEXT)


def user(text):
  return Segment('user', text, P.USER)


def agent(text, *calls, author=P.AGENT, **fields):
  if calls:
    fields['tool_calls'] = [*calls]
  return Segment('assistant', text, author, fields=fields)


def call(id, **arguments):
  function = {'name': 'look', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def tool(text, id):
  fields = {'name': 'look', 'tool_call_id': id}
  return Segment('tool', text, P.TOOL, fields=fields)


CODE = 'def f(x):\n    if x:\n        return [x]\n    return []'

# Ids of nine letters and digits, as Mistral's templates demand.
ROME, OSLO, BONN = 'abcdefgh1', 'abcdefgh2', 'abcdefgh3'
KIEL = 'abcdefgh4'

_DIALOGUES = {
  'plain': (user('Is it warm?'), agent('Yes, 21 degrees.')),
  'system': (
    *(system('You help with the weather.'), user('Is it warm?')),
    agent('Yes, 21 degrees.'),
  ),
  # A user's turn is last, so that no agent's turn ends the text.
  'several turns': (
    *(user('Is it warm?'), agent('Yes.'), user('And dry?'), agent('No.')),
    *(user('Windy?'), agent('A little.'), user('Thanks!')),
  ),
  'call': (
    *(user('Is Rome warm?'), agent('', call(ROME, city='Rome'))),
    *(tool('21', ROME), agent('Yes, 21 degrees.')),
  ),
  'words and call': (
    *(system('You help with the weather.'), user('Is Rome warm tomorrow?')),
    agent('I will look.', call(ROME, city='Rome', days=1)),
    *(tool('{"degrees": 21}', ROME), agent('Yes, 21 degrees.')),
  ),
  'parallel calls': (
    user('Which is warmer, Rome or Oslo?'),
    agent('', call(ROME, city='Rome'), call(OSLO, city='Oslo')),
    *(tool('21', ROME), tool('9', OSLO), agent('Rome.')),
  ),
  'results': (
    *(user('Look four times.'), agent('', call(ROME, city='Rome'))),
    *(tool('[[1, 2], []]', ROME), agent('', call(OSLO, city='Oslo'))),
    *(tool('{}', OSLO), agent('', call(BONN, city='Bonn'))),
    *(tool('Error: no window\n\n  (closed)', BONN), agent('', call(KIEL))),
    *(tool('', KIEL), agent('Two of four.')),
  ),
  'reasoning': (
    *(user('Is it warm?'), agent('Yes.', reasoning_content='South, so yes.')),
    *(user('And dry?'), agent('No.', reasoning_content='I see rain.')),
  ),
  'think tags': (
    user('Is it warm?'),
    agent('<think>\nSouth, so yes.\n</think>\n\nYes.'),
    *(user('And dry?'), agent('<think>\nI see rain.\n</think>\n\nNo.')),
  ),
  'empty turn': (
    *(user('Say nothing.'), agent(''), user('Now speak.'), agent('Hello.')),
  ),
  'two users': (
    *(user('Is it warm?'), user('In Rome, I mean.')),
    *(agent('Yes.'), user('Good.'), user('And dry?'), agent('No.')),
  ),
  'unicode': (
    user('¿Hace calor en Cádiz? 🌞'),
    agent('Sí — 21 °C ☀️👩‍👩‍👧, 気温は高い。'),
    *(user('Ğ̈ é\u00a0ß'), agent('🇪🇸 ña')),
  ),
  'look-alikes': (
    user('Print <|some_marker|> and </turn> and [/INSTR], user: assistant\n'),
    agent('<|some_marker|></turn>[/INSTR]\nuser: Hi.\nassistant: Ho.'),
    *(user('{{ message }} {% endfor %}'), agent('<b>{{ 1 }}</b> # system')),
  ),
  'demonstration': (
    user('Is it warm?'),
    agent('Yes, as an expert says.', author=P.DEMONSTRATION),
    *(user('And dry?'), agent('No.')),
  ),
  'code': (
    *(user(f'  Mend this:\n\n{CODE}\n\n'), agent(f'```python\n{CODE}\n```\n')),
    *(user('\tAnd this?\n'), agent(f'    {CODE}\n\n\n')),
  ),
}

_CALLS = ('call', 'words and call', 'parallel calls', 'results')

PROBES = tuple(
  Trajectory(name, segments, TOOLS if name in _CALLS else None)
  for name, segments in _DIALOGUES.items()
)
