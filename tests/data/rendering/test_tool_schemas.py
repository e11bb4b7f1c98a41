"""Bare schemas of tools get an envelope only if the template needs it."""

import pytest

from isft_jax.data.rendering import tool_schemas
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance, Segment, Trajectory
from tests.data.chat_tokenizer import text_of, trained

BARE = {
  'name': 'look',
  'description': 'Looks.',
  'parameters': {'type': 'object', 'properties': {'city': {}}},
}
WRAPPED = {'type': 'function', 'function': BARE}
TURNS = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>'
  '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
# The system turn of templates, and whether they need the envelope.
TEMPLATES = {
  '{{ tools | tojson }}': False,
  '{% for t in tools %}{{ t | tojson }}{% endfor %}': False,
  # Raises without it.
  '{% for t in tools %}{{ t.function.name }} {{ t.function.description }} '
  '{{ t.function.parameters | tojson }}{% endfor %}': True,
  # Prints nothing without it.
  "{% for t in tools if t.type == 'function' %}{{ t | tojson }}{% endfor %}": (
    True
  ),
  # Takes both.
  '{% for t in tools %}{% set f = t.function or t %}{{ f.name }} '
  '{{ f.description }} {{ f.parameters | tojson }}{% endfor %}': False,
  'no tools': False,
}


def trajectory(*tools):
  turns = (
    Segment('user', 'a', Provenance.USER),
    Segment('assistant', 'b', Provenance.AGENT),
  )
  return Trajectory('x', turns, tools)


@pytest.mark.parametrize(('source', 'needed'), [*TEMPLATES.items()])
def test_the_envelope_is_added_if_the_template_shows_more(source, needed):
  template = f'{{% if tools %}}<|im_start|>system {source}{{% endif %}}{TURNS}'
  renderer = Renderer(trained(), template)
  found = renderer.render(trajectory(BARE)).text
  # If there is no need, apply_chat_template gets the schema that the row has.
  schema = WRAPPED if needed else BARE
  assert found == text_of(renderer, trajectory(schema))
  assert ('Looks.' in found) == (source != 'no tools')


@pytest.mark.parametrize(
  ('schema', 'wrapped'),
  [
    (BARE, WRAPPED),
    (WRAPPED, WRAPPED),
    ({'type': 'function', **BARE}, WRAPPED),
    ({'type': 'web_search'}, {'type': 'web_search'}),
    ({'name': 7}, {'name': 7}),
  ],
)
def test_with_envelope(schema, wrapped):
  assert tool_schemas.with_envelope(schema) == wrapped
