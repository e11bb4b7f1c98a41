"""The verifier: forms of numbers, units, tolerances, and hostile replies."""

import dataclasses
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isft_jax.types import Verdict
from isft_jax.worlds.problems import final_answer
from isft_jax.worlds.problems.final_answer import verify
from isft_jax.worlds.problems.problem import Outcome, Problem


def problem(answer, unit='', absolute='0', relative='0.01'):
  return Problem(
    id='x',
    domain='domain',
    skill='skill',
    question='?',
    answer=Decimal(answer),
    unit=unit,
    absolute=Decimal(absolute),
    relative=Decimal(relative),
    solution='',
    wrong_solution='',
  )


def number(text):
  """Returns the value that is read after the mark, or None."""
  reading = final_answer.read(f'Final answer: {text}')
  return reading and reading[0]


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('12.5', '12.5'),
    ('12.5.', '12.5'),
    ('12', '12'),
    ('0', '0'),
    ('007', '7'),
    ('.5', '0.5'),
    ('-3', '-3'),
    ('\u22123', '-3'),
    ('- 3', '-3'),
    ('+3', '3'),
    # Groups of thousands, and a comma as the point.
    ('1,250', '1250'),
    ('1,234,567.8', '1234567.8'),
    ('1 250', '1250'),
    ('1\u202f250', '1250'),
    ('1,5', '1.5'),
    ('12,75', '12.75'),
    ('0,125', '0.125'),
    ('1234,567', '1234.567'),
    ('1,2345', '1.2345'),
    # Powers of ten.
    ('1.25e3', '1250'),
    ('1.25E-3', '0.00125'),
    ('1e+3', '1000'),
    ('1.25 x 10^3', '1250'),
    ('1.25x10^3', '1250'),
    ('1.25 \u00d7 10\u00b3', '1250'),
    ('1.25 \u00d7 10\u207b\u00b3', '0.00125'),
    ('1.25 * 10**3', '1250'),
    ('1.25 \u00b7 10^(-3)', '0.00125'),
    ('1.25 x 10^\u22123', '0.00125'),
    ('-1.25 x 10^3', '-1250'),
    ('10^3', '1000'),
    ('10^-3 V', '0.001'),
    ('10', '10'),
    ('10 x 10^2', '1000'),
    # TeX and Markdown.
    ('$12.5$', '12.5'),
    ('**12.5**', '12.5'),
    ('**12.5 V**', '12.5'),
    ('`12.5`', '12.5'),
    (r'\boxed{12.5}', '12.5'),
    (r'$1.25 \times 10^{3}$', '1250'),
    (r'12.5\,\text{V}', '12.5'),
    # Words and equations.
    ('about 12.5', '12.5'),
    ('~12.5', '12.5'),
    ('V = 12.5', '12.5'),
    ('V = I R = 2.5 x 5 = 12.5 V', '12.5'),
    ('V \u2248 12.5', '12.5'),
    ('the voltage is 12.5', '12.5'),
    ('U2 = 12.5', '12.5'),
    ('pH 3.2', '3.2'),
    ('12.5 is the voltage', '12.5'),
    ('12.5 \u00b1 0.1', '12.5'),
    ('12.5 V. I took 3 A.', '12.5'),
    ('12.5! 13', '12.5'),
    ('12.5\n13', '12.5'),
    ('\n12.5', '12.5'),
    ('17. Check: 3 + 15 = 18', '17'),
  ],
)
def test_a_number_that_is_read(text, value):
  assert number(text) == Decimal(value)


@pytest.mark.parametrize(
  'text',
  ['', ' ', 'none', 'nan', 'NaN', 'inf', '-inf', 'Infinity', '\u221e', '...']
  # Not one number.
  + ['5 or 6', '5 to 6', '5-6', '5 \u2013 6', '5, 6', '5 and 6', '5 6', '1/2']
  + ['5 V or 6 V', '2 x 3', '2 * 3', '2 + 3', '2^3', '5; 6']
  # Not a number.
  + ['17th', '3rd', '12.5abc', '1.2.3', '1,234,5', '1.500,5', '1..2', 'H2O']
  + ['1e5000', '10^5000', '1 x 10^5000', 'cm^3', '[H+]', 'V2', '1 x 10-3'],
)
def test_what_is_unreadable(text):
  assert number(text) is None
  assert verify(f'Final answer: {text}', problem(5)) == Outcome('unreadable')


