"""Pages of results that someone edited: refused, or shown as text."""

import base64
import collections
import copy
import hashlib
import html.parser
import json
import pathlib
import re

import pytest
from markupsafe import Markup
from matplotlib import figure

from isft_jax.report import document, plots, preparation, rebuild
from isft_jax.report.evidence import charts, margins
from isft_jax.report.lying_agent import charts as lying_charts
from isft_jax.report.theory import charts as theory_charts
from isft_jax.report.theory import page as theory_page

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
HOSTILE = ('<img src=x onerror=alert(1)>', '"><script>alert(1)</script>')


def read(name):
  return json.loads((GOLDEN / name).read_text())


def of_run(folder, results):
  path = folder / 'results.json'
  path.write_text(json.dumps(results))
  return rebuild.rebuild([str(path)])[0].read_text()


def of_seeds(folder, results):
  paths = []
  for seed in 0, 1:
    paths.append(folder / f'{seed}.json')
    # The hostile value is in both files: they must agree.
    other = {**results, 'seed': seed} if results.get('seed') == 0 else results
    paths[-1].write_text(json.dumps(other))
  return rebuild.rebuild([*map(str, paths)])[0].read_text()


def of_theory(folder, results):
  return theory_page.write(folder, results).read_text()


# Kind of page -> (its file, the function that writes the page).
PAGES = {
  'lying_agent': ('lying_agent_smollm2/seed-0.json', of_run),
  'seeds': ('lying_agent_tiny/seed-0.json', of_seeds),
  'evidence': ('evidence_tiny/results.json', of_run),
  'flywheel': ('flywheel_smollm2/results.json', of_run),
  'deployment': ('deployment_tiny/results.json', of_run),
  'theory': ('theory/theory.json', of_theory),
}


def leaves(value, path=()):
  """The paths of values: of a list the first item, of alike arms the first."""
  if isinstance(value, dict) and value:
    seen = set()
    for key, each in value.items():
      keys = (*each,) if isinstance(each, dict) else key
      if keys not in seen or not keys:
        yield from leaves(each, (*path, key))
      seen.add(keys)
  elif isinstance(value, list) and value:
    yield from leaves(value[0], (*path, 0))
  else:
    yield path


def replaced(results, path, value):
  """Returns results with another value; what is not on its path is shared."""
  results = place = copy.copy(results)
  for key in path[:-1]:
    place[key] = place = copy.copy(place[key])
  place[path[-1]] = value
  return results


class Elements(html.parser.HTMLParser):
  """Counts elements and attributes as a browser sees them."""

  def __init__(self, page):
    super().__init__()
    self.tags = collections.Counter()
    self.attributes = set()
    self.feed(page)
    self.close()

  def handle_starttag(self, tag, attributes):
    self.tags[tag] += 1
    self.attributes |= {name for name, _ in attributes}


def check(page):
  """No element, attribute or script that is not ours."""
  elements = Elements(page)
  assert not elements.tags.keys() & {'img', 'iframe', 'object', 'embed', 'form'}
  assert elements.tags['script'] == 1
  assert elements.tags['style'] == 1
  assert not [name for name in elements.attributes if name.startswith('on')]
  assert not [value for value in HOSTILE if value in page]


@pytest.fixture
def undrawn(monkeypatch):
  """Charts without drawing, which takes seconds."""

  class Figure:
    pass

  def chart(name='margins', rows=(), label='', unit=''):
    return plots.Chart('x', str(label), Figure(), str(unit))

  monkeypatch.setattr(figure.Figure, 'draw_without_rendering', lambda _: None)
  monkeypatch.setattr(plots.Chart, 'svg', lambda self: Markup('<svg></svg>'))
  monkeypatch.setattr(plots.Chart, 'save_png', lambda self, folder: None)
  monkeypatch.setattr(lying_charts, 'margins', lambda arms: chart())
  monkeypatch.setattr(charts, 'flywheel', lambda wheel: chart())
  monkeypatch.setattr(charts, 'dots', chart)
  monkeypatch.setattr(margins, 'dots', chart)
  monkeypatch.setattr(theory_charts, 'draw', lambda _: chart())


