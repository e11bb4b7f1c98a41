"""Templates that would run for years or fill the memory are stopped."""

import pathlib
import re
import time

import pytest

from isft_jax.data.rendering import limits
from isft_jax.data.rendering.chat_template import ChatTemplate
from isft_jax.data.rendering.limits import OverLimitError
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance, Segment, Trajectory
from tests.dialogues import chatml_tokenizer

STEPS = r'takes more than [\d,]+ steps'
TEXT = r'makes a text of more than [\d,]+ characters'
ITEMS = r'makes a list of more than [\d,]+ items'
BITS = 'computes a number of more than 131,072 bits'

HI = Trajectory('a', (Segment('user', 'Hi', Provenance.USER),))
LONG = '{% set x = messages[0].content * 150000 %}'


# Source of a template -> the words of its limit.
ENDLESS = {
  # Loops.
  '{% for i in range(9**5) %}{% for j in range(9**5) %}{{ j }}{% endfor %}'
  '{% endfor %}': STEPS,
  '{% for i in range(99) %}{% for j in range(99999) if j < 0 %}{% endfor %}'
  '{% endfor %}': STEPS,
  '{% for i in range(99) %}{% for k, v in (([1, 2],) * 30000) %}{% endfor %}'
  '{% endfor %}': STEPS,
  '{% for m in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}'
  '{% endfor %}': None,
  # Long lists, again and again.
  **{
    '{% set x = range(99999) | list %}{% for i in range(9999) %}{% if '
    + test
    + ' %}{% endif %}{% endfor %}': STEPS
    for test in (
      '-1 in x',
      'x | sort | first',
      'x[::-1]',
      'x.index(99998)',
      'x | unique | list',
      'x | sum',
    )
  },
  # Macros.
  '{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}'
  '{% endmacro %}{{ f(40) }}': STEPS,
  '{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}': None,
  # Repeated texts and lists.
  "{{ 'a' * 10**10 }}": TEXT,
  "{{ 10**10 * 'ab' }}": TEXT,
  '{{ messages[0].content * 10**10 }}': TEXT,
  '{{ [1] * 10**9 }}': ITEMS,
  '{{ ((1, 2) * 10**9) | length }}': ITEMS,
  '{{ 10 ** (10 ** 10) }}': BITS,
  '{% set ns = namespace(x=7) %}{% for i in range(99) %}'
  '{% set ns.x = ns.x * ns.x %}{% endfor %}': BITS,
  # Doubling.
  "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
  '{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}': TEXT,
  "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
  '{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}': TEXT,
  '{% set ns = namespace(x=[1]) %}{% for i in range(60) %}'
  '{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}': ITEMS,
  '{% set ns = namespace(x=[1]) %}{% for i in range(60) %}'
  '{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}': ITEMS,
  "{% set ns = namespace(x={'a': 1}) %}{% for i in range(60) %}"
  "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x }}": ITEMS,
  '{% macro f(x, n) %}{% if n %}{{ f((x, x), n - 1) }}{% else %}{{ x }}'
  '{% endif %}{% endmacro %}{{ f(1, 60) }}': ITEMS,
  "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set y %}"
  '{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}': TEXT,
  # Widths and formats.
  "{{ 'a' | center(10**10) }}": TEXT,
  "{{ 'a' | center(10000000000) }}": TEXT,
  "{{ 'a'.center(10**10) }}": TEXT,
  '{{ messages[0].content.rjust(10**10) }}': TEXT,
  "{{ '7'.zfill(10**10) }}": TEXT,
  "{{ '\\t'.expandtabs(10**10) }}": TEXT,
  '{{ (5).to_bytes(10**10) }}': TEXT,
  "{{ '%1000000000d' % 1 }}": TEXT,
  "{{ '%.1000000000f' % 1 }}": TEXT,
  "{{ '%*d' % (10**9, 1) }}": TEXT,
  "{{ '%1000000000d' | format(1) }}": TEXT,
  "{{ '%1000000000s' % messages[0].content }}": TEXT,
  "{{ '{:1000000000}'.format(1) }}": TEXT,
  "{{ '{:{}}'.format(1, 10**9) }}": TEXT,
  "{{ 'a\\n\\nb' | indent(10**10) }}": TEXT,
  "{{ 'a' | indent(10**10, true) }}": TEXT,
  '{{ messages | tojson(indent=10**10) }}': 'asks the filter tojson for more',
  '{{ 5 | round(-10**9) }}': 'asks the filter round for more than 1000 digits',
  "{{ 5 | round(10**9, 'ceil') }}": 'asks the filter round for more',
  '{{ [1] | batch(10**10, 0) | list }}': ITEMS,
  '{{ [1] | slice(10**7) | list }}': ITEMS,
  '{{ lipsum(10**9) }}': ITEMS,
  # Joins and replacements of long texts.
  LONG + '{{ ([x] * 9) | join }}': TEXT,
  LONG + "{{ ''.join([x] * 9) }}": TEXT,
  LONG + '{{ range(99) | join(x) }}': TEXT,
  LONG + '{{ x.join(range(99) | map("string")) }}': TEXT,
  LONG + '{{ x }}{{ x }}{{ x }}': TEXT,
  LONG + "{{ 'a,a,a' | replace('a', x) }}": TEXT,
  LONG + "{{ 'aaa'.replace('', x) }}": TEXT,
  LONG + "{{ 'a'.translate({97: x * 2}) }}": TEXT,
  LONG + "{{ '%s%s%s' % (x, x, x) }}": TEXT,
  LONG + "{{ '{0}{0}{0}'.format(x) }}": TEXT,
  LONG
  + '{% for i in range(9999) %}{% if x in x %}{% endif %}{% endfor %}': STEPS,
  LONG + '{{ x | list | length }}': STEPS,
  # Work in constants that are never printed.
  "{% if false %}{{ 'a' * 10**10 }}{% endif %}": TEXT,
  "{% if false %}{{ 'a' | center(10000000000) }}{% endif %}": TEXT,
  '{% if false %}{{ 10 ** (10 ** 10) }}{% endif %}': BITS,
}


