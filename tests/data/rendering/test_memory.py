"""A small row takes little memory, whatever its template does with it.

Python's own count of memory (tracemalloc) decides, not that of the machine.
"""

import tracemalloc

import pytest

from isft_jax.data.rendering.chat_template import ChatTemplate
from isft_jax.data.rendering.limits import OverLimitError
from isft_jax.types import Provenance, Segment, Trajectory

MOST = 100_000_000  # bytes
ROW = Trajectory(
  'a',
  (
    Segment('user', 'Hi, "you" <there> ', Provenance.USER),
    Segment('assistant', 'ß 👩 \x00\ud83d', Provenance.AGENT),
  ),
)
# The longest text of one origin, and one whose characters alternate in origin.
PLAIN = '{% set x = messages[0].content * 20000 %}'
MIXED = "{% set x = (messages[0].content[0] ~ 'b') * 200000 %}"
WIDE = '{% set x = messages[1].content * 40000 %}'


def repeated(expression, times=60):
  """Returns a template that keeps the values of an expression."""
  return (
    '{% set ns = namespace(kept=[]) %}{% for i in range('
    + str(times)
    + ') %}{% set ns.kept = ns.kept + ['
    + expression
    + '] %}{% endfor %}{{ ns.kept | length }}'
  )


EXPRESSIONS = (
  # Formats.
  *("'{0}{0}{0}'.format(x)", "'{0}'.format(x)", "'{:>400000}'.format(x)"),
  *("'{a}{a}'.format(a=x)", "'%s%s' % (x, x)", "'%s' | format(x)"),
  *("'%(a)s%(a)s' % {'a': x}", "'{0}'.format([x, x, x] * 99)"),
  *("'%s' % ([x, x, x] * 99,)", "('{0}' * 9999).format(x)"),
  # Joins, replacements, repetition.
  *('[x, x, x] | join(x)', 'x.join([x] * 99)', '([x] * 9999) | join'),
  *(
    'x | join(x)',
    "x | replace('i', x)",
    "x.replace('H', x)",
    'x.replace(x, x)',
  ),
  *("x | replace('', 'abc')", "x.replace('H', 'HH')", 'x * 3', '9999 * x'),
  *('x ~ x ~ x', 'x + x + x', 'x | indent(99999)', 'x | wordwrap(1, true, x)'),
  # Values that are printed.
  *('([x] * 9999) | tojson', '([x] * 9999) | string', '([x] * 9999) ~ ""'),
  *('{"a": [x] * 999, "b": [x] * 999} | tojson', '([x] * 9999) | pprint'),
  *('[[[x] * 99] * 99] | tojson(indent=2)', '([x] * 9999) | urlencode'),
  *('{"a": [x] * 9999} | xmlattr', '([[x] * 999] * 999) | join'),
  *("{'a': [x] * 9999}.values() | string", "{'a': [x] * 9999}.items() ~ ''"),
  *('namespace(a=[x] * 9999)', '[namespace(a=[x] * 9999)] | string'),
  *('([x] * 9999) | e', '([x] * 9999) | upper', '([x] * 9999) | urlize'),
  *("''.join(([x] * 9999) | map('string'))", "x.join('abc' * 9999)"),
  *('([x] * 9999) | wordcount', '([x] * 9999) | trim', '{1: [x] * 999} ~ x'),
  # Escapes.
  *('x | tojson', 'x | tojson | tojson | tojson', 'x | e', 'x | urlencode'),
  *('x | urlize', 'x | pprint', 'x | upper', 'x.encode("unicode_escape")'),
  *('x | forceescape | forceescape', 'x.encode("utf-32") * 9', 'x.title()'),
  # Pieces.
  *(
    'x | list',
    'x | list | sort',
    'x.split("H")',
    'x.split()',
    'x.splitlines()',
  ),
  *(
    "x.replace('H', '\\n').splitlines()",
    'x.partition("H")',
    'x | batch(2) | list',
  ),
  *("range(99999) | map('string') | list", 'x | map("upper") | list'),
  *('([x] * 99999) | map("upper") | list', 'x[::-1]', 'x[1:]', 'x | reverse'),
  *('x.translate({72: x})', 'x.expandtabs(99)', 'x | center(500000)'),
  *('x.rsplit("i")', 'x.rpartition("H")', 'x | truncate(400000)', 'x | trim'),
)


@pytest.mark.parametrize('text', [PLAIN, MIXED, WIDE], ids=['p', 'm', 'w'])
@pytest.mark.parametrize('expression', EXPRESSIONS)
def test_one_value_takes_little_memory(expression, text):
  check(text + '{{ ' + expression + ' }}')


@pytest.mark.parametrize(
  'source',
  [
    PLAIN + repeated('x ~ i'),
    PLAIN + repeated('x.replace("H", i | string)'),
    PLAIN + repeated("'{0}'.format(x)"),
    MIXED + repeated('x.upper()'),
    WIDE + repeated('x ~ i'),
    repeated("'ab' * 2000 ~ i", 99999),
    repeated('i | string', 99999),
    repeated('range(9999) | map("string") | list', 9999),
    PLAIN + repeated('x.split("H")'),
    PLAIN + '{{ x }}',
    MIXED + '{{ x }}',
    MIXED + '{% for c in x %}{{ c }}{% endfor %}',
    WIDE + '{% for i in range(99) %}{{ x }}{% endfor %}',
    "{% for i in range(99999) %}{{ 'ab' * 2000 }}{% endfor %}",
    '{% macro f(n, x) %}{{ f(n - 1, x ~ x) if n }}{% endmacro %}'
    '{{ f(30, "ab") }}',
  ],
)
def test_many_values_take_little_memory(source):
  check(source)


def check(source):
  """Renders a template, and compares the peak of the memory."""
  template = ChatTemplate(source)
  tracemalloc.start()
  try:
    template.render(ROW)
  except OverLimitError:
    pass
  except Exception as error:  # an error of Jinja or of Python is an end, too
    assert not isinstance(error, MemoryError)
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert peak < MOST, f'{peak:,} bytes'
