"""Where each character of a rendered conversation is from, by template.

Stretches are written `turn field text`: `lit` for the template's own text, `-`
for what is in no turn. Every template is also rendered by transformers, whose
text must be the same.
"""

import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.chat_template import ChatTemplate, messages_of
from isft_jax.types import Part, Provenance, Segment, Trajectory

P = Provenance

# One conversation for all.
TALK = Trajectory(
  'talk',
  (
    Segment('user', ' Hi \n', P.USER, fields={'name': 'Eve', 'mood': 'Glad'}),
    Segment(
      'assistant',
      'Yo',
      P.AGENT,
      fields={
        'reasoning_content': 'Hm',
        'tool_calls': [
          {
            'id': 'c1',
            'type': 'function',
            'function': {'name': 'f', 'arguments': {'x': 1}},
          }
        ],
      },
    ),
    Segment('tool', '[["a"]]', P.TOOL, fields={'tool_call_id': 'c1'}),
  ),
  ({'name': 'f'},),
)


def theirs(template, trajectory=TALK, **values):
  """The text that transformers renders."""
  texts, _ = render_jinja_template(
    conversations=[messages_of(trajectory)],
    tools=trajectory.tools and list(trajectory.tools),
    chat_template=chat_template.freeze(template),
    **values,
  )
  return texts[0]


def stretches(template, trajectory=TALK, **values):
  """['turn field text', ...], as in the tables; joins equal neighbours."""
  made = ChatTemplate(template, values).render(trajectory)
  assert ''.join(s.text for s in made) == theirs(template, trajectory, **values)
  rows = []
  for text, origin, _ in made:
    turn, field, number = origin or ('?', '?', 0)
    field = {'literal': 'lit'}.get(field, field) + (str(number or ''))
    turn = '-' if turn == -1 else turn
    text = text.replace('\n', '¶')
    rows.append(f'{turn} {field} {text}')
  return rows


def homes(template, trajectory=TALK, **values):
  """[(text, the turn at which it was written), ...]."""
  made = ChatTemplate(template, values).render(trajectory)
  return [(s.text, s.home) for s in made]


# ------------------------------------------------ literals know their own turn

LOOP = '{% for message in messages %}'
END = '{% endfor %}'

