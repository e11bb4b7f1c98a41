"""Text that knows where its characters come from: tables, then laws.

In the tables a digit below a character is its origin, `.` a literal's, and `?`
an unknown one.
"""

import inspect
import itertools
import json

import hypothesis
import jinja2
import pytest
from hypothesis import strategies as st

from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.jinja_env import Environment
from isft_jax.data.rendering.tracked_str import LITERAL, UNKNOWN, Tracked

often = hypothesis.settings(
  deadline=None, derandomize=True, max_examples=200, database=None
)
quickly = hypothesis.settings(often, max_examples=25)  # for each of 20 methods


def of(text, digits):
  """A text with an origin a character: its digit."""
  assert len(text) == len(digits)
  return Tracked(text, digits)


def shown(value):
  """(text, origins) of a result, or a list of them."""
  if isinstance(value, list | tuple):
    return [shown(item) for item in value]
  table = str.maketrans({LITERAL: '.', UNKNOWN: '?'})
  return str.__str__(value), tracked_str.origins(value).translate(table)


NO = ('', '')
# text, its origins, an operation, then what comes of it
OPERATIONS = [
  ('ab', '12', lambda s: s + 'c', ('abc', '12.')),
  ('ab', '12', lambda s: 'c' + s, ('cab', '.12')),
  ('ab', '12', lambda s: s + s, ('abab', '1212')),
  ('ab', '12', lambda s: s * 2, ('abab', '1212')),
  ('ab', '12', lambda s: 2 * s, ('abab', '1212')),
  ('ab', '12', lambda s: s * 0, NO),
  ('ab', '12', lambda s: s * -1, NO),
  ('abc', '123', lambda s: s[0], ('a', '1')),
  ('abc', '123', lambda s: s[-1], ('c', '3')),
  ('abc', '123', lambda s: s[1:], ('bc', '23')),
  ('abc', '123', lambda s: s[::-1], ('cba', '321')),
  ('abc', '123', lambda s: s[9:], NO),
  ('abc', '123', list, [('a', '1'), ('b', '2'), ('c', '3')]),
  (' ab ', '1234', lambda s: s.strip(), ('ab', '23')),
  (' ab ', '1234', lambda s: s.lstrip(), ('ab ', '234')),
  (' ab ', '1234', lambda s: s.rstrip(), (' ab', '123')),
  ('    ', '1234', lambda s: s.strip(), NO),
  ('xaxx', '1234', lambda s: s.strip('x'), ('a', '2')),
  ('xaxx', '1234', lambda s: s.lstrip('x'), ('axx', '234')),
  ('xaxx', '1234', lambda s: s.rstrip('x'), ('xa', '12')),
  ('aab', '123', lambda s: s.removeprefix('a'), ('ab', '23')),
  ('aab', '123', lambda s: s.removeprefix('b'), ('aab', '123')),
  ('aab', '123', lambda s: s.removeprefix(''), ('aab', '123')),
  ('abb', '123', lambda s: s.removesuffix('b'), ('ab', '12')),
  ('abb', '123', lambda s: s.removesuffix('a'), ('abb', '123')),
  ('abb', '123', lambda s: s.removesuffix(''), ('abb', '123')),
  ('a,a', '123', lambda s: s.split(','), [('a', '1'), ('a', '3')]),
  (',a,', '123', lambda s: s.split(','), [NO, ('a', '2'), NO]),
  ('a,,a', '1234', lambda s: s.split(',,'), [('a', '1'), ('a', '4')]),
  ('a,a,a', '12345', lambda s: s.split(',', 1), [('a', '1'), ('a,a', '345')]),
  ('a,a,a', '12345', lambda s: s.rsplit(',', 1), [('a,a', '123'), ('a', '5')]),
  (' a  a ', '123456', lambda s: s.split(), [('a', '2'), ('a', '5')]),
  (' a  a ', '123456', lambda s: s.split(None, 1), [('a', '2'), ('a ', '56')]),
  (' a  a ', '123456', lambda s: s.rsplit(None, 1), [(' a', '12'), ('a', '5')]),
  ('', '', lambda s: s.split(), []),
  ('', '', lambda s: s.split(','), [NO]),
  ('a\n\na', '1234', lambda s: s.splitlines(), [('a', '1'), NO, ('a', '4')]),
  ('a\r\nb', '1234', lambda s: s.splitlines(), [('a', '1'), ('b', '4')]),
  ('a\nb', '123', lambda s: s.splitlines(True), [('a\n', '12'), ('b', '3')]),
  (
    'aba',
    '123',
    lambda s: s.partition('b'),
    [('a', '1'), ('b', '2'), ('a', '3')],
  ),
  ('aba', '123', lambda s: s.partition('x'), [('aba', '123'), NO, NO]),
  ('aba', '123', lambda s: s.partition('a'), [NO, ('a', '1'), ('ba', '23')]),
  ('aba', '123', lambda s: s.rpartition('a'), [('ab', '12'), ('a', '3'), NO]),
  ('aba', '123', lambda s: s.rpartition('x'), [NO, NO, ('aba', '123')]),
  ('aba', '123', lambda s: s.replace('a', 'xy'), ('xybxy', '..2..')),
  ('aba', '123', lambda s: s.replace('a', 'x', 1), ('xba', '.23')),
  ('aba', '123', lambda s: s.replace('a', 'x', 0), ('aba', '123')),
  ('aba', '123', lambda s: s.replace('a', ''), ('b', '2')),
  ('aba', '123', lambda s: s.replace('b', s), ('aabaa', '11233')),
  ('aa', '12', lambda s: s.replace('', '-'), ('-a-a-', '?????')),
  (',', '1', lambda s: s.join(['a', of('b', '2')]), ('a,b', '.12')),
  ('aB', '12', lambda s: s.lower(), ('ab', '12')),
  ('aB', '12', lambda s: s.upper(), ('AB', '12')),
  ('aB', '12', lambda s: s.title(), ('Ab', '12')),
  ('aB', '12', lambda s: s.capitalize(), ('Ab', '12')),
  ('aß', '12', lambda s: s.upper(), ('ASS', '???')),
  ('İ', '1', lambda s: s.lower(), ('i̇', '??')),
  ('ﬁ', '1', lambda s: s.title(), ('Fi', '??')),
]