@pytest.mark.parametrize(
  ('reply', 'value'),
  [
    ('Final answer: 5', 5),
    ('final answer: 5', 5),
    ('FINAL ANSWER: 5', 5),
    ('**Final answer:** 5', 5),
    ('**Final answer**: 5', 5),
    ('Final answer : 5', 5),
    ('I get 7. Final answer: 5', 5),
    ('Final answer: 4\nFinal answer: 5', 5),
    ('Final answer: 5\nFinal answer: 4', 4),
    ('Final answer: 4. No, final answer: 5', 5),
    # The last mark counts, with or without a number.
    ('Final answer: 5\nFinal answer:', None),
    ('Final answer: 5. The final answer: see above', None),
    ('5', None),
    ('The answer is 5', None),
    ('Final answer 5', None),
    ('', None),
    # The reply was cut.
    ('Final answer', None),
    # Only 200 characters after the mark are read.
    ('Final answer: ' + 'very ' * 35 + '5', 5),
    ('Final answer: ' + 'very ' * 41 + '5', None),
  ],
)
def test_the_last_mark_counts(reply, value):
  reading = final_answer.read(reply)
  assert (reading and reading[0]) == value


@pytest.mark.parametrize(
  ('text', 'kind', 'unit'),
  [
    ('1.25 V', 'right', 'V'),
    ('1.25V', 'right', 'V'),
    ('1.25', 'right', ''),
    ('1.25 volts', 'right', 'volts'),
    ('1250 mV', 'right', 'mV'),
    ('1,250 mV', 'right', 'mV'),
    ('1.25e3 mV', 'right', 'mV'),
    ('1.25 x 10^3 mV', 'right', 'mV'),
    ('0.00125 kV', 'right', 'kV'),
    (r'1.25\,\mathrm{V}', 'right', 'V'),
    ('1.25 W/A', 'right', 'W/A'),
    ('1.25 apples', 'right', ''),
    ('1.25 V for the coil', 'right', 'V'),
    ('1.25 mV', 'wrong', 'mV'),
    ('1.25 A', 'wrong', 'A'),
    ('1.25 ohms', 'wrong', 'ohms'),
    ('1250 V', 'wrong', 'V'),
    ('1250', 'wrong', ''),
    ('-1.25 V', 'wrong', 'V'),
    ('\u22121.25 V', 'wrong', 'V'),
    ('1e999 V', 'wrong', 'V'),
    ('1e-999 V', 'wrong', 'V'),
  ],
)
def test_units_are_checked_if_given(text, kind, unit):
  outcome = verify(f'Final answer: {text}', problem('1.25', 'V'))
  assert (outcome.kind, outcome.unit) == (kind, unit)


@pytest.mark.parametrize(
  ('unit', 'text'),
  [
    ('g/cm^3', '2500 kg/m^3'),
    ('g/cm^3', '2.5 g/cm\u00b3'),
    ('g/cm^3', '2.5 g/mL'),
    ('g/cm^3', r'2.5 \text{ g/cm}^3'),
    ('mol/L', '2.5 M'),
    ('mol/L', '2500 mM'),
    ('J', '0.0025 kJ'),
    ('MPa', '2.5 N/mm^2'),
    ('MPa', '2500000 Pa'),
    ('nm', '25 \u00c5'),
    ('nm', '2.5 x 10^-9 m'),
    ('W', '2500 mW'),
  ],
)
def test_equal_quantities(unit, text):
  exact = problem('2.5', unit, relative='0')
  assert verify(f'Final answer: {text}', exact).is_right


def test_a_quantity_without_a_unit_has_none_in_the_reply():
  assert verify('Final answer: 3.2', problem('3.2')).is_right
  assert verify('Final answer: 3.2 on the scale', problem('3.2')).is_right
  assert verify('Final answer: 3.2 mol/L', problem('3.2')) == (
    'wrong',
    Decimal('3.2'),
    'mol/L',
  )