LITERALS = {
  'a loop': (
    'A' + LOOP + '<{{ message.content }}>' + END + 'B',
    ['- lit A', '0 lit <', '0 content  Hi ¶', '0 lit >']
    + ['1 lit <', '1 content Yo', '1 lit >']
    + ['2 lit <', '2 content [["a"]]', '2 lit >', '- lit B'],
  ),
  'a role is protocol': (
    LOOP + '{{ message.role + message["role"] }};' + END,
    ['0 lit useruser;', '1 lit assistantassistant;', '2 lit tooltool;'],
  ),
  'an id and a type are protocol, and the name of a call is not': (
    LOOP
    + '{{ message.name }}{{ message.tool_call_id }}'
    + '{% for call in message.tool_calls %}{{ call.id }}{{ call.type }}'
    + '{{ call.function.name }}{% endfor %};'
    + END,
    ['0 lit Eve;', '1 lit c1function', '1 name f', '1 lit ;', '2 lit c1;'],
  ),
  'a macro': (
    '{% macro show(m) %}<{{ m.role }}>{% endmacro %}'
    + LOOP
    + '{{ show(message) }}'
    + END
    + '{{ show({"role": "none"}) }}',
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>', '- lit <none>'],
  ),
  'a macro that loops': (
    '{% macro all() %}'
    + LOOP
    + '{{ message.role }}'
    + END
    + '{% endmacro %}<{{ all() }}>',
    ['- lit <', '0 lit user', '1 lit assistant', '2 lit tool', '- lit >'],
  ),
  'a macro with a caller': (
    '{% macro box() %}<{{ caller() }}>{% endmacro %}'
    + LOOP
    + '{% call box() %}{{ message.role }}{% endcall %}'
    + END,
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>'],
  ),
  'a set block': (
    LOOP + '{% set s %}<{{ message.role }}>{% endset %}{{ s }}' + END,
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>'],
  ),
  'a filter block': (
    LOOP + '{% filter trim %} <{{ message.role }}> {% endfilter %}' + END,
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>'],
  ),
  'a variable set before the loop': (
    '{% set open = "<" %}' + LOOP + '{{ open }}{{ loop.index }}' + END,
    ['0 lit <1', '1 lit <2', '2 lit <3'],
  ),
  'a loop over the calls': (
    LOOP
    + '({% for call in message.tool_calls %}{{ call.function.arguments }}'
    + '{% endfor %})'
    + END,
    ['0 lit ()', '1 lit (', "1 call {'x': 1}", '1 lit )', '2 lit ()'],
  ),
  'a loop over messages within a loop over messages': (
    LOOP
    + '<{% for m in messages[loop.index:] %}{{ m.role[0] }}{% endfor %}>'
    + END,
    ['0 lit <', '1 lit a', '2 lit t', '0 lit >', '1 lit <']
    + ['2 lit t', '1 lit >', '2 lit <>'],
  ),
  'a loop that looks ahead with break': (
    LOOP
    + '<{% for m in messages[loop.index:] %}{{ m.role[0] }}'
    + '{% break %}{% endfor %}>'
    + END,
    ['0 lit <', '1 lit a', '0 lit >', '1 lit <', '2 lit t', '1 lit >']
    + ['2 lit <>'],
  ),
  'a loop with continue': (
    LOOP
    + '<{% if loop.index == 2 %}{% continue %}{% endif %}{{ message.role }}>'
    + END
    + '!',
    ['0 lit <user>', '1 lit <', '2 lit <tool>', '- lit !'],
  ),
  'a loop with a condition': (
    '{% for m in messages if m.role != "user" %}{{ m.role }}'
    + '{{ loop.index }}{% endfor %}',
    ['1 lit assistant1', '2 lit tool2'],
  ),
  'a loop with an else': (
    LOOP
    + '<{% for call in message.tool_calls %}call{% else %}none{% endfor %}>'
    + END
    + '{% for m in [] %}{% else %}!{% endfor %}',
    ['0 lit <none>', '1 lit <call>', '2 lit <none>', '- lit !'],
  ),
  'a loop over a slice, a reversed list and a selection': (
    '{% for m in messages[1:] %}{{ m.role[0] }}{% endfor %}'
    + '{% for m in messages | reverse %}{{ m.role[0] }}{% endfor %}'
    + '{% for m in messages | selectattr("role", "equalto", "tool") %}'
    + '{{ m.role[0] }}{% endfor %}',
    ['1 lit a', '2 lit tt', '1 lit a', '0 lit u', '2 lit t'],
  ),
  'a namespace that looks for the last question first': (
    '{% set ns = namespace(last=none) %}'
    + LOOP
    + '{% if message.role == "user" %}{% set ns.last = loop.index0 %}'
    + '{% endif %}'
    + END
    + LOOP
    + '{{ ns.last == loop.index0 }};'
    + END,
    ['0 lit True;', '1 lit False;', '2 lit False;'],
  ),
  'two loops': (
    LOOP + 'a' + END + '-' + LOOP + 'b' + END,
    ['0 lit a', '1 lit a', '2 lit a', '- lit -', '0 lit b', '1 lit b']
    + ['2 lit b'],
  ),
  'a recursive loop': (
    '{% for m in messages recursive %}<{{ m.role[0] }}>{% endfor %}',
    ['0 lit <u>', '1 lit <a>', '2 lit <t>'],
  ),
  'a loop over indices': (
    '{% for i in range(messages | length) %}{% set m = messages[i] %}'
    '<{{ m.role[0] }}{% for c in [1, 2] %}{{ messages[c].role[0] }}{% endfor %}'
    '>{% endfor %}.',
    ['0 lit <uat>', '1 lit <aat>', '2 lit <tat>', '- lit .'],
  ),
  'a loop that counts in a variable of its own': (
    '{% set ns = namespace(i=0) %}{% for _ in range(9) %}'
    '{% if ns.i < messages | length %}{% set m = messages[ns.i] %}'
    '<{{ m.role[0] }}{{ messages[0].role[0] }}>{% set ns.i = ns.i + 1 %}'
    '{% endif %}{% endfor %}.',
    ['0 lit <uu>', '1 lit <au>', '2 lit <tu>', '- lit .'],
  ),
  'a loop that looks up earlier turns': (
    LOOP
    + '<{% for m in messages %}{{ "a" if m.role[0] == "a" }}{% endfor %}>'
    + END,
    ['0 lit <', '1 lit a', '0 lit >', '1 lit <a>', '2 lit <a>'],
  ),
  'text that is collected in a namespace': (
    '{% set ns = namespace(text="^") %}'
    + LOOP
    + '{% set ns.text = ns.text ~ "<" ~ message.content.strip() ~ ">" %}'
    + END
    + '{{ ns.text }}.',
    ['0 lit ^<', '0 content Hi', '0 lit >', '1 lit <', '1 content Yo']
    + ['1 lit >', '2 lit <', '2 content [["a"]]', '2 lit >', '- lit .'],
  ),
  'text that is collected in one turn and printed in the next': (
    '{% set ns = namespace(name="") %}'
    + LOOP
    + '{{ ns.name }}{% set ns.name = "<" ~ message.content.strip() ~ ">" %}'
    + END,
    [
      '1 lit <',
      '0 content Hi',
      '1 lit >',
      '2 lit <',
      '1 content Yo',
      '2 lit >',
    ],
  ),
  'white space that a tag removes': (
    'x  {%- for m in messages -%}  \n {{- m.role[0] }} {% endfor %}',
    ['- lit x', '0 lit u ', '1 lit a ', '2 lit t '],
  ),
  'a value that is a number or a truth': (
    LOOP + '{{ message.content | length }}{{ loop.first }}' + END,
    ['0 lit 5True', '1 lit 2False', '2 lit 7False'],
  ),
  'raw text and a comment': (
    LOOP + '{# no #}{% raw %}{{ x }}{% endraw %}' + END,
    ['0 lit {{ x }}', '1 lit {{ x }}', '2 lit {{ x }}'],
  ),
  'generation marks': (
    LOOP
    + '<{% generation %}{{ message.content.strip() }}!{% endgeneration %}>'
    + END,
    ['0 lit <', '0 content Hi', '0 lit !>', '1 lit <', '1 content Yo']
    + ['1 lit !>', '2 lit <', '2 content [["a"]]', '2 lit !>'],
  ),
  'with blocks': (
    LOOP + '{% with r = message.role %}<{{ r }}>{% endwith %}' + END,
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>'],
  ),
  'another name for the messages': (
    '{% set talk = messages[1:] %}{% for turn in talk %}'
    + '<{{ turn.content }}>{% endfor %}',
    ['1 lit <', '1 content Yo', '1 lit >']
    + ['2 lit <', '2 content [["a"]]', '2 lit >'],
  ),
  # A loop leaves the turn of its last item behind.
  'a message that the template adds': (
    '{% for m in messages + [{"role": "x"}] %}<{{ m.role }}>{% endfor %}',
    ['0 lit <user>', '1 lit <assistant>', '2 lit <tool>', '- lit <x>'],
  ),
  # Its words stand in the turn that prints them, as with a variable.
  'a set block before the loop': (
    '{% set open %}<{% endset %}' + LOOP + '{{ open }}{{ loop.index }}' + END,
    ['0 lit <1', '1 lit <2', '2 lit <3'],
  ),
}


