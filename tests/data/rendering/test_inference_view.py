"""The agent's tokens are those that a model writes at inference.

A model reads the conversation and the generation prompt, and writes up to a
stop token. Each template below hides one of these three. A line of a table is
`author text`; ¶ is a line break.
"""

import itertools

import pytest

from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance, Segment, Trajectory
from tests.data.marker_tokenizer import marker_tokenizer

P = Provenance
MARKS = (
  *('<|user|>', '<|assistant|>', '<|tool|>', '<|end|>', '<|stop|>'),
  *('<|call>', '<call|>', '<|answer>', '<answer|>'),
)


def turns(*texts):
  """Returns user and agent turns; a tool's turn begins with 'tool:'."""
  segments = []
  for text in texts:
    role, _, words = text.rpartition(':')
    author = {'tool': P.TOOL, 'user': P.USER, 'system': P.CONTEXT}
    role = role or ('user' if words.endswith('?') else 'assistant')
    fields = {'tool_call_id': 'c1', 'name': 'look'} if role == 'tool' else {}
    segments.append(
      Segment(role, words, author.get(role, P.AGENT), fields=fields)
    )
  return segments


def calls(text, **arguments):
  function = {'name': 'look', 'arguments': arguments}
  fields = {'tool_calls': [{'id': 'c1', 'function': function}]}
  return Segment('assistant', text, P.AGENT, fields=fields)


TALK = Trajectory('talk', (*turns('Hi?', 'Yo.', 'So?', 'No.'),))
CALL = Trajectory(
  'call', (*turns('Hi?'), calls('', at='Rome'), *turns('tool:21', 'It is 21.'))
)
SHOW_CALL = (
  '{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}'
  '{{ c.function.arguments | tojson }}</call>{% endfor %}'
)


def table_of(trajectory, template):
  renderer = Renderer(marker_tokenizer('', MARKS), template)
  lines = []
  for author, group in itertools.groupby(
    renderer.render(trajectory).spans, lambda span: span.provenance.name
  ):
    text = ''.join(span.text for span in group).replace('\n', '¶')
    lines.append(f'{author:9} {text}')
  return lines