@pytest.mark.parametrize('source', ENDLESS)
def test_a_template_is_stopped(source):
  start = time.process_time()
  with pytest.raises(Exception) as error:
    ChatTemplate(source).render(HI)
  assert time.process_time() - start < 10
  words = ENDLESS[source]
  if words is None:  # Python's own limit of recursion, or ours
    assert isinstance(error.value, RecursionError | OverLimitError)
  else:
    assert re.search(words, str(error.value)), str(error.value)


@pytest.mark.parametrize(
  ('source', 'text'),
  [
    ("{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ '%03d' % 7 }}", 'ababab1024007'),
    ("{{ 'a' | center(5) }}|{{ '{:>4}'.format('x') }}", '  a  |   x'),
    ("{{ ['a', 'b'] + ['c'] }}{{ (1, 2) }}", "['a', 'b', 'c'](1, 2)"),
    ("{% for k, v in {'a': 1}.items() if v %}{{ k }}{% endfor %}", 'a'),
    ('{{ messages[0].role == messages[0].content }}', 'False'),
    ("{{ 'Hi' in messages[0].content }}{{ 1 < 2 < 3 }}", 'TrueTrue'),
    ('{{ [1, [2, 3]] | tojson(indent=2) | length }}', '29'),
    ('{{ [1, 2, 3] | batch(2) | list }}', '[[1, 2], [3]]'),
    ("{{ 3.14159 | round(2) }}{{ 'a,b' | replace(',', '--') }}", '3.14a--b'),
    (LONG + '{{ x | length }}', '300000'),
  ],
)
def test_an_honest_template_is_rendered(source, text):
  assert ChatTemplate(source).text(HI) == text


def test_a_template_that_never_ends_is_refused_at_once():
  template = '{% for i in range(9999) %}' * 2 + '{% endfor %}' * 2
  with pytest.raises(ValueError, match=f'the chat template {STEPS} for a s'):
    Renderer(chatml_tokenizer(), template)


