"""The small ChatML tokenizer: every author of a run with tools is told."""

import json

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.rendering import chatml, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance

CALL = {'name': 'look_up', 'arguments': {'city': 'Oslo'}}
RUN = {
  'tools': [{'type': 'function', 'function': {'name': 'look_up'}}],
  'messages': [
    {'role': 'user', 'content': 'How warm is Oslo?'},
    {
      'role': 'assistant',
      'content': None,
      'tool_calls': [{'type': 'function', 'function': CALL}],
    },
    {'role': 'tool', 'content': '{"degrees": 4}'},
    {'role': 'assistant', 'content': 'It is 4 degrees.'},
  ],
}
RENDERED = [
  ('TEMPLATE', '<|im_start|>system\n'),
  (
    'CONTEXT',
    'Tools:\n{"type": "function", "function": {"name": "look_up"}}\n',
  ),
  ('TEMPLATE', '<|im_end|>\n<|im_start|>user\n'),
  ('USER', 'How warm is Oslo?'),
  ('TEMPLATE', '<|im_end|>\n<|im_start|>assistant\n'),
  (
    'AGENT',
    '<tool_call>{"name": "look_up", "arguments": {"city": "Oslo"}}</tool_call>'
    '<|im_end|>',
  ),
  ('TEMPLATE', '\n<|im_start|>tool\n'),
  ('TOOL', '{"degrees": 4}'),
  ('TEMPLATE', '<|im_end|>\n<|im_start|>assistant\n'),
  ('AGENT', 'It is 4 degrees.<|im_end|>'),
  ('TEMPLATE', '\n'),
]


def rendered(row):
  encoder = chatml.train([json.dumps(RUN)], 300)
  example = Renderer(encoder).example(
    registry.read(row, 'a', 'auto', Rules.default())
  )
  found = []
  for token, author in zip(example.tokens_T, example.provenance_T, strict=True):
    name, text = Provenance(int(author)).name, encoder.decode([token])
    if found and found[-1][0] == name:
      text = found.pop()[1] + text
    found.append((name, text))
  return found


def test_who_writes_what_in_a_run_with_tools():
  assert rendered(RUN) == RENDERED


def test_arguments_may_be_a_dict_or_a_string():
  row = json.loads(json.dumps(RUN))
  call = row['messages'][1]['tool_calls'][0]['function']
  call['arguments'] = json.dumps(call['arguments'])
  assert rendered(row) == RENDERED


def test_it_is_the_same_when_loaded(tmp_path):
  chatml.train(['gold is a metal'], 260).save_pretrained(tmp_path)
  found = tokenizer.load(str(tmp_path))
  assert found.chat_template == chatml.TEMPLATE
  assert set(chatml.MARKS) <= set(tokenizer.special_ids(found).values())