@pytest.mark.parametrize(('text', 'digits', 'operation', 'result'), OPERATIONS)
def test_what_each_operation_keeps(text, digits, operation, result):
  made = operation(of(text, digits))
  assert shown(made) == result
  assert made == operation(text)


# ------------------------------------------------- every operation, any string

# Some characters are special to an operation, some change length by case.
ALPHABET = 'aAbß Iİ,;"\\\'\n\r\t\x0b\x1c\x85\u2028\xa0<>é日😀\x00'
texts = st.text(ALPHABET, max_size=12)
seps = st.text(ALPHABET, min_size=1, max_size=2)
strips = st.none() | st.text(ALPHABET, max_size=3)
counts = st.integers(-1, 3)

METHODS = {
  '__add__': st.tuples(texts),
  '__radd__': None,  # of str there is none: see below
  '__mul__': st.tuples(st.integers(-1, 3)),
  '__rmul__': st.tuples(st.integers(-1, 3)),
  '__getitem__': st.tuples(st.slices(12)),
  'capitalize': st.just(()),
  'join': st.tuples(st.lists(texts, max_size=3)),
  'lower': st.just(()),
  'lstrip': st.tuples(strips),
  'partition': st.tuples(seps),
  'removeprefix': st.tuples(texts),
  'removesuffix': st.tuples(texts),
  'replace': st.tuples(texts, texts, counts),
  'rpartition': st.tuples(seps),
  'rsplit': st.tuples(st.none() | seps, counts),
  'rstrip': st.tuples(strips),
  'split': st.tuples(st.none() | seps, counts),
  'splitlines': st.tuples(st.booleans()),
  'strip': st.tuples(strips),
  'title': st.just(()),
  'upper': st.just(()),
}
OVERRIDDEN = sorted(METHODS.keys() - {'__radd__'})


def test_these_are_all_the_operations_that_keep_track():
  own = {n for n, f in vars(Tracked).items() if inspect.isfunction(f)}
  private = {'__new__', '__str__', '__iter__', '_slices', '_same_length'}
  assert own - private == METHODS.keys()


def flat(value):
  return [*value] if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize('method', OVERRIDDEN)
@quickly
@hypothesis.given(data=st.data())
def test_the_text_is_that_of_str_and_each_character_has_an_origin(method, data):
  text = data.draw(texts)
  codes = data.draw(st.text('1234', min_size=len(text), max_size=len(text)))
  arguments = data.draw(METHODS[method])
  made = getattr(of(text, codes), method)(*arguments)
  plain = getattr(text, method)(*arguments)
  assert made == plain
  assert type(made) is (Tracked if isinstance(plain, str) else type(plain))
  for part in flat(made):
    assert type(part) is Tracked
    assert len(part.origins) == len(part)