@pytest.mark.parametrize(
  'bad',
  [
    '{% for i in range(9999) %}' * 2 + '{% endfor %}' * 2,
    # Without origins it goes on, and transformers would, too.
    '{% if m.content.encode() %}{% endif %}{% for i in range(9999) %}'
    '{% for j in range(999) %}{% endfor %}{% endfor %}',
    '{{ m.content * 10**10 }}',
  ],
)
def test_a_row_whose_template_does_not_end_is_set_aside(bad):
  template = (
    "{% for m in messages %}{% if m.content == 'bad' %}" + bad + '{% endif %}'
    '<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
  )
  renderer = Renderer(chatml_tokenizer(), template)

  def row(text):
    return Trajectory(
      'a',
      (
        Segment('user', text, Provenance.USER),
        Segment('assistant', 'Yes.', Provenance.AGENT),
      ),
    )

  renderer.render(row('good'))
  with pytest.raises(
    Rejected, match=r'the chat template .* more .* stopped'
  ) as e:
    renderer.render(row('bad'))
  assert e.value.reason == 'template_raises'
  renderer.render(row('good'))


def test_a_template_that_python_cannot_compile_is_an_error():
  loops = ''.join(f'{{% for a{i} in [1] %}}' for i in range(30))
  for source in (loops + '{% endfor %}' * 30, '{{ ' + '(' * 9999):
    with pytest.raises(ValueError, match='the chat template does not compile'):
      ChatTemplate(source)


def test_published_templates_take_few_steps():
  """The limit is far from what templates need for a long conversation."""
  folder = pathlib.Path(__file__).parents[1] / 'templates'
  turns = [
    Segment('user', 'Hi', Provenance.USER),
    Segment('assistant', 'Yes.', Provenance.AGENT),
  ] * 500
  for path in sorted(folder.glob('*.jinja')):
    template = ChatTemplate(path.read_text())
    template.render(Trajectory('a', tuple(turns)))
    counted = template._environment.limits
    used = counted.most_steps - counted.steps_left
    assert 1000 <= used < counted.most_steps / 10, path


def used_steps(source, turns):
  template = ChatTemplate(source)
  template.render(Trajectory('a', tuple(turns)))
  counted = template._environment.limits
  return counted.most_steps - counted.steps_left, counted.most_steps


@pytest.mark.parametrize('number', [2, 50, 300])
@pytest.mark.parametrize(
  'body',
  [
    '{{ m.content }}',
    '{% for c in m.content | list %}{{ c }}{% endfor %}',
    '{% for n in messages %}{% if n.role == m.role %}{% endif %}{% endfor %}',
  ],
)
def test_the_limit_of_steps_grows_with_the_row(number, body):
  turns = [Segment('user', 'words ' * 20, Provenance.USER)] * number
  source = '{% for m in messages %}' + body + '{% endfor %}'
  used, most = used_steps(source, turns)
  assert used < most / 10
  assert most <= limits.MOST_STEPS


@pytest.mark.parametrize(
  ('text', 'words'),
  [('Hi', r'more than 524,[3-6].. characters'), ('Hi' * 50_000, None)],
)
def test_the_limit_of_a_text_grows_with_the_row(text, words):
  row = Trajectory('a', (Segment('user', text, Provenance.USER),))
  # The constant itself would be refused when the template is compiled.
  template = ChatTemplate(
    "{% set n = messages | length %}{{ 'a' * (n * 600000) }}"
  )
  if words:
    with pytest.raises(OverLimitError, match=words):
      template.render(row)
  else:
    assert len(template.text(row)) == 600_000


def test_copies_are_counted():
  """Texts within their limit, one after the other."""
  source = LONG + '{% for i in range(999) %}{% set y = x ~ i %}{% endfor %}'
  with pytest.raises(OverLimitError, match=r'copies more than 8,\d+,\d+ c'):
    ChatTemplate(source).render(HI)


def test_pieces_of_different_origins_are_counted():
  mixed = "{{ (messages[0].content[0] ~ 'b') * 100000 }}"
  with pytest.raises(OverLimitError, match='pieces of different origins'):
    ChatTemplate(mixed).render(HI)
  few = "{{ (messages[0].content[0] ~ 'b') * 1000 }}"
  assert ChatTemplate(few).text(HI) == 'Hb' * 1000
