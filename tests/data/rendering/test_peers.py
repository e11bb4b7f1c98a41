"""How token masks go wrong elsewhere, and that they do not here.

Nine failures of existing trainers, each reproduced in its own sources.
"""

import numpy as np
import pytest

from isft_jax.config import RunConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import STRADDLE_ORDER, Provenance, Segment, Trajectory
from tests.data.chat_tokenizer import NAMES, applied, template, trained

P = Provenance

HI = Segment('user', 'Hi.', P.USER)
YO = Segment('assistant', 'Yo.', P.AGENT)

# A template that marks, for transformers, what the assistant generates.
GENERATION = (
  '{% for message in messages %}'
  "{% if message.role == 'assistant' %}"
  '{% generation %}{{ message.content }}{% endgeneration %}'
  '{% else %}{{ message.content }}{% endif %}'
  '{% endfor %}'
)


def turns(*segments, tools=None):
  return Trajectory('x', segments, tools)


def agent(text='', *calls, **fields):
  if calls:
    fields['tool_calls'] = [*calls]
  return Segment('assistant', text, P.AGENT, fields=fields)


def call(name, id='c', **arguments):
  function = {'name': name, 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def result(text):
  return Segment('tool', text, P.TOOL)


def tokens_and_authors(trajectory, template_text, tokenizer):
  """[(text, author), ...] of each token; the ids are transformers' own."""
  example = Renderer(tokenizer, template_text).example(trajectory)
  messages = chat_template.messages_of(trajectory)
  tools = trajectory.tools and list(trajectory.tools)
  ids = applied(tokenizer, chat_template.freeze(template_text), messages, tools)
  assert example.tokens_T.tolist() == ids
  return [
    (tokenizer.decode([token]), P(author).name)
    for token, author in zip(ids, example.provenance_T, strict=True)
  ]


def spans_of(trajectory, name):
  return Renderer(trained(), template(name)).render(trajectory).spans


def said_by(author, spans):
  """What messages of an author hold, in order."""
  return [s.text for s in spans if s.written and s.provenance == author]


# ------------------------------------------------------------------------- 1


@pytest.mark.parametrize(
  ('first', 'trim_offsets', 'agents'),
  [
    # A turn that is token 0, and nothing else.
    ('a', None, ['a']),
    # A turn that ends at a space, which the offsets leave out.
    ('a ', True, ['a', ' ']),
    (' ', True, [' ']),
  ],
)
def test_1_a_turn_that_ends_at_token_0_or_at_a_stripped_character_ends_there(
  first, trim_offsets, agents
):
  """transformers' `return_assistant_tokens_mask` looks its end up as "token 0"
  or as "no token", takes either for "none", and marks all that follows."""
  tokenizer = trained(trim_offsets=trim_offsets)
  trajectory = turns(agent(first), Segment('user', '\nb!', P.USER))
  tokens = tokens_and_authors(trajectory, GENERATION, tokenizer)
  assert [text for text, author in tokens if author == 'AGENT'] == agents
  assert ''.join(t for t, author in tokens if author == 'USER') == '\nb!'


# ------------------------------------------------------------------------- 2

OUTPUTS = ['[[1, 2], [3, 4]]', '[[]]', '[]', '{}', '[[', '"', '{"a": [[0]]}']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('output', OUTPUTS)
def test_2_a_tool_output_of_brackets_is_the_tools_to_the_last_bracket(
  output, name
):
  """axolotl renders a dummy in its place and compares: it labels the output
  `[[1, 2], [3, 4]]` on `1, 2], [3, 4` alone, and `[[]]` not at all."""
  trajectory = turns(HI, agent('a', call('f')), result(output), YO)
  assert said_by(P.TOOL, spans_of(trajectory, name)) == [output]
  tokens = tokens_and_authors(trajectory, template(name), trained())
  of_tool = ''.join(text for text, author in tokens if author == 'TOOL')
  # A line break of the template may share a token with the first bracket.
  assert of_tool.strip() == output


# ------------------------------------------------------------------------- 3


def test_3_a_template_that_rewrites_earlier_thinking_loses_no_later_turn():
  """torchtune renders turn by turn and cuts off what it has rendered before.
  Where the template has dropped a thought from it, the cut falls into the next
  user turn; tool calls are not even passed on."""
  think = {'reasoning_content': 'Let me think about this for a while.'}
  trajectory = turns(
    Segment('user', 'one?', P.USER),
    agent('1', call('add', x=1), **think),
    Segment('user', 'two?', P.USER),
    agent('2', **think),
    Segment('user', 'three?', P.USER),
    agent('3', **think),
  )
  spans = spans_of(trajectory, 'qwen3_like')
  assert said_by(P.USER, spans) == ['one?', 'two?', 'three?']
  assert said_by(P.AGENT, spans) == [
    '1',
    'add',
    '{"x": 1}',
    '2',
    think['reasoning_content'],
    '3',
  ]
  tokens_and_authors(trajectory, template('qwen3_like'), trained())


# ------------------------------------------------------------------------- 4


@pytest.mark.parametrize('name', NAMES)
def test_4_a_tool_call_between_turns_of_the_agent_renders(name):
  """MaxText renders each round as a conversation of its own, and then raises
  on user, assistant (with a call), tool, assistant."""
  trajectory = turns(HI, agent('', call('look', x=1)), result('9'), YO)
  spans = spans_of(trajectory, name)
  assert said_by(P.AGENT, spans)[-2:] == ['{"x": 1}', 'Yo.']
  assert said_by(P.TOOL, spans) == ['9']


@pytest.mark.parametrize('name', NAMES)
def test_4_user_turns_in_a_row_are_each_there_once(name):
  """MaxText has them twice."""
  users = tuple(Segment('user', text, P.USER) for text in ('a', 'a', 'b'))
  spans = spans_of(turns(*users, YO), name)
  assert said_by(P.USER, spans) == ['a', 'a', 'b']


END = '<|im_end|>'


def batch_of(folder, examples, **config):
  """One row with all of the examples, in the order of the records."""
  data = dataset.write(str(folder), lambda: examples, {})
  source = BatchSource(
    data, RunConfig(batch_size=1, seq_len=128, targets_per_row=128, **config)
  )
  assert source.steps_per_epoch == 1
  return source[0]


def authors_of_targets(batch, token):
  """The authors of the targets that are this token, in order."""
  scored = batch.authors_BK != P.PAD
  of_token = batch.authors_BK[scored & (batch.targets_BK == token)]
  return [P(author).name for author in of_token.tolist()]


@pytest.mark.parametrize('pad', [END, '<|pad|>'])
def test_4_an_end_marker_that_is_also_the_padding_is_a_target(tmp_path, pad):
  """MaxText writes the padding's id into the targets that it masks: where that
  is the end marker's, true ends are lost, and the model never stops."""
  tokenizer = trained(eos=END, pad=pad)
  trajectory = turns(HI, YO, HI, YO)
  example = Renderer(tokenizer, template('chatml')).example(trajectory)
  batch = batch_of(tmp_path, [example], objective='observational')
  assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END)
  assert authors_of_targets(batch, tokenizer.eos_token_id) == [
    *('TEMPLATE', 'TEMPLATE', 'AGENT', 'TEMPLATE', 'AGENT')
  ]