@pytest.mark.parametrize('method', OVERRIDDEN)
@quickly
@hypothesis.given(data=st.data())
def test_where_all_characters_differ_each_keeps_its_own_origin(method, data):
  """Its origin can then be looked up; what is given is a literal, and is in
  capital letters, which are none of the text's."""
  letters = data.draw(
    st.lists(st.sampled_from('abcdefg ,;"\\\n\r\t\x0b\x85\u2028'), unique=True)
  )
  text = ''.join(letters)
  code_of = {c: chr(0x100 + i) for i, c in enumerate(text)}
  arguments = data.draw(METHODS[method])
  if method in ('replace', 'join', '__add__'):  # these insert what they get
    inserted = data.draw(st.text('XYZ', max_size=2))
    arguments = {
      'replace': (data.draw(seps), inserted, *arguments[2:]),
      'join': ([inserted] * 3,),
      '__add__': (inserted,),
    }[method]
  made = getattr(of(text, ''.join(code_of.values())), method)(*arguments)
  cased = method in ('lower', 'upper', 'title', 'capitalize')
  for part in flat(made):
    for character, code in zip(str.__str__(part), part.origins, strict=True):
      if cased:
        character = character.lower()
      assert code == code_of.get(character, LITERAL)


@often
@hypothesis.given(
  st.text('ab', max_size=8),
  st.text('ab', min_size=1, max_size=2),
  counts,
  st.booleans(),
)
def test_of_equal_parts_each_is_found_at_its_own_place(text, sep, count, right):
  """Where characters repeat, the place is the origin; this finds it anew."""
  places = ''.join(chr(0x100 + i) for i in range(len(text)))
  split = str.rsplit if right else str.split
  made = (Tracked.rsplit if right else Tracked.split)(
    of(text, places), sep, count
  )
  start = 0
  for part, plain in zip(made, split(text, sep, count), strict=True):
    assert part.origins == places[start : start + len(plain)]
    start += len(plain) + len(sep)


@often
@hypothesis.given(st.text('ab \n\xa0', max_size=12), st.booleans())
def test_of_equal_words_each_is_found_at_its_own_place(text, right):
  places = ''.join(chr(0x100 + i) for i in range(len(text)))
  words = [
    ''.join(code for _, code in group)
    for is_space, group in itertools.groupby(
      zip(text, places, strict=True), lambda pair: pair[0].isspace()
    )
    if not is_space
  ]
  made = of(text, places).rsplit() if right else of(text, places).split()
  assert [word.origins for word in made] == words


@often
@hypothesis.given(st.lists(st.tuples(texts, st.booleans()), max_size=5), texts)
def test_join_is_str_join_over_texts_and_over_origins(items, separator):
  made = tracked_str.join(
    separator, [of(t, '1' * len(t)) if mine else t for t, mine in items]
  )
  assert made == separator.join(t for t, _ in items)
  assert made.origins == (LITERAL * len(separator)).join(
    ('1' if mine else LITERAL) * len(t) for t, mine in items
  )


# ------------------------------------------------------- what is not overridden

# Arguments with which each other method of str returns a str. None: it does
# not return one, or takes the text apart into numbers.
OTHERS = {
  'casefold': '()',
  'center': '(9)',
  'expandtabs': '(4)',
  'format_map': '({})',
  'ljust': '(9)',
  'rjust': '(9)',
  'swapcase': '()',
  'translate': '({97: "x"})',
  'zfill': '(9)',
  **dict.fromkeys(n for n in dir(str) if n[:2] in ('is', 'ma')),
  **dict.fromkeys(('count', 'encode', 'endswith', 'find', 'index')),
  **dict.fromkeys(('rfind', 'rindex', 'startswith')),
}


def rendered(template, **values):
  environment = Environment()
  made, _ = environment.render(
    environment.from_string(template), values, [LITERAL], [LITERAL]
  )
  return shown(made)


def test_no_method_of_str_is_forgotten():
  public = {name for name in dir(str) if not name.startswith('_')}
  assert public == (
    {n for n in METHODS if n[0] != '_'} | OTHERS.keys() | {'format'}
  )


@pytest.mark.parametrize('method', [n for n, a in OTHERS.items() if a])
def test_what_any_other_method_makes_is_unknown(method):
  expression = f'text.{method}{OTHERS[method]}'
  text, origins = rendered('{{ ' + expression + ' }}', text=of('ab', '12'))
  assert text == eval(expression, {'text': 'ab'})
  assert origins == '?' * len(text)


