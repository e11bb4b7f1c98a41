"""Names that a template mentions in its expressions."""

import pytest

from isft_jax.data.rendering.template_names import template_names
from tests.data.chat_tokenizer import NAMES, template


@pytest.mark.parametrize(
  ('source', 'names'),
  [
    ('name role', set()),
    ('{{ m.name }}', {'m', 'name'}),
    ("{{ m['name'] }}", {'m', 'name'}),
    ("{{ m.get('name', '') }}", {'m', 'get', 'name', ''}),
    ("{% if 'name' in m %}a{% endif %}", {'m', 'name'}),
    ('{# m.name #}{% if enable_thinking %}a{% endif %}', {'enable_thinking'}),
    ({'default': '{{ a }}', 'tool_use': '{{ b }}'}, {'a', 'b'}),
  ],
)
def test_names(source, names):
  assert template_names(source) == names


@pytest.mark.parametrize('name', NAMES)
def test_names_of_templates(name):
  names = template_names(template(name))
  assert {'messages', 'role', 'content'} <= names
  assert 'timestamp' not in names