@pytest.mark.parametrize('objective', ['observational', 'interventional'])
def test_4_no_document_predicts_the_first_token_of_the_next(
  tmp_path, objective
):
  """MaxText packs and then shifts: the last token of a document is asked for
  the first of the next. A mask of completions hides it; a loss on what others
  write would train on it."""
  renderer = Renderer(trained(), template('chatml'))
  examples = [
    renderer.example(turns(Segment('user', text, P.USER), YO))
    for text in ('Hi.', 'Ho!')
  ]
  batch = batch_of(tmp_path, examples, objective=objective)
  row_L = batch.tokens_BL[0]
  documents_L = batch.segment_ids_BL[0]
  assert set(documents_L.tolist()) == {0, 1, 2}
  scored_K = np.flatnonzero(batch.authors_BK[0])
  columns_K = batch.columns_BK[0][scored_K]
  for document in (1, 2):
    inside_L = np.flatnonzero(documents_L == document)
    asked_K = columns_K[documents_L[columns_K] == document]
    targets = batch.targets_BK[0][scored_K][documents_L[columns_K] == document]
    # The example of this document: each target follows its input in it.
    (whole,) = (
      e.tokens_T.tolist()
      for e in examples
      if e.tokens_T[: len(inside_L)].tolist() == row_L[inside_L].tolist()
    )
    assert targets.tolist() == [
      whole[column - inside_L[0] + 1] for column in asked_K
    ]
    assert 0 not in batch.positions_BL[0][asked_K + 1][asked_K < inside_L[-1]]