@pytest.mark.parametrize(
  ('expression', 'origins'),
  [
    ('"%s-" % text', '12.'),
    ('"%s%s" % (text, text)', '1212'),
    ('"%d%%%s" % (7, text)', '..12'),
    ('"%(x)s-" % {"x": text}', '12.'),
    ('"%s-" | format(text)', '12.'),
    ('"%(x)s-" | format(x=text)', '12.'),
    ('text + "%s" | format("c")', '12.'),
    ('"{}-".format(text)', '12.'),
    ('"{1}{0}{{}}".format("c", text)', '12...'),
    ('"{x}-".format(x=text)', '12.'),
    # Markup escapes what is added to it.
    ('("<" | safe) + text + ">"', '.12....'),
    ('text + ("<" | safe)', '12.'),
    ('(text | safe) + "x" + (text | safe)', '12.12'),
    # Anything else is unknown.
    ('"%3s" % text', '???'),
    ('"%r" % text', '????'),
    ('"{:>3}".format(text)', '???'),
    ('"{0[0]}".format([text])', '??'),
    ('"{x}".format_map({"x": text})', '??'),
    ('"{}".format({"k": text})', '?' * 11),
  ],
)
def test_formatting_keeps_origins_or_is_unknown(expression, origins):
  text, actual = rendered('{{ ' + expression + ' }}', text=of('ab', '12'))
  plain = jinja2.Environment().from_string('{{ ' + expression + ' }}')
  assert text == plain.render(text='ab')
  assert actual == origins


@pytest.mark.parametrize(
  ('expression', 'origins'),
  [
    ('"-".join([text, "c"])', '12..'),
    ('"-".join(["c", text])', '..12'),
    ('"x-x".replace("-", text)', '.12.'),
    ('"a-a".replace("a", "b")', '...'),
    ('"%s" % "a"', '.'),
    ('"{}".format(7)', '.'),
    ('"abc".center(5)', '.....'),
    ('("x" ~ text ~ 1)', '.12.'),
    ('("<" + text + ">")[1:]', '12.'),
    ('(text ~ "c").upper()', '12.'),
  ],
)
def test_literals_stay_literals_and_keep_what_they_are_joined_to(
  expression, origins
):
  template = '{{ ' + expression + ' }}'
  plain = jinja2.Environment().from_string(template).render(text='ab')
  assert rendered(template, text=of('ab', '12')) == (plain, origins)


# ---------------------------------------------------------- Jinja's own filters

GREEK = 'αβγ\nδεζ ηθ'  # no filter writes Greek of its own
FILTERS = {
  'abs': None,
  'attr': '("upper")()',
  'batch': '(2) | list | string',
  'capitalize': '',
  'center': '(30)',
  'count': None,
  'd': '("x")',
  'default': '("x")',
  'dictsort': None,
  'e': '',
  'escape': '',
  'filesizeformat': None,
  'first': '',
  'float': None,
  'forceescape': '',
  'format': '()',
  'groupby': None,
  'indent': '',
  'int': None,
  'items': None,
  'join': '("-")',
  'last': '',
  'length': None,
  'list': ' | string',
  'lower': '',
  'map': '("upper") | join',
  'max': '',
  'min': '',
  'pprint': '',
  'random': '',
  'reject': '("equalto", "x") | join',
  'rejectattr': '("nothing") | join',
  'replace': '("β", "-")',
  'reverse': '',
  'round': None,
  'safe': '',
  'select': ' | join',
  'selectattr': '("upper") | join',
  'slice': '(2) | list | string',
  'sort': ' | join',
  'string': '',
  'striptags': '',
  'sum': None,
  'title': '',
  'tojson': '',
  'trim': '',
  'truncate': '(6, true, "…", 0)',
  'unique': ' | join',
  'upper': '',
  'urlencode': '',
  'urlize': '',
  'wordcount': None,
  'wordwrap': '(4)',
  'xmlattr': None,
}
MORE = {
  'indent, the first line too': 'indent(2, true)',
  'indent, with a text of one line': 'replace("\\n", "") | indent(2)',
  'list of lists': 'batch(3) | map("join") | join("/")',
  'join of a generator': 'map("trim") | map("string") | join',
}


def test_no_filter_of_jinja_is_forgotten():
  assert Environment().filters.keys() == FILTERS.keys()


PIPES = {n: n + more for n, more in FILTERS.items() if more is not None}