@pytest.mark.parametrize('kind', PAGES)
def test_a_hostile_value_is_refused_or_shown_as_text(kind, undrawn, tmp_path):
  file, write = PAGES[kind]
  results = read(file)
  check(write(tmp_path, results))
  refused = shown = 0
  for number, path in enumerate(leaves(results)):
    value = HOSTILE[number % 2]
    was = results
    for key in path:
      was = was[key]
    try:
      page = write(tmp_path, replaced(results, path, value))
    except ValueError as error:
      refused += 1
      # One line that names the file.
      assert '\n' not in str(error) and '.json' in str(error), path
      continue
    shown += 1
    check(page)
    # Only texts and settings may be any text.
    assert isinstance(was, str) or path[0] in SETTINGS, path
  assert refused and shown


SETTINGS = ('config', 'environment', 'settings', 'unfinished')


@pytest.mark.parametrize(
  ('kind', 'path', 'value', 'line'),
  [
    (
      'lying_agent',
      ('arms', 'base', 'mean_margin'),
      '1',
      'arms.base.mean_margin is a text, expected a number or null',
    ),
    (
      'lying_agent',
      ('arms', 'base', 'facts', 0, 'topic'),
      7,
      'arms.base.facts[0].topic is an integer, expected a text',
    ),
    (
      'lying_agent',
      ('arms', 'base', 'truth_probe', 'lie'),
      True,
      'arms.base.truth_probe.lie is true or false, expected an integer',
    ),
    ('lying_agent', ('arms',), [1], 'arms is a list, expected an object'),
    ('lying_agent', ('seed',), 10**30, 'seed is too large an integer'),
    (
      'flywheel',
      ('flywheel', 'interventional', 'accuracy', 1, 'mean'),
      None,
      'flywheel.interventional.accuracy[1].mean is null, expected a number',
    ),
    (
      'flywheel',
      ('flywheel', 'interventional', 'accuracy'),
      [],
      'its values do not fit together',
    ),
    ('theory', ('beta',), 'x', 'beta is a text, expected an object'),
    (
      'deployment',
      ('arms', 'sft', 'first', 'wilson'),
      'x',
      'arms.sft.first.wilson is a text, expected an object or null',
    ),
  ],
)
def test_the_line_names_the_key(kind, path, value, line, undrawn, tmp_path):
  file, write = PAGES[kind]
  with pytest.raises(ValueError) as error:
    write(tmp_path, replaced(read(file), path, value))
  assert line in str(error.value)


def test_names_of_arms_are_text_in_charts_too(tmp_path):
  """The real charts: SVG by matplotlib, whose labels are data."""
  results = read('lying_agent_tiny/seed-0.json')
  arm = results['arms'].pop('agent_only')
  for name in HOSTILE:
    results['arms'][name] = copy.deepcopy(arm)
  for fact, name in zip(arm['facts'], HOSTILE, strict=False):
    for each in results['arms'].values():
      (same,) = [f for f in each['facts'] if f['topic'] == fact['topic']]
      same['topic'] = name
  page = of_run(tmp_path, results)
  check(page)
  assert page.count('&lt;img src=x onerror=alert(1)&gt;') > 5


def test_only_known_elements_and_links_are_in_a_chart():
  with plots.drawing(1) as figure:
    axes = figure.add_subplot()
    axes.text(0, 0, 'a', url='https://example.org/')
  with pytest.raises(KeyError, match='SVG element a'):
    plots.Chart('a', 'A link', figure).svg()


def test_a_page_names_its_own_script_and_style():
  page = document.page('viewer/page.html.j2', '<script>', viewer='<b>').decode()
  policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
  for element in 'script', 'style':
    (content,) = re.findall(rf'<{element}>(.*?)</{element}>', page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest())
    assert f"{element}-src 'sha256-{digest.decode()}'" in policy
  assert policy.startswith("default-src 'none'; img-src data:; ")
  assert 'unsafe-inline' not in policy.replace("style-src-attr 'unsafe", '')
  # Nothing that the policy must govern is before it.
  assert page.index('Security-Policy') < page.index('<style>')


REPORT = {
  'rows': {'read': 3, 'written': 2, 'rejected': 1},
  'rejected': {'malformed': 1},
  'splits': {'train': {'rows': 2, 'records': 2}},
  'tokens': 10,
  'tokens_by_author': {'USER': 10},
  'straddling_tokens': 0,
  'lost': {'thinking_characters': 0},
  'scored_share': {'interventional': 0.5},
  'length_quantiles': {'0.5': 5},
  'seconds': 1.5,
}


def test_an_edited_report_of_a_preparation_is_refused():
  preparation.table(REPORT)
  for path in leaves(REPORT):
    with pytest.raises(ValueError, match='the report of the data set: '):
      preparation.table(replaced(REPORT, path, HOSTILE[0]))