# ------------------------------------------------------------------------- 5


def test_5_token_0_is_a_token_like_any_other(tmp_path):
  """tunix masks where `input_tokens != 0`: for many tokenizers a real token is
  lost, be it the end of each turn."""
  tokenizer = trained(first=END)
  assert tokenizer.convert_tokens_to_ids(END) == 0
  example = Renderer(tokenizer, template('chatml')).example(turns(HI, YO))
  zeros = np.flatnonzero(example.tokens_T == 0)
  assert [P(a).name for a in example.provenance_T[zeros]] == [
    *('TEMPLATE', 'TEMPLATE', 'AGENT')
  ]
  batch = batch_of(tmp_path, [example], objective='observational')
  assert authors_of_targets(batch, 0) == ['TEMPLATE', 'TEMPLATE', 'AGENT']
  length = len(example.tokens_T) - 1  # the last token is a target alone
  assert batch.tokens_BL[0, :length].tolist() == example.tokens_T[:-1].tolist()
  assert batch.segment_ids_BL[0].tolist() == [1] * length + [0] * (128 - length)


# ------------------------------------------------------------------------- 6

MARKED = (
  '{% for message in messages %}'
  "{{ '<|im_start|>' + message.role + '\n' }}"
  "{% if message.role == 'assistant' %}"
  '{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}'
  '{% else %}{{ message.content }}<|im_end|>{% endif %}'
  "{{ '\n' }}"
  '{% endfor %}'
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BARE = MARKED.replace('{% generation %}', '').replace('{% endgeneration %}', '')
MISMARKED = MARKED.replace("== 'assistant'", "== 'user'")


@pytest.mark.parametrize('text', [MARKED, BARE, MISMARKED])
def test_6_the_marks_of_a_template_change_nothing(text):
  """Without a literal generation mark in the template EasyDeL silently trains
  on everything; and its packing drops masks."""
  trajectory = turns(HI, YO, HI, YO)
  assert tokens_and_authors(trajectory, text, trained()) == (
    tokens_and_authors(trajectory, MARKED, trained())
  )
  agents = [
    t
    for t, a in tokens_and_authors(trajectory, text, trained())
    if a == 'AGENT'
  ]
  assert ''.join(agents) == 'Yo.<|im_end|>' * 2


# ------------------------------------------------------------------------- 7

SEAMS = (
  '{% for message in messages %}{{ message.role }}:{{ message.content }}'
  '{% endfor %}'
)


def test_7_a_token_across_a_seam_goes_to_one_declared_author_and_is_counted():
  """Each segment encoded alone loses the merges that the whole text has; the
  whole text, encoded once, has tokens of two authors. It is encoded once, and
  such a token goes to the agent before all others."""
  texts = ('user:abassistant:baabtool:abba' * 9,)
  tokenizer = trained(texts, vocab_size=330, use_regex=False)
  trajectory = turns(
    Segment('user', 'ab', P.USER), agent('baab'), result('abba')
  )
  renderer = Renderer(tokenizer, SEAMS)
  example, text, starts_T, straddling, spans, _ = renderer.render(trajectory)
  assert example.tokens_T.tolist() == tokenizer(text)['input_ids']
  alone = [token for s in spans for token in tokenizer(s.text)['input_ids']]
  assert alone != example.tokens_T.tolist()

  owners = [s.provenance for s in spans for _ in s.text]
  stops_T = [*starts_T[1:], len(text)]
  held = [{*owners[a:b]} for a, b in zip(starts_T, stops_T, strict=True)]
  assert example.provenance_T.tolist() == [
    next(author for author in STRADDLE_ORDER if author in authors)
    for authors in held
  ]
  assert straddling == sum(len(authors) > 1 for authors in held) > 0


# ------------------------------------------------------------------------- 8


def test_8_thinking_that_is_removed_from_earlier_turns_is_counted():
  """Templates rewrite history: what they take away is declared."""
  think = {'reasoning_content': 'Hmm.'}
  trajectory = turns(HI, agent('a', **think), HI, agent('b', **think))
  rendered = Renderer(trained(), template('qwen3_like')).render(trajectory)
  assert rendered.lost == {'thinking': 4, 'whitespace': 0, 'tools': 0}
  assert said_by(P.AGENT, rendered.spans) == ['a', 'Hmm.', 'b']


def test_8_tool_results_that_are_merged_into_a_user_turn_are_the_tools():
  """By the role of the rendered turn they would be the user's."""
  trajectory = turns(HI, agent('', call('f')), result('1'), result('2'), YO)
  spans = spans_of(trajectory, 'qwen3_like')
  assert said_by(P.TOOL, spans) == ['1', '2']
  assert said_by(P.USER, spans) == ['Hi.']
  text = ''.join(s.text for s in spans if s.segment in (2, 3))
  assert text.count('<|im_start|>user') == text.count('<|im_end|>') == 1


@pytest.mark.parametrize('name', ['qwen3_like', 'llama3_like'])
def test_8_stripped_white_space_is_counted(name):
  trajectory = turns(Segment('user', ' Hi.\n\n', P.USER), agent('\tYo. '))
  rendered = Renderer(trained(), template(name)).render(trajectory)
  assert rendered.lost == {'thinking': 0, 'whitespace': 5, 'tools': 0}
  assert said_by(P.USER, rendered.spans) == ['Hi.']
  assert said_by(P.AGENT, rendered.spans) == ['Yo.']


@pytest.mark.parametrize(
  ('name', 'prompt'),
  [('chatml', 'Be brief and be right.'), ('llama3_like', 'Today is 26 July')],
)
def test_8_a_default_system_prompt_is_context(name, prompt):
  """Nobody in the conversation said it, and no loss may score it."""
  spans = spans_of(turns(HI, YO), name)
  (default,) = (s for s in spans if prompt in s.text)
  assert default.provenance == P.CONTEXT
  assert not default.written


# ------------------------------------------------------------------------- 9


def row(*calls, content=None, tools=None):
  messages = [
    {'role': 'user', 'content': 'Hi.'},
    {'role': 'assistant', 'content': content, 'tool_calls': [*calls]},
    *({'role': 'tool', 'content': '9', 'tool_call_id': c['id']} for c in calls),
    {'role': 'assistant', 'content': 'Yo.'},
  ]
  return {'messages': messages, **({'tools': tools} if tools else {})}


def with_arguments(arguments, id='c'):
  function = {'name': 'look', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def read(value):
  return registry.read(value, 'x', 'auto', Rules.default())


@pytest.mark.parametrize('name', NAMES)
def test_9_null_content_and_arguments_as_text_render_as_the_plain_ones(name):
  """Elsewhere `content: null` prints `None`, or raises; arguments that are a
  JSON string are quoted and escaped a second time."""
  plain = read(row(with_arguments({'city': 'Rome', 'n': 1}), content=''))
  other = read(row(with_arguments('{"city": "Rome", "n": 1}'), content=None))
  one, two = (
    tokens_and_authors(trajectory, template(name), trained())
    for trajectory in (plain, other)
  )
  assert one == two
  text = ''.join(text for text, _ in two)
  assert '{"city": "Rome", "n": 1}' in text
  assert 'None' not in text and 'null' not in text


@pytest.mark.parametrize('name', NAMES)
def test_9_several_calls_in_one_turn_are_all_the_agents(name):
  calls = [with_arguments({'n': n}, id=f'c{n}') for n in range(3)]
  spans = spans_of(read(row(*calls)), name)
  written = [text for text in said_by(P.AGENT, spans) if 'look' not in text]
  assert written == ['{"n": 0}', '{"n": 1}', '{"n": 2}', 'Yo.']
  # From the first call to the end of the turn there is no one else.
  of_turn = [s for s in spans if s.segment == 1]
  first = next(i for i, s in enumerate(of_turn) if s.provenance == P.AGENT)
  rest = [s for s in of_turn[first:] if s.text.strip()]
  assert {s.provenance for s in rest} == {P.AGENT}
  assert said_by(P.TOOL, spans) == ['9'] * 3


@pytest.mark.parametrize('name', NAMES)
def test_9_schemas_of_tools_are_given_once_and_are_context(name):
  """Trainers that pass role and text alone never show them."""
  tools = [{'type': 'function', 'function': {'name': 'look'}}]
  spans = spans_of(read(row(with_arguments({}), tools=tools)), name)
  schemas = [s for s in spans if s.written and s.provenance == P.CONTEXT]
  (schema,) = (''.join(s.text.split()) for s in schemas)
  assert schema == '{"type":"function","function":{"name":"look"}}'
  renderer = Renderer(trained(), template(name))
  assert renderer.render(read(row(with_arguments({}), tools=tools))).lost == {
    'thinking': 0,
    'whitespace': 0,
    'tools': 0,
  }