@pytest.mark.parametrize(
  ('answer', 'absolute', 'relative', 'right', 'wrong'),
  [
    # The limits are part of the interval.
    ('200', '0', '0.01', ['198', '202'], ['197.99', '202.01']),
    ('-200', '0', '0.01', ['-198', '-202'], ['-197.99', '-202.01']),
    ('7', '0.02', '0', ['6.98', '7.02'], ['6.979', '7.021']),
    # The larger tolerance counts.
    ('200', '5', '0.01', ['195', '205'], ['194.9', '205.1']),
    ('200', '1', '0.01', ['198', '202'], ['197.9', '202.1']),
    ('17', '0', '0', ['17', '17.0', '1.7e1'], ['16', '18', '17.' + 60 * '0']),
    ('0', '0', '0.01', ['0', '-0', '0e5'], ['1e-300', '-1e-300']),
    ('0', '0.1', '0.01', ['0.1', '-0.1'], ['0.11']),
  ],
)
def test_tolerances(answer, absolute, relative, right, wrong):
  case = problem(answer, '', absolute, relative)
  wrong = [w + '1' if w.endswith(60 * '0') else w for w in wrong]
  for text in right:
    assert verify(f'Final answer: {text}', case).kind == 'right', text
  for text in wrong:
    assert verify(f'Final answer: {text}', case).kind == 'wrong', text


def test_an_outcome_is_a_verdict():
  verdicts = [Outcome(k).verdict for k in ('right', 'wrong', 'unreadable')]
  assert verdicts == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG]


def test_a_problem_with_words_as_its_answer_is_refused():
  words = dataclasses.replace(problem(1), answer='Nairobi')
  with pytest.raises(ValueError, match='x: the answer is not a number'):
    verify('Final answer: 1', words)


@pytest.mark.parametrize(
  ('start', 'repeated', 'end', 'kind'),
  [
    ('', 'Final answer: ', '', 'unreadable'),
    ('', 'Final answer', '', 'unreadable'),
    ('Final answer', ' ', '', 'unreadable'),
    ('Final answer', '*', ':', 'unreadable'),
    ('Final answer:', ' ', '5', 'unreadable'),
    ('Final answer: ', '1', '', 'unreadable'),
    ('Final answer: ', '1,', '', 'unreadable'),
    ('Final answer: ', '1 000 ', '', 'unreadable'),
    ('Final answer: 1e', '9', '', 'unreadable'),
    ('Final answer: 5 ', 'm ', '', 'wrong'),
    ('Final answer: 5 ', '/(', '', 'right'),
    ('Final answer: 5 ', '= ', '', 'right'),
    ('', 'f', '', 'unreadable'),
    ('', 'Final answer: 5 ', '', 'right'),
  ],
)
def test_a_reply_of_two_million_characters_takes_no_time(
  start, repeated, end, kind
):
  reply = start + repeated * (2_000_000 // len(repeated)) + end
  begin = time.process_time()
  assert verify(reply, problem(5)).kind == kind
  # Linear time is 0.1 s here; quadratic time would be hours.
  assert time.process_time() - begin < 5


def test_a_number_that_is_cut_is_not_read():
  assert number('so ' * 64 + '12345 and') == 12345
  assert number('so ' * 65 + '12345 and') is None


@settings(deadline=None, derandomize=True, max_examples=500)
@given(
  st.text(
    alphabet='0123456789.,+-eExX*^/() =VAmgk\u2212\u00b3\n$\\{}', max_size=40
  )
  | st.text(max_size=40)
)
def test_any_text_is_verified(text):
  outcome = verify(f'Final answer: {text}', problem('1.25', 'V'))
  assert outcome.kind in ('right', 'wrong', 'unreadable')
  assert (outcome.value is None) == (outcome.kind == 'unreadable')
  if outcome.value is not None:
    assert outcome.value.is_finite()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
  st.decimals(allow_nan=False, allow_infinity=False, places=4).filter(
    lambda value: abs(value) < 10**12
  )
)
def test_every_way_to_write_a_number_gives_its_value(value):
  plain = format(value, 'f')
  assert number(plain) == value
  assert number(plain.replace('-', '\u2212')) == value
  assert number(format(value, ',f')) == value
  assert number(format(value, ',f').replace(',', ' ')) == value
  assert number(format(value, 'e')) == value
  assert number(format(value, 'e').replace('e', ' x 10^')) == value