@pytest.mark.parametrize('how', LITERALS)
def test_literals_know_their_turn(how):
  template, rows = LITERALS[how]
  assert stretches(template) == rows


# ------------------------------------------------------- values keep their turn

FIRST = '{% set m = messages[0] %}'
CALL = '{% set f = messages[1].tool_calls[0].function %}'

VALUES = {
  '{{ m.content }}': ['0 content  Hi ¶'],
  '{{ m["content"] }}': ['0 content  Hi ¶'],
  '{{ m.get("content") }}': ['0 content  Hi ¶'],
  '{{ m.get("nothing", "x") }}': ['- lit x'],
  '{{ m.content | trim }}': ['0 content Hi'],
  '{{ m.content.strip() ~ "." }}': ['0 content Hi', '- lit .'],
  '{{ "<" ~ m.content.strip() ~ 1 ~ none }}': [
    *('- lit <', '0 content Hi', '- lit 1None')
  ],
  '{{ m.content[1:3] }}': ['0 content Hi'],
  '{{ m.content[1] + m.content[2] }}': ['0 content Hi'],
  '{{ m.content.split()[0] }}': ['0 content Hi'],
  '{{ m.content.split("H") | join("-") }}': [
    *('0 content  ', '- lit -', '0 content i ¶')
  ],
  '{{ m.content | replace("Hi", "Ho") }}': [
    *('0 content  ', '- lit Ho', '0 content  ¶')
  ],
  '{{ m.content | tojson }}': ['0 content " Hi \\n"'],
  '{{ m.content | string }}': ['0 content  Hi ¶'],
  '{{ m.content | default("x") }}': ['0 content  Hi ¶'],
  '{{ m.nothing | default("x") }}': ['- lit x'],
  '{{ m.content | upper }}': ['0 content  HI ¶'],
  '{{ m.content | lower | capitalize }}': ['0 content  hi ¶'],
  '{{ m.content | trim | indent }}': ['0 content Hi'],
  '{{ m.content | title }}': ['? ?  Hi ¶'],
  '{{ m.content | trim | center(4) }}': ['? ?  Hi '],
  '{{ "%s!" % m.content }}': ['0 content  Hi ¶', '- lit !'],
  '{{ "{}!".format(m.content) }}': ['0 content  Hi ¶', '- lit !'],
  '{{ m.content.swapcase() }}': ['? ?  hI ¶'],
  '{{ m.content | list | string }}': ["? ? [' ', 'H', 'i', ' ', '\\n']"],
  '{{ [m.content] }}': ["? ? [' Hi \\n']"],
  '{{ m.content | list | join("") }}': ['0 content  Hi ¶'],
  '{{ [m.content, m.mood] | map("trim") | join("+") }}': [
    *('0 content Hi', '- lit +', '0 other Glad')
  ],
  '{{ messages[:2] | map(attribute="content") | join("+") }}': [
    *('0 content  Hi ¶', '- lit +', '1 content Yo')
  ],
  '{{ messages[:2] | join("+", attribute="content") }}': [
    *('0 content  Hi ¶', '- lit +', '1 content Yo')
  ],
  '{{ m.mood }}': ['0 other Glad'],
  '{{ m.name }}': ['- lit Eve'],
  '{{ messages[1].reasoning_content }}': ['1 thinking Hm'],
  '{{ messages[1].thinking }}': ['1 thinking Hm'],  # transformers adds it
  '{{ messages[1].reasoning }}': [],
  '{{ f.name }}': ['1 name f'],
  '{{ f.arguments }}': ["1 call {'x': 1}"],
  '{{ f.arguments | tojson }}': ['1 call {"x": 1}'],
  '{{ f.arguments.x }}': ['1 call 1'],
  '{{ f.arguments.x + 1 }}': ['- lit 2'],
  '{% for k, v in f.arguments.items() %}{{ k ~ "=" ~ v }}{% endfor %}': [
    *('1 call x', '- lit =', '1 call 1')
  ],
  '{% for k, v in f.arguments | items %}{{ k ~ "=" ~ v }}{% endfor %}': [
    *('1 call x', '- lit =', '1 call 1')
  ],
  '{% for k in f.arguments %}{{ k }}{% endfor %}': ['1 call x'],
  '{{ f | tojson }}': [
    *('- lit {"name": ', '1 name "f"', '- lit , "arguments": '),
    *('1 call {"x": 1}', '- lit }'),
  ],
  '{{ tools | tojson }}': ['- lit [', '- tools {"name": "f"}', '- lit ]'],
  '{{ tools[0] | tojson(indent=1) }}': ['- tools {¶ "name": "f"¶}'],
  '{{ tools[0].name }}': ['- tools f'],
}