@pytest.mark.parametrize('name', [*PIPES, *MORE])
def test_no_filter_passes_a_value_off_as_a_literal(name):
  pipe = {**PIPES, **MORE}[name]
  template = '{{ text | ' + pipe + ' }}'
  code_of = {c: chr(0x100 + i) for i, c in enumerate(GREEK)}
  value = Tracked(GREEK, ''.join(code_of.values()))
  text, origins = rendered(template, text=value)
  if 'random' not in pipe and 'tojson' not in pipe:
    plain = jinja2.Environment().from_string(template).render(text=GREEK)
    assert text == plain
  assert text
  for character, origin in zip(text, origins, strict=True):
    own = code_of.get(character, code_of.get(character.lower()))
    if character.isalpha() and own:
      assert origin in (own, '?')


# What a template may do to a value behind the back of all of the above.
DETOURS = {
  'a generator, joined by str': '{{ "-".join([text] | map("trim")) }}',
  'escaped by its neighbour': '{{ ("<" | e) + text }}',
  'escaped by a block': '{% autoescape true %}{{ text }}{% endautoescape %}',
}


@pytest.mark.parametrize('how', DETOURS)
def test_no_detour_passes_a_value_off_as_a_literal(how):
  text, origins = rendered(DETOURS[how], text=of('ab', '12'))
  assert [origins[text.index(c)] for c in 'ab'] in (['1', '2'], ['?', '?'])


@pytest.mark.parametrize('more', ['', '.decode()'])
def test_bytes_are_refused(more):
  with pytest.raises(jinja2.TemplateError, match='bytes have no tracked'):
    rendered('{{ text.encode()' + more + ' }}', text=of('ab', '12'))


# ------------------------------------------------------------------------- JSON


def test_quotes_and_escapes_belong_to_the_character_beside_or_behind_them():
  value = of('a"b\n日😀\x01\\', '12345678')
  assert shown(tracked_str.to_json(value)) == (
    '"a\\"b\\n日😀\\u0001\\\\"',
    '112234456777777888',
  )


def test_escaped_to_ascii_each_escape_belongs_to_its_character():
  value = of('aé😀', '123')
  assert shown(tracked_str.to_json(value, ensure_ascii=True)) == (
    '"a\\u00e9\\ud83d\\ude00"',
    '11' + '2' * 6 + '3' * 12 + '3',
  )


def test_an_empty_text_is_two_literal_quotes():
  assert shown(tracked_str.to_json(of('', ''))) == ('""', '..')


def test_a_value_of_one_origin_owns_its_whole_json():
  value = tracked_str.track({'k': [1, 2.5, True, None, 'é']}, '7')
  text = '{"k": [1, 2.5, true, null, "é"]}'
  assert shown(tracked_str.to_json(value)) == (text, '7' * len(text))
  indented = json.dumps(value, indent=2)
  made = tracked_str.to_json(value, indent=2, ensure_ascii=True)
  assert shown(made) == (indented, '7' * len(indented))


def test_of_a_mixed_value_only_the_syntax_is_literal():
  value = {'name': 'f', 'arguments': tracked_str.track({'x': 1}, '7')}
  assert shown(tracked_str.to_json(value)) == (
    '{"name": "f", "arguments": {"x": 1}}',
    '...........................77777777.',
  )


@pytest.mark.parametrize(
  'arguments', ['', '(8)', '(2, true)', '(2, true, true)', '("> ", blank=true)']
)
@pytest.mark.parametrize('content', ['a', 'a\nb\n\nc', '\na\n', 'a\r\nb', ''])
def test_an_indent_keeps_origins_or_is_unknown(arguments, content):
  template = '{{ text | indent' + arguments + ' }}'
  text, origins = rendered(template, text=tracked_str.track(content, '7'))
  plain = jinja2.Environment().from_string(template).render(text=content)
  assert text == plain
  if '?' in origins:
    assert '\r' in content or 'true' in arguments
  else:
    assert [t for t, o in zip(text, origins, strict=True) if o == '7'] == [
      *content
    ]


@pytest.mark.parametrize('text', ['<b>', 'a & b', '"q" \'s\'', 'plain'])
def test_what_is_added_to_markup_is_escaped_with_its_origins(text):
  template = '{{ ("<" | safe) + text }}'
  shown_text, origins = rendered(template, text=tracked_str.track(text, '7'))
  plain = jinja2.Environment().from_string(template).render(text=text)
  assert shown_text == plain
  assert origins == '.' + '7' * (len(plain) - 1)


