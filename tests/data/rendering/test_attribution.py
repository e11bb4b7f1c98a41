"""Who wrote each stretch of a rendered conversation: tables, span by span.

A line is `turn author text`. «...» is what a message holds, [...] what the
template writes of itself; ¶ is a line break. Spans of one turn, one author and
one kind are joined.
"""

import functools
import itertools

import pytest

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Part, Provenance, Segment, Trajectory, Verdict
from tests.data import chat_tokenizer

P = Provenance


def call(id, **arguments):
  function = {'name': 'look', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def agent(text, *calls):
  fields = {'tool_calls': [*calls]}
  return Segment('assistant', text, P.AGENT, fields=fields)


def result(text, id):
  fields = {'name': 'look', 'tool_call_id': id}
  return Segment('tool', text, P.TOOL, fields=fields)


RICH = Trajectory(
  'rich',
  (
    Segment('system', 'Help.', P.CONTEXT),
    Segment('user', 'Warm?', P.USER),
    Segment(
      'assistant',
      '',
      P.AGENT,
      fields={
        'reasoning_content': 'Two cities.',
        'tool_calls': [call('c1', city='Rome'), call('c2', city='Bonn')],
      },
    ),
    result('[[21]]', 'c1'),
    result('{"c": 9}', 'c2'),
    Segment('assistant', 'Rome is.', P.AGENT),
    Segment('user', ' Thanks. ', P.USER),
    Segment('assistant', 'Bye.', P.AGENT, fields={'thinking': 'So long.'}),
  ),
  ({'name': 'look'},),
)
# The plain format knows no tools and no calls.
TALK = Trajectory(
  'talk',
  (
    Segment('system', 'Help.', P.CONTEXT),
    Segment('user', 'Warm?', P.USER),
    Segment('assistant', 'look(Rome)', P.AGENT),
    Segment('tool', '[[21]]', P.TOOL),
    Segment('tool', '{"c": 9}', P.TOOL),
    Segment('assistant', 'Rome is.', P.AGENT),
    Segment('user', ' Thanks. ', P.USER),
    Segment('assistant', '', P.AGENT),
  ),
)


@functools.cache
def renderer_of(template, **values):
  return Renderer(chat_tokenizer.trained(), template, values)


def template_of(name):
  return (
    chat_template.PLAIN if name == 'plain' else chat_tokenizer.template(name)
  )


def table_of(trajectory, template, **values):
  """The lines of the table."""
  renderer = renderer_of(template, **values)
  lines = []
  spans = renderer.render(trajectory).spans
  assert ''.join(s.text for s in spans) == chat_tokenizer.text_of(
    renderer, trajectory
  )
  for (turn, author, written), group in itertools.groupby(
    spans, lambda span: (span.segment, span.provenance.name, span.written)
  ):
    text = ''.join(span.text for span in group).replace('\n', '¶')
    text = f'«{text}»' if written else f'[{text}]'
    lines.append(f'{turn} {author:13} {text}')
  return lines


def lines_of(table):
  return [line.strip() for line in table.strip().split('\n')]


# ------------------------------------------- one conversation, four templates

TABLES = {
  'chatml': """
    0 TEMPLATE      [<|im_start|>system¶]
    0 CONTEXT       «Help.»
    0 CONTEXT       [¶]
    0 CONTEXT       «{"name": "look"}»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Warm?»
    1 TEMPLATE      [<|im_end|>¶]
    2 TEMPLATE      [<|im_start|>assistant¶]
    2 AGENT         [<call>{"name": ]
    2 AGENT         «"look"»
    2 AGENT         [, "arguments": ]
    2 AGENT         «{"city": "Rome"}»
    2 AGENT         [}</call><call>{"name": ]
    2 AGENT         «"look"»
    2 AGENT         [, "arguments": ]
    2 AGENT         «{"city": "Bonn"}»
    2 AGENT         [}</call><|im_end|>]
    2 TEMPLATE      [¶]
    3 TEMPLATE      [<|im_start|>tool look¶]
    3 TOOL          «[[21]]»
    3 TEMPLATE      [<|im_end|>¶]
    4 TEMPLATE      [<|im_start|>tool look¶]
    4 TOOL          «{"c": 9}»
    4 TEMPLATE      [<|im_end|>¶]
    5 TEMPLATE      [<|im_start|>assistant¶]
    5 AGENT         «Rome is.»
    5 AGENT         [<|im_end|>]
    5 TEMPLATE      [¶]
    6 TEMPLATE      [<|im_start|>user¶]
    6 USER          « Thanks. »
    6 TEMPLATE      [<|im_end|>¶]
    7 TEMPLATE      [<|im_start|>assistant¶]
    7 AGENT         «Bye.»
    7 AGENT         [<|im_end|>]
    7 TEMPLATE      [¶]
  """,
  'qwen3_like': """
    0 TEMPLATE      [<|im_start|>system¶]
    0 CONTEXT       «Help.»
    0 CONTEXT       [¶¶These functions can be called:¶<tools>¶]
    0 CONTEXT       «{"name": "look"}»
    0 CONTEXT       [¶</tools>¶Call them so: <tool_call>{...}</tool_call>.]
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Warm?»
    1 TEMPLATE      [<|im_end|>¶]
    2 TEMPLATE      [<|im_start|>assistant¶]
    2 AGENT         [<tool_call>¶{"name": "]
    2 AGENT         «look»
    2 AGENT         [", "arguments": ]
    2 AGENT         «{"city": "Rome"}»
    2 AGENT         [}¶</tool_call>¶<tool_call>¶{"name": "]
    2 AGENT         «look»
    2 AGENT         [", "arguments": ]
    2 AGENT         «{"city": "Bonn"}»
    2 AGENT         [}¶</tool_call><|im_end|>]
    2 TEMPLATE      [¶]
    3 TEMPLATE      [<|im_start|>user¶<tool_response>¶]
    3 TOOL          «[[21]]»
    3 TEMPLATE      [¶</tool_response>]
    4 TEMPLATE      [¶<tool_response>¶]
    4 TOOL          «{"c": 9}»
    4 TEMPLATE      [¶</tool_response><|im_end|>¶]
    5 TEMPLATE      [<|im_start|>assistant¶]
    5 AGENT         «Rome is.»
    5 AGENT         [<|im_end|>]
    5 TEMPLATE      [¶]
    6 TEMPLATE      [<|im_start|>user¶]
    6 USER          «Thanks.»
    6 TEMPLATE      [<|im_end|>¶]
    7 TEMPLATE      [<|im_start|>assistant¶]
    7 AGENT         [<think>¶]
    7 AGENT         «So long.»
    7 AGENT         [¶</think>¶¶]
    7 AGENT         «Bye.»
    7 AGENT         [<|im_end|>]
    7 TEMPLATE      [¶]
  """,
  # The date, though no one asked for it, is context too.
  'llama3_like': """
    0 TEMPLATE      [<|begin_of_text|><|start_header_id|>system<|end_header_id|>¶¶]
    0 CONTEXT       [Today is 26 July 2024.¶Answer with a call of one of these functions, as JSON:¶]
    0 CONTEXT       «{¶  "name": "look"¶}»
    0 CONTEXT       [¶]
    0 CONTEXT       «Help.»
    0 TEMPLATE      [<|eot_id|>]
    1 TEMPLATE      [<|start_header_id|>user<|end_header_id|>¶¶]
    1 USER          «Warm?»
    1 TEMPLATE      [<|eot_id|>]
    2 TEMPLATE      [<|start_header_id|>assistant<|end_header_id|>¶¶]
    2 AGENT         [{"name": "]
    2 AGENT         «look»
    2 AGENT         [", "parameters": ]
    2 AGENT         «{"city": "Rome"}»
    2 AGENT         [}{"name": "]
    2 AGENT         «look»
    2 AGENT         [", "parameters": ]
    2 AGENT         «{"city": "Bonn"}»
    2 AGENT         [}<|eot_id|>]
    3 TEMPLATE      [<|start_header_id|>ipython<|end_header_id|>¶¶]
    3 TOOL          «[[21]]»
    3 TEMPLATE      [<|eot_id|>]
    4 TEMPLATE      [<|start_header_id|>ipython<|end_header_id|>¶¶]
    4 TOOL          «{"c": 9}»
    4 TEMPLATE      [<|eot_id|>]
    5 TEMPLATE      [<|start_header_id|>assistant<|end_header_id|>¶¶]
    5 AGENT         «Rome is.»
    5 AGENT         [<|eot_id|>]
    6 TEMPLATE      [<|start_header_id|>user<|end_header_id|>¶¶]
    6 USER          «Thanks.»
    6 TEMPLATE      [<|eot_id|>]
    7 TEMPLATE      [<|start_header_id|>assistant<|end_header_id|>¶¶]
    7 AGENT         «Bye.»
    7 AGENT         [<|eot_id|>]
  """,  # noqa: E501
  'plain': """
    0 CONTEXT       «Help.»
    0 CONTEXT       [¶]
    1 TEMPLATE      [User: ]
    1 USER          «Warm?»
    1 TEMPLATE      [¶]
    2 TEMPLATE      [Agent: ]
    2 AGENT         «look(Rome)»
    2 AGENT         [¶]
    3 TEMPLATE      [Tool: ]
    3 TOOL          «[[21]]»
    3 TEMPLATE      [¶]
    4 TEMPLATE      [Tool: ]
    4 TOOL          «{"c": 9}»
    4 TEMPLATE      [¶]
    5 TEMPLATE      [Agent: ]
    5 AGENT         «Rome is.»
    5 AGENT         [¶]
    6 TEMPLATE      [User: ]
    6 USER          « Thanks. »
    6 TEMPLATE      [¶]
    7 TEMPLATE      [Agent: ]
    7 AGENT         [¶]
  """,
}


@pytest.mark.parametrize('name', TABLES)
def test_every_literal_and_every_value_has_its_author(name):
  trajectory = TALK if name == 'plain' else RICH
  assert table_of(trajectory, template_of(name)) == lines_of(TABLES[name])


# ------------------------------------------- the same, under smaller templates

HI = Segment('user', 'Hi.', P.USER)
YO = Segment('assistant', 'Yo.', P.AGENT)


def turns(*segments):
  return Trajectory('x', segments)


def marked(body, prompt='<|im_start|>assistant\n', before='', after=''):
  """A template of `body` for each message, and a generation prompt."""
  return (
    before
    + '{% for message in messages %}'
    + body
    + '{% endfor %}'
    + after
    + '{% if add_generation_prompt %}{{ '
    + repr(prompt)
    + ' }}{% endif %}'
  )


TURN = "{{ '<|im_start|>' + message.role + '\n' + message.content }}"
CLOSED = TURN + "{{ '<|im_end|>\n' }}"

SMALL = {
  'a default system prompt is context': (
    turns(HI),
    marked(
      "{% if loop.first %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}"
      '{% endif %}' + CLOSED
    ),
    """
    0 TEMPLATE      [<|im_start|>system¶]
    0 CONTEXT       [Be good.]
    0 TEMPLATE      [<|im_end|>¶<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'a default system prompt outside of the loop is context': (
    turns(HI),
    marked(CLOSED, before='{{ "<|im_start|>system\nBe good.<|im_end|>\n" }}'),
    """
    0 TEMPLATE      [<|im_start|>system¶]
    0 CONTEXT       [Be good.]
    0 TEMPLATE      [<|im_end|>¶<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'markers that the tokenizer does not know are markers': (
    turns(HI, YO),
    marked(
      "{{ '<start_of_turn>' + message.role + '\n' + message.content }}"
      "{{ '<end_of_turn|>\n' }}",
      prompt='<start_of_turn>assistant\n',
      before="{{ '<|start|>system\nBe good.<|end|>\n' }}",
    ),
    """
    0 TEMPLATE      [<|start|>system¶]
    0 CONTEXT       [Be good.]
    0 TEMPLATE      [<|end|>¶<start_of_turn>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<end_of_turn|>¶]
    1 TEMPLATE      [<start_of_turn>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<end_of_turn|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'thinking that the prompt opens is opened by the template': (
    turns(HI, Segment('assistant', 'Yo.', P.AGENT, fields={'thinking': 'Hm.'})),
    marked(
      TURN.replace(
        'message.content',
        "('<think>\n' + message.thinking + '\n</think>\n' "
        "if message.thinking else '') + message.content",
      )
      + "{{ '<|im_end|>\n' }}",
      prompt='<|im_start|>assistant\n<think>\n',
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶<think>¶]
    1 AGENT         «Hm.»
    1 AGENT         [¶</think>¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'a turn without the thinking that the prompt opens': (
    turns(HI, YO),
    marked(CLOSED, prompt='<|im_start|>assistant\n<think>\n'),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'no generation prompt: all that stands in its turn is the agents': (
    turns(HI, YO, HI),
    marked(CLOSED, prompt=''),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 AGENT         [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    2 TEMPLATE      [<|im_start|>user¶]
    2 USER          «Hi.»
    2 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'no markers: words announce a turn, a blank line ends it': (
    turns(Segment('system', 'Help.', P.CONTEXT), HI, YO, HI),
    marked(
      "{{ '### ' + message.role | title + ':\n' + message.content + '\n\n' }}",
      prompt='### Assistant:\n',
    ),
    """
    0 CONTEXT       [### System:¶]
    0 CONTEXT       «Help.»
    0 CONTEXT       [¶¶]
    1 TEMPLATE      [### User:¶]
    1 USER          «Hi.»
    1 TEMPLATE      [¶¶]
    2 TEMPLATE      [### Assistant:¶]
    2 AGENT         «Yo.»
    2 AGENT         [¶¶]
    3 TEMPLATE      [### User:¶]
    3 USER          «Hi.»
    3 TEMPLATE      [¶¶]
    """,
  ),
  'nothing announces the agent: the users turn ends where it may begin': (
    turns(HI, YO, HI, YO),
    marked(
      "{% if message.role == 'user' %}{{ '[Q] ' + message.content + ' [/Q]' }}"
      "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}",
      prompt='',
    ),
    """
    0 TEMPLATE      [[Q] ]
    0 USER          «Hi.»
    0 TEMPLATE      [ [/Q]]
    1 AGENT         [ ]
    1 AGENT         «Yo.»
    1 AGENT         [<|end_of_text|>]
    2 TEMPLATE      [[Q] ]
    2 USER          «Hi.»
    2 TEMPLATE      [ [/Q]]
    3 AGENT         [ ]
    3 AGENT         «Yo.»
    3 AGENT         [<|end_of_text|>]
    """,
  ),
  'no end of a turn: its words are all': (
    turns(HI, YO, HI),
    marked(TURN),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    2 TEMPLATE      [<|im_start|>user¶]
    2 USER          «Hi.»
    """,
  ),
  'the end of the text belongs to no turn': (
    turns(HI, YO),
    marked(
      CLOSED,
      after='{% if not add_generation_prompt %}{{ eos_token }}{% endif %}',
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶<|end_of_text|>]
    """,
  ),
  'an end in several parts is the agents but for white space after it': (
    turns(YO, HI),
    marked(TURN + "{{ ' </s> <|im_end|>  \n' }}"),
    """
    0 TEMPLATE      [<|im_start|>assistant¶]
    0 AGENT         «Yo.»
    0 AGENT         [ </s> <|im_end|>]
    0 TEMPLATE      [  ¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Hi.»
    1 TEMPLATE      [ </s> <|im_end|>  ¶]
    """,
  ),
  'turns of the agent in a row, of which the first alone has a header': (
    turns(HI, YO, YO),
    marked(
      '{% if loop.previtem is defined and loop.previtem.role == message.role %}'
      "{{ ' ' + message.content }}{% else %}" + TURN + '{% endif %}'
      '{% if loop.last or loop.nextitem.role != message.role %}'
      "{{ '<|im_end|>\n' }}{% endif %}"
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    2 AGENT         [ ]
    2 AGENT         «Yo.»
    2 AGENT         [<|im_end|>]
    2 TEMPLATE      [¶]
    """,
  ),
  'a turn that nobody has said anything in': (
    turns(HI, Segment('assistant', '', P.AGENT), Segment('user', '', P.USER)),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    2 TEMPLATE      [<|im_start|>user¶<|im_end|>¶]
    """,
  ),
  'a third party in the slot of the agent owns its turn as the agent does': (
    turns(HI, Segment('assistant', 'Yo.', P.DEMONSTRATION), HI, YO),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 DEMONSTRATION «Yo.»
    1 DEMONSTRATION [<|im_end|>]
    1 TEMPLATE      [¶]
    2 TEMPLATE      [<|im_start|>user¶]
    2 USER          «Hi.»
    2 TEMPLATE      [<|im_end|>¶]
    3 TEMPLATE      [<|im_start|>assistant¶]
    3 AGENT         «Yo.»
    3 AGENT         [<|im_end|>]
    3 TEMPLATE      [¶]
    """,
  ),
  'a demonstration told in one turn of the user': (
    turns(Segment('user', 'Q: x A: y', P.DEMONSTRATION), YO),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 DEMONSTRATION «Q: x A: y»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'a scaffold that speaks as the user, and within what others say': (
    turns(
      Segment('user', 'Retry: bad format.', P.HARNESS),
      Segment(
        'tool',
        'a.txt (cut) b.txt (cut)',
        P.TOOL,
        parts=(Part(6, 11, P.HARNESS), Part(18, 23, P.HARNESS)),
      ),
    ),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 HARNESS       «Retry: bad format.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>tool¶]
    1 TOOL          «a.txt »
    1 HARNESS       «(cut)»
    1 TOOL          « b.txt »
    1 HARNESS       «(cut)»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'words of another within what the agent says': (
    turns(
      HI,
      Segment(
        'assistant', 'Now: done', P.AGENT, parts=(Part(0, 5, P.HARNESS),)
      ),
    ),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 HARNESS       «Now: »
    1 AGENT         «done»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'a name and an id that are echoed in the turn of a tool are protocol': (
    turns(YO, result('9', 'c7')),
    marked(
      "{{ '<|im_start|>' + message.role }}"
      "{% if message.role == 'tool' %}{{ ' ' + message.name + ' '"
      " + message.tool_call_id }}{% endif %}{{ '\n' + message.content }}"
      "{{ '<|im_end|>\n' }}"
    ),
    """
    0 TEMPLATE      [<|im_start|>assistant¶]
    0 AGENT         «Yo.»
    0 AGENT         [<|im_end|>]
    0 TEMPLATE      [¶]
    1 TEMPLATE      [<|im_start|>tool look c7¶]
    1 TOOL          «9»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'a result that is written within the turn of the agent is the tools': (
    turns(
      HI,
      Segment('assistant', 'a', P.AGENT, fields={'tool_calls': [call('c1')]}),
      result('9', 'c1'),
      Segment('assistant', 'b', P.AGENT),
    ),
    marked(
      "{% if message.role == 'tool' %}{% continue %}{% endif %}"
      + TURN
      + '{% for call in message.tool_calls %}'
      + "{{ '<call>' + call.function.name + call.function.arguments | tojson }}"
      + '{% for m in messages if m.tool_call_id == call.id %}'
      + "{{ '<out>' + m.content + '</out>' }}"
      + '{% endfor %}{{ "</call>" }}{% endfor %}'
      + "{{ '<|im_end|>\n' }}"
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «a»
    1 AGENT         [<call>]
    1 AGENT         «look{}»
    2 TEMPLATE      [<out>]
    2 TOOL          «9»
    2 TEMPLATE      [</out>]
    1 AGENT         [</call><|im_end|>]
    1 TEMPLATE      [¶]
    3 TEMPLATE      [<|im_start|>assistant¶]
    3 AGENT         «b»
    3 AGENT         [<|im_end|>]
    3 TEMPLATE      [¶]
    """,
  ),
  'a template that echoes the question in no turn at all': (
    turns(HI, YO),
    marked(CLOSED, after="{{ '<|eot_id|>Asked: ' + messages[0].content[:0] }}"),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶<|eot_id|>]
    1 CONTEXT       [Asked: ]
    """,
  ),
  'a system turn later on is context, its markers are protocol': (
    turns(HI, Segment('developer', 'Now.', P.CONTEXT)),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>developer¶]
    1 CONTEXT       «Now.»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'a default system prompt before a first turn of the agent': (
    turns(YO, HI),
    marked(
      "{% if loop.first %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}"
      '{% endif %}' + CLOSED
    ),
    """
    0 TEMPLATE      [<|im_start|>system¶]
    0 CONTEXT       [Be good.]
    0 TEMPLATE      [<|im_end|>¶<|im_start|>assistant¶]
    0 AGENT         «Yo.»
    0 AGENT         [<|im_end|>]
    0 TEMPLATE      [¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Hi.»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'a message that the template adds is not a part of the agents turn': (
    turns(HI, YO),
    marked(CLOSED).replace(
      'in messages', "in messages + [{'role': 'system', 'content': 'End.'}]"
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶<|im_start|>system¶]
    1 CONTEXT       [End.]
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'syntax that a block has set before the loop': (
    turns(HI, YO),
    marked(
      CLOSED.replace("'\n' + ", "'\n' + open + "),
      before='{% set open %}<out>{% endset %}',
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶<out>]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         [<out>]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'an end of the agents turn that the next one writes': (
    turns(HI, YO, HI, YO),
    marked(
      '{% if not loop.first %}{{ "<|im_end|>\n" }}{% endif %}' + TURN,
      after='{{ "<|im_end|>\n" }}',
    ),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    1 TEMPLATE      [<|im_end|>¶<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    2 TEMPLATE      [<|im_start|>user¶]
    2 USER          «Hi.»
    3 TEMPLATE      [<|im_end|>¶<|im_start|>assistant¶]
    3 AGENT         «Yo.»
    3 AGENT         [<|im_end|>]
    3 TEMPLATE      [¶]
    """,
  ),
  'an agent in a slot of another name': (
    turns(HI, Segment('model', 'Yo.', P.AGENT)),
    marked(CLOSED, prompt='<|im_start|>model\n'),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>model¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'the name of a call that the turn of its result looks up is protocol': (
    turns(agent('a', call('c1')), result('9', 'c1')),
    marked(
      "{{ '<|im_start|>' + message.role }}"
      "{% if message.role == 'tool' %}"
      "{{ ' ' + messages[loop.index0 - 1].tool_calls[0].function.name }}"
      "{% endif %}{{ '\n' + message.content }}"
      '{% for call in message.tool_calls %}{{ call.function.name }}'
      '{{ call.function.arguments | tojson }}{% endfor %}'
      "{{ '<|im_end|>\n' }}"
    ),
    """
    0 TEMPLATE      [<|im_start|>assistant¶]
    0 AGENT         «alook{}»
    0 AGENT         [<|im_end|>]
    0 TEMPLATE      [¶]
    1 TEMPLATE      [<|im_start|>tool look¶]
    1 TOOL          «9»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'an agent who has the turn of a user keeps to its words': (
    turns(Segment('user', 'I ask.', P.AGENT), YO),
    marked(CLOSED),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 AGENT         «I ask.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
  'what announces the next turn is no end of the one before': (
    turns(HI, YO, HI),
    marked(
      "{{ '<|' + message.role + '|>\n' + message.content }}",
      prompt='<|assistant|>\n',
    ),
    """
    0 TEMPLATE      [<|user|>¶]
    0 USER          «Hi.»
    1 TEMPLATE      [<|assistant|>¶]
    1 AGENT         «Yo.»
    2 TEMPLATE      [<|user|>¶]
    2 USER          «Hi.»
    """,
  ),
}


@pytest.mark.parametrize('how', SMALL)
def test_every_span_has_its_author(how):
  trajectory, template, table = SMALL[how]
  assert table_of(trajectory, template) == lines_of(table)


LATE = marked(
  '{% if not loop.first %}{{ "<|im_end|>\n" }}{% endif %}'
  + TURN
  + '{% for call in message.tool_calls %}{{ "<call>" + call.function.name }}'
  '{{ call.function.arguments | tojson + "</call>" }}{% endfor %}',
  after='{{ "<|im_end|>\n" }}',
)
# Known to be wrong; each is a promise that is not yet kept.
WRONG = {
  'an end that the next turn writes, after a call': (
    turns(agent('a', call('c1')), HI),
    LATE,
    """
    0 TEMPLATE      [<|im_start|>assistant¶]
    0 AGENT         «a»
    0 AGENT         [<call>]
    0 AGENT         «look{}»
    0 AGENT         [</call><|im_end|>]
    0 TEMPLATE      [¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Hi.»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'an end that the next turn writes, after no word': (
    turns(agent(''), HI),
    LATE,
    """
    0 TEMPLATE      [<|im_start|>assistant¶]
    0 AGENT         [<|im_end|>]
    0 TEMPLATE      [¶]
    1 TEMPLATE      [<|im_start|>user¶]
    1 USER          «Hi.»
    1 TEMPLATE      [<|im_end|>¶]
    """,
  ),
  'two markers that announce the next turn are no end of this one': (
    turns(HI, YO, HI),
    marked(
      "{{ '<|im_start|><|' + message.role + '|>' + message.content }}",
      prompt='<|im_start|><|assistant|>',
    ),
    """
    0 TEMPLATE      [<|im_start|><|user|>]
    0 USER          «Hi.»
    1 TEMPLATE      [<|im_start|><|assistant|>]
    1 AGENT         «Yo.»
    2 TEMPLATE      [<|im_start|><|user|>]
    2 USER          «Hi.»
    """,
  ),
  'the header under a template that wants tools': (
    Trajectory('x', (HI, YO), ({'name': 'f'},)),
    marked(CLOSED, before='{{ raise_exception("no") if not tools }}'),
    """
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
    1 TEMPLATE      [<|im_start|>assistant¶]
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
    """,
  ),
}


@pytest.mark.parametrize('how', WRONG)
def test_every_span_has_its_author_whatever_the_template_does(how):
  trajectory, template, table = WRONG[how]
  assert table_of(trajectory, template) == lines_of(table)


def test_a_generation_prompt_is_not_a_runs_to_ask_for():
  """It would end every conversation with a header that no one answers."""
  with pytest.raises(ValueError, match='--template_kwargs must not set'):
    renderer_of(marked(CLOSED), add_generation_prompt=True)


# -------------------------------------------------------------------- and more


def test_the_header_is_what_the_run_gives_as_its_generation_prompt():
  """With `enable_thinking` off the empty thought stands in the prompt."""
  trajectory = turns(HI, YO)
  thinks = table_of(trajectory, template_of('qwen3_like'))
  does_not = table_of(
    trajectory, template_of('qwen3_like'), enable_thinking=False
  )
  head = lines_of("""
    0 TEMPLATE      [<|im_start|>user¶]
    0 USER          «Hi.»
    0 TEMPLATE      [<|im_end|>¶]
  """)
  tail = lines_of("""
    1 AGENT         «Yo.»
    1 AGENT         [<|im_end|>]
    1 TEMPLATE      [¶]
  """)
  assert thinks == [
    *head,
    '1 TEMPLATE      [<|im_start|>assistant¶]',
    '1 AGENT         [<think>¶¶</think>¶¶]',
    *tail,
  ]
  assert does_not == [
    *head,
    '1 TEMPLATE      [<|im_start|>assistant¶<think>¶¶</think>¶¶]',
    *tail,
  ]


@pytest.mark.parametrize('name', TABLES)
def test_a_verdict_is_on_all_that_the_agent_wrote_and_on_nothing_else(name):
  trajectory = turns(
    HI, Segment('assistant', 'Yo.', P.AGENT, Verdict.WRONG), HI, YO
  )
  spans = renderer_of(template_of(name)).render(trajectory).spans
  assert {(s.segment, s.provenance.name, s.verdict.name) for s in spans} - {
    (0, 'CONTEXT', 'UNKNOWN'),
    (2, 'CONTEXT', 'UNKNOWN'),
  } == {
    *((turn, 'TEMPLATE', 'UNKNOWN') for turn in range(4)),
    (0, 'USER', 'UNKNOWN'),
    (1, 'AGENT', 'WRONG'),
    (2, 'USER', 'UNKNOWN'),
    (3, 'AGENT', 'UNKNOWN'),
  }


def test_a_part_has_a_verdict_of_its_own():
  part = Part(0, 2, P.HARNESS, Verdict.RIGHT)
  segment = Segment('assistant', 'abcd', P.AGENT, Verdict.WRONG, parts=(part,))
  spans = renderer_of(marked(CLOSED)).render(turns(HI, segment)).spans
  assert [(s.text, s.provenance, s.verdict) for s in spans if s.written] == [
    ('Hi.', P.USER, Verdict.UNKNOWN),
    ('ab', P.HARNESS, Verdict.RIGHT),
    ('cd', P.AGENT, Verdict.WRONG),
  ]


@pytest.mark.parametrize('name', [*chat_tokenizer.NAMES])
def test_arguments_that_are_no_object_are_the_agents_as_they_are(name):
  """Where a model wrote broken JSON, that is what it wrote."""
  calls = [{'function': {'name': 'f', 'arguments': '{"x": '}}]
  turn = Segment('assistant', '', P.AGENT, fields={'tool_calls': calls})
  spans = renderer_of(template_of(name)).render(turns(HI, turn)).spans
  written = [s for s in spans if s.segment == 1 and s.written]
  assert [s.provenance for s in written] == [P.AGENT] * 2
  assert written[0].text in ('f', '"f"')
  assert written[1].text in ('{"x": ', '"{\\"x\\": "')