@pytest.mark.parametrize('template', VALUES)
def test_values_keep_their_turn_or_are_unknown(template):
  assert stretches(FIRST + CALL + template) == VALUES[template]


def test_a_value_that_is_shown_elsewhere_tells_where_that_was():
  template = '{{ messages[2].content }}' + LOOP + '{{ messages[0].mood }}' + END
  assert homes(template) == [
    *(('[["a"]]', -1), ('Glad', 0), ('Glad', 1), ('Glad', 2))
  ]


def test_each_call_and_each_part_of_a_content_is_numbered():
  calls = [{'function': {'name': 'f', 'arguments': {'x': x}}} for x in (1, 2)]
  parts = (Part(2, 4, P.HARNESS), Part(4, 5, P.TOOL))
  trajectory = Trajectory(
    'x',
    (
      Segment('user', 'abcdefg', P.USER, parts=parts),
      Segment('assistant', '', P.AGENT, fields={'tool_calls': calls}),
    ),
  )
  template = (
    LOOP
    + '{{ message.content }}{% for call in message.tool_calls %}'
    + '{{ call.function.arguments | tojson }}{% endfor %}'
    + END
  )
  assert stretches(template, trajectory) == [
    '0 content ab',
    '0 content1 cd',
    '0 content2 e',
    '0 content fg',
    '1 call {"x": 1}',
    '1 call1 {"x": 2}',
  ]