def test_a_mixed_value_keeps_its_origins_with_indents():
  call = {'name': 'f', 'arguments': tracked_str.track({'x': [1, {}]}, '7')}
  plain = {'name': 'f', 'arguments': {'x': [1, {}]}}
  text, origins = shown(tracked_str.to_json([call, []], indent=2))
  assert text == json.dumps([plain, []], indent=2)
  start = text.index('{\n      "x"')
  stop = text.index('    }\n  },') + len('    }')
  assert set(origins[start:stop]) == {'7'}
  assert set(origins[:start] + origins[stop:]) == {'.'}


scalars = (
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.floats(allow_nan=False)
  | st.text(ALPHABET, max_size=6)
)
keys = st.text(ALPHABET, max_size=4)
values = st.recursive(
  scalars,
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
  ),
  max_leaves=8,
)
options = st.fixed_dictionaries(
  {},
  optional={
    'ensure_ascii': st.booleans(),
    'indent': st.none() | st.integers(0, 3),
    'separators': st.none() | st.just((',', ':')) | st.just((' ,', ' : ')),
    'sort_keys': st.booleans(),
  },
)


def partly_tracked(value, choose):
  """The value, in which some sub-values have an origin."""
  if choose():
    return tracked_str.track(value, '5')
  if isinstance(value, dict):
    items = value.items()
    return {k: partly_tracked(v, choose) for k, v in items}
  if isinstance(value, list):
    return [partly_tracked(v, choose) for v in value]
  return value


def dumps(value, ensure_ascii=False, **options):
  return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@often
@hypothesis.given(values, options, st.randoms(use_true_random=False))
def test_json_of_any_value_is_that_of_json_dumps(value, options, random):
  mixed = partly_tracked(value, lambda: random.random() < 0.4)
  made = tracked_str.to_json(mixed, **options)
  assert made == dumps(value, **options)
  whole = tracked_str.to_json(tracked_str.track(value, '5'), **options)
  assert whole == dumps(value, **options)
  if value and type(value) is not bool:
    assert set(whole.origins) == {'5'}


@often
@hypothesis.given(st.text(ALPHABET, min_size=1, max_size=12), st.booleans())
def test_json_of_a_text_of_many_origins_decodes_back_to_each(text, ascii):
  """Decoded, the stretch of each origin is the character it came from."""
  places = ''.join(chr(0x100 + i) for i in range(len(text)))
  made = tracked_str.to_json(of(text, places), ensure_ascii=ascii)
  assert made == dumps(text, ensure_ascii=ascii)
  body = [*zip(str.__str__(made), made.origins, strict=True)][1:-1]
  assert (made.origins[0], made.origins[-1]) == (places[0], places[-1])
  for character, place in zip(text, places, strict=True):
    piece = ''.join(c for c, origin in body if origin == place)
    assert json.loads(f'"{piece}"') == character


# ------------------------------------------------------- values written as text


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (1, '1'),
    (-2.5, '-2.5'),
    (1e22, '1e+22'),
    ([1, 'a"'], "[1, 'a\"']"),
    ({'k': "it's"}, "{'k': \"it's\"}"),
    ('a', 'a'),
  ],
)
def test_a_value_of_one_origin_keeps_it_when_written_as_text(value, text):
  made = tracked_str.written(tracked_str.track(value, '3'))
  assert shown(made) == (text, '3' * len(text)) == (str(value), '3' * len(text))


@pytest.mark.parametrize('value', [True, False, None])
def test_what_cannot_be_marked_is_written_as_a_literal(value):
  made = tracked_str.written(tracked_str.track(value, '3'))
  assert shown(made) == (str(value), '.' * len(str(value)))


def test_a_list_of_several_origins_written_as_text_is_unknown():
  value = [of('a', '1'), of('b', '2')]
  assert shown(tracked_str.written(value)) == ("['a', 'b']", '?' * 10)
  assert shown(tracked_str.written(['a'])) == ("['a']", '.....')


@pytest.mark.parametrize('value', [1, 2.5, 'a', [1], {'k': 1}, (1, 2)])
def test_a_tracked_value_equals_the_value(value):
  made = tracked_str.track(value, '3')
  assert made == (list(value) if isinstance(value, tuple) else value)
  assert tracked_str.is_tracked(made)


def test_runs_are_the_stretches_of_one_origin():
  assert [*tracked_str.runs(of('abcd', '1121'))] == [
    ('1', 'ab'),
    ('2', 'c'),
    ('1', 'd'),
  ]
  assert [*tracked_str.runs(of('', ''))] == []