PROMPT = '{% if add_generation_prompt %}<|assistant|>\n{% endif %}'
LOOP, END = '{% for m in messages %}', '{% endfor %}'
# The turn of a call shows the answer, as Gemma 4 does.
ANSWERS_IN_CALL = (
  LOOP
  + '{% if m.role != "tool" %}'
  + '<|{{ m.role }}|>{{ m.content }}'
  + '{% for c in m.tool_calls or [] %}<|call>{{ c.function.name }}'
  + '{{ c.function.arguments | tojson }}<call|><|answer>'
  + '{{ c.function.name }}='
  + '{{ messages[2].content if messages[2] }}<answer|>{% endfor %}'
  + '{{ "<|end|>" if not m.tool_calls }}{% endif %}'
  + END
  + '{{ "<|assistant|>" if add_generation_prompt }}'
)
TABLES = {
  'the header of the next turn stops the agent': (
    CALL,
    LOOP + '<|{{ m.role }}|>\n{{ m.content }}' + SHOW_CALL + END + PROMPT,
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|assistant|>¶
    AGENT     <call>look{"at": "Rome"}</call><|tool|>
    TEMPLATE  ¶
    TOOL      21
    TEMPLATE  <|assistant|>¶
    AGENT     It is 21.
    """,
  ),
  'no header of an agent stops an agent': (
    Trajectory('x', (*turns('Hi?', 'Yo.', 'And.', 'So?'),)),
    LOOP + '<|{{ m.role }}|>\n{{ m.content }}' + END + PROMPT,
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|assistant|>¶
    AGENT     Yo.
    TEMPLATE  <|assistant|>¶
    AGENT     And.<|user|>
    TEMPLATE  ¶
    USER      So?
    """,
  ),
  'no header of a system turn stops an agent': (
    Trajectory('x', (*turns('Hi?', 'Yo.', 'system:Hm.', 'And.'),)),
    LOOP
    + '<|{{ "end" if m.role == "system" else m.role }}|>{{ m.content }}'
    + END
    + '{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|assistant|>
    AGENT     Yo.
    TEMPLATE  <|end|>
    CONTEXT   Hm.
    TEMPLATE  <|assistant|>
    AGENT     And.
    """,
  ),
  'text after the last turn stops no agent': (
    TALK,
    LOOP
    + '<|{{ m.role }}|>{{ m.content }}'
    + END
    + '<|stop|>'
    + '{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|assistant|>
    AGENT     Yo.<|user|>
    USER      So?
    TEMPLATE  <|assistant|>
    AGENT     No.
    TEMPLATE  <|stop|>
    """,
  ),
  'the next turn closes the turn of the agent after white space': (
    TALK,
    LOOP
    + '{{ "\n<|end|>\n" if not loop.first }}<|{{ m.role }}|>{{ m.content }}'
    + END
    + '{{ "\n<|end|>\n<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  ¶<|end|>¶<|assistant|>
    AGENT     Yo.¶<|end|>
    TEMPLATE  ¶<|user|>
    USER      So?
    TEMPLATE  ¶<|end|>¶<|assistant|>
    AGENT     No.
    """,
  ),
  'the prompt after a tool is white space': (
    CALL,
    LOOP
    + '{{ "\n\n" if m.role == "assistant" and not loop.first and '
    + 'messages[loop.index0 - 1].role == "tool" else "<|" ~ m.role ~ "|>" }}'
    + '{{ m.content }}'
    + SHOW_CALL
    + '<|end|>'
    + END
    + '{% if add_generation_prompt %}{{ "\n\n" if messages[-1].role == "tool" '
    + 'else "<|assistant|>" }}{% endif %}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <call>look{"at": "Rome"}</call><|end|>
    TEMPLATE  <|tool|>
    TOOL      21
    TEMPLATE  <|end|>¶¶
    AGENT     It is 21.<|end|>
    """,
  ),
  'a prompt that is always printed, of a template that wants tools': (
    Trajectory('x', TALK.segments, ({'name': 'look'},)),
    '{{ raise_exception("no tools") if not tools }}'
    + LOOP
    + '<|{{ m.role }}|>\n{{ m.content }}<|end|>\n'
    + END
    + '<|assistant|>\n',
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     Yo.<|end|>
    TEMPLATE  ¶<|user|>¶
    USER      So?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     No.<|end|>
    TEMPLATE  ¶<|assistant|>
    """,
  ),
  'the next turn closes the turn of the agent': (
    TALK,
    '{% set ns = namespace(open=false) %}'
    + LOOP
    + '{% if ns.open %}<|end|>{% endif %}{% set ns.open = false %}'
    + '<|{{ m.role }}|>{{ m.content }}{% if m.role == "user" %}<|stop|>'
    + '{% else %}{% set ns.open = true %}{% endif %}'
    + END
    + '{% if add_generation_prompt %}<|assistant|>{% endif %}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|stop|><|assistant|>
    AGENT     Yo.<|end|>
    TEMPLATE  <|user|>
    USER      So?
    TEMPLATE  <|stop|><|assistant|>
    AGENT     No.
    """,
  ),
  'the generation prompt is always printed': (
    TALK,
    LOOP + '<|{{ m.role }}|>\n{{ m.content }}<|end|>\n' + END + '<|assistant|>',
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     Yo.<|end|>
    TEMPLATE  ¶<|user|>¶
    USER      So?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     No.<|end|>
    TEMPLATE  ¶<|assistant|>
    """,
  ),
  'a prompt that is always printed is longer than the header': (
    TALK,
    LOOP
    + '<|{{ m.role }}|>{{ "<|call>" if m.role == "assistant" }}{{ m.content }}'
    + '<|end|>'
    + END
    + '<|assistant|><|answer><answer|>',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <|call>Yo.<|end|>
    TEMPLATE  <|user|>
    USER      So?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <|call>No.<|end|>
    TEMPLATE  <|assistant|><|answer><answer|>
    """,
  ),
  'the prompt closes the turn of the user': (
    TALK,
    LOOP
    + '<|{{ m.role }}|>\n{{ m.content }}'
    + '{% if not loop.last or add_generation_prompt %}<|end|>\n{% endif %}'
    + END
    + PROMPT,
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     Yo.<|end|>
    TEMPLATE  ¶<|user|>¶
    USER      So?
    TEMPLATE  <|end|>¶<|assistant|>¶
    AGENT     No.
    """,
  ),
  'the prompt has more white space than the header': (
    TALK,
    LOOP
    + '{{ "\nUser: " if m.role == "user" else "\nAgent: " }}{{ m.content }}'
    + '<|end|>'
    + END
    + '{{ "\nAgent: \n" if add_generation_prompt }}',
    """
    TEMPLATE  ¶User:\x20
    USER      Hi?
    TEMPLATE  <|end|>¶Agent:\x20
    AGENT     Yo.<|end|>
    TEMPLATE  ¶User:\x20
    USER      So?
    TEMPLATE  <|end|>¶Agent:\x20
    AGENT     No.<|end|>
    """,
  ),
  'the content begins with the end of the prompt': (
    Trajectory('x', (*turns('Hi?', '<think>\nHm.\n</think>\nYo.'),)),
    LOOP
    + '<|{{ m.role }}|>\n{{ m.content }}<|end|>'
    + END
    + '{{ "<|assistant|>\n<think>\n" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>¶<think>¶
    AGENT     Hm.¶</think>¶Yo.<|end|>
    """,
  ),
  'the content begins with a part of the end of the prompt': (
    Trajectory('x', (*turns('Hi?', '<think>Hm.</think>Yo.'),)),
    LOOP
    + '<|{{ m.role }}|>\n{{ m.content }}<|end|>'
    + END
    + '{{ "<|assistant|>\n<think>\n" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>¶
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>¶
    AGENT     <think>Hm.</think>Yo.<|end|>
    """,
  ),
  'the header names another role': (
    Trajectory('x', (*turns('Hi?', 'ai:Yo.'),)),
    LOOP
    + '<|user|>{{ m.role }}\n{{ m.content }}<|end|>'
    + END
    + '{{ "<|user|>assistant\n" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>user¶
    USER      Hi?
    TEMPLATE  <|end|><|user|>ai¶
    AGENT     Yo.<|end|>
    """,
  ),
  'the turn after a tool closes a list of answers': (
    CALL,
    '{% set ns = namespace(open=false) %}'
    + LOOP
    + '{% if m.role == "tool" %}[{{ m.content }}{% set ns.open = true %}'
    + '{% else %}{{ "]" if ns.open else "<|" ~ m.role ~ "|>" }}{{ m.content }}'
    + SHOW_CALL
    + '{{ "<|end|>" }}{% set ns.open = false %}{% endif %}'
    + END
    + '{{ "]" if ns.open }}{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <call>look{"at": "Rome"}</call><|end|>
    TEMPLATE  [
    TOOL      21
    TEMPLATE  ]
    AGENT     It is 21.<|end|>
    """,
  ),
  'the turn of a call shows the answer': (
    CALL,
    ANSWERS_IN_CALL,
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <|call>look{"at": "Rome"}<call|><|answer>
    TEMPLATE  look=
    TOOL      21
    TEMPLATE  <answer|><|assistant|>
    AGENT     It is 21.<|end|>
    """,
  ),
  'the turn of a call shows an empty answer': (
    Trajectory(
      'x', (*turns('Hi?'), calls('', at='Rome'), *turns('tool:', 'None.'))
    ),
    ANSWERS_IN_CALL,
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <|call>look{"at": "Rome"}<call|><|answer>
    TEMPLATE  look=<answer|><|assistant|>
    AGENT     None.<|end|>
    """,
  ),
  'the name of a call is shown twice': (
    Trajectory('x', (*turns('Hi?'), calls(''), *turns('tool:', 'None.'))),
    LOOP
    + '<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}'
    + '<|call> to={{ c.function.name }}<|stop|>{{ c.function.name }}()'
    + '{% endfor %}<|end|>'
    + END
    + '{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <|call> to=look<|stop|>look()<|end|>
    TEMPLATE  <|tool|><|end|><|assistant|>
    AGENT     None.<|end|>
    """,
  ),
  'the template of calls wants text, and the next turn ends the answers': (
    CALL,
    LOOP
    + '{{ "</answers>" if m.role == "assistant" and not loop.first and '
    + 'messages[loop.index0 - 1].role == "tool" else "<|" ~ m.role ~ "|>" }}'
    + '{{ m.content }}{% for c in m.tool_calls or [] %}'
    + "{{ c.function.name + '(' + c.function.arguments + ')' }}{% endfor %}"
    + '{{ "<|end|>" if m.role != "tool" }}'
    + END
    + '{% if add_generation_prompt %}{{ "</answers>" if messages[-1].role == '
    + '"tool" else "<|assistant|>" }}{% endif %}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     look({"at": "Rome"})<|end|>
    TEMPLATE  <|tool|>
    TOOL      21
    TEMPLATE  </answers>
    AGENT     It is 21.<|end|>
    """,
  ),
  'a turn without thinking has the prompt of one': (
    TALK,
    LOOP
    + '<|{{ m.role }}|>{{ "</think>" if m.role == "assistant" }}{{ m.content }}'
    + '<|end|>'
    + END
    + '{% if add_generation_prompt %}<|assistant|>'
    + '{{ "</think>" if enable_thinking is false else "<think>" }}{% endif %}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|></think>
    AGENT     Yo.<|end|>
    TEMPLATE  <|user|>
    USER      So?
    TEMPLATE  <|end|><|assistant|></think>
    AGENT     No.<|end|>
    """,
  ),
  'the turn of a tool looks up the call': (
    CALL,
    LOOP
    + '<|{{ m.role }}|>'
    + '{% if m.role == "tool" %}{% for n in messages %}'
    + '{% if n.tool_calls %}call {{ loop.index0 }}: {% endif %}{% endfor %}'
    + '{% endif %}{{ m.content }}'
    + SHOW_CALL
    + '<|end|>'
    + END
    + '{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <call>look{"at": "Rome"}</call><|end|>
    TEMPLATE  <|tool|>call 1:\x20
    TOOL      21
    TEMPLATE  <|end|><|assistant|>
    AGENT     It is 21.<|end|>
    """,
  ),
  'the last turn is printed after the loop': (
    TALK,
    '{% set last = messages[-1] %}{% set rest = messages[:-1] %}'
    + '{% if last.role == "user" %}{% set rest = messages %}{% endif %}'
    + '{% for m in rest %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}'
    + '{% if last.role != "user" %}<|assistant|>{{ last.content }}<|end|>\n'
    + '{% endif %}{{ "<|assistant|>" if add_generation_prompt }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     Yo.<|end|>
    TEMPLATE  <|user|>
    USER      So?
    TEMPLATE  <|end|><|assistant|>
    AGENT     No.<|end|>
    CONTEXT   ¶
    """,
  ),
  'all turns are collected and printed at the end': (
    CALL,
    '{% set ns = namespace(text="") %}{% for i in range(messages | length) %}'
    + '{% set m = messages[i] %}'
    + '{% set ns.text = ns.text ~ "<|" ~ m.role ~ "|>" ~ m.content %}'
    + '{% for c in m.tool_calls or [] %}{% set ns.text = ns.text ~ "<call>" ~ '
    + 'c.function.name ~ c.function.arguments | tojson ~ "</call>" %}'
    + '{% endfor %}{% set ns.text = ns.text ~ "<|end|>" %}{% endfor %}'
    + '{% if add_generation_prompt %}{% set ns.text = ns.text ~ "<|assistant|>"'
    + ' %}{% endif %}{{ ns.text }}',
    """
    TEMPLATE  <|user|>
    USER      Hi?
    TEMPLATE  <|end|><|assistant|>
    AGENT     <call>look{"at": "Rome"}</call><|end|>
    TEMPLATE  <|tool|>
    TOOL      21
    TEMPLATE  <|end|><|assistant|>
    AGENT     It is 21.<|end|>
    """,
  ),
}


@pytest.mark.parametrize('what', TABLES)
def test_the_agent_wrote_what_a_model_writes_at_inference(what):
  trajectory, template, table = TABLES[what]
  expected = [
    line.removeprefix('    ') for line in table.strip('\n').split('\n')
  ]
  assert table_of(trajectory, template) == [*filter(str.strip, expected)]


def test_a_special_token_of_the_prompt_in_the_agents_words_is_refused():
  template = (
    LOOP
    + '<|{{ m.role }}|>{{ m.content }}<|end|>'
    + END
    + '{{ "<|assistant|><|call>" if add_generation_prompt }}'
  )
  trajectory = Trajectory('x', (*turns('Hi?', '<|call>Yo.'),))
  with pytest.raises(Rejected, match=r"special token '<\|call>'") as caught:
    Renderer(marker_tokenizer('', MARKS), template).render(trajectory)
  assert caught.value.reason == 'special_text'