@pytest.mark.parametrize('key', ['reasoning_content', 'thinking', 'reasoning'])
def test_thinking_has_the_names_that_transformers_gives_it(key):
  turn = Segment('assistant', '', P.AGENT, fields={key: 'Hm'})
  template = (
    LOOP + '{{ message.reasoning_content }};{{ message.thinking }}' + END
  )
  assert stretches(template, Trajectory('x', (turn,))) == [
    *('0 thinking Hm', '0 lit ;', '0 thinking Hm')
  ]


def test_what_is_none_is_absent():
  turn = Segment('user', 'a', P.USER, fields={'name': None})
  template = LOOP + '{{ message.name is defined }}' + END
  assert stretches(template, Trajectory('x', (turn,))) == ['0 lit False']


def test_given_values_are_literals():
  assert stretches('{{ bos_token }}', bos_token='<s>') == ['- lit <s>']


def test_a_conversation_is_rendered_anew_each_time():
  template = ChatTemplate(LOOP + '<{{ message.content }}>' + END)
  assert template.render(TALK) == template.render(TALK)


def test_after_a_template_raised_the_next_conversation_starts_outside():
  template = ChatTemplate(
    'A' + LOOP + '{{ raise_exception("no") if message.role == "x" }}' + END
  )
  with pytest.raises(Exception, match='no'):
    template.render(Trajectory('x', (Segment('x', '', P.USER),)))
  assert template.render(TALK)[0].origin == chat_template.Origin(-1, 'literal')


def test_an_empty_conversation_is_all_outside():
  assert stretches('A' + LOOP + 'x' + END, Trajectory('x', ())) == ['- lit A']
  assert stretches(LOOP + 'x' + END, Trajectory('x', ())) == []


# ---------------------------------------------------------- dates and failures


@pytest.mark.parametrize(
  ('template', 'text'),
  [
    ('{{ strftime_now("%d %b %Y") }}', '26 Jul 2024'),
    ("{{ strftime_now('%Y-%m-%d') }}", '2024-07-26'),
    ('{{ strftime_now( "%B" ) }}', 'July'),
    ('{{ strftime_now is defined }}', 'True'),
    ('{% set d = strftime_now("%d") + "." %}{{ d }}', '26.'),
    ('{{ strftime_now("%d\'s") }}', "26's"),
  ],
)
def test_a_date_is_frozen(template, text):
  assert (
    chat_template.ChatTemplate(template).text(TALK) == text == theirs(template)
  )


def test_a_date_in_a_computed_format_is_refused():
  with pytest.raises(ValueError, match='a format that it computes'):
    ChatTemplate('{{ strftime_now(fmt) }}')


@pytest.mark.parametrize('template', ['{% for %}', '{{ x', '{% nothing %}'])
def test_what_is_not_a_template_is_refused(template):
  with pytest.raises(ValueError, match='the chat template does not compile'):
    ChatTemplate(template)


def test_an_origin_is_found_by_its_code():
  """Codes are characters, which count on past those that are no letters."""
  turns = tuple(Segment('user', f'{i};', P.USER) for i in range(20_000))
  made = ChatTemplate(LOOP + '{{ message.content }}' + END).render(
    Trajectory('x', turns)
  )
  assert [s.origin.turn for s in made] == [*range(20_000)]
  assert made[-1].text == '19999;'


def test_tools_that_differ_only_in_type_are_rendered_apart():
  template = chat_template.ChatTemplate('{{ tools[0] | tojson }}')
  for default in (1, True, 1.0, 1):
    trajectory = Trajectory('x', (), ({'default': default},))
    assert template.text(trajectory) == json.dumps({'default': default})
