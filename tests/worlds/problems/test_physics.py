"""Physics: cases worked by hand, and all cases against formulas in float64."""

import math
import re
from collections import Counter
from decimal import Decimal

import pytest

from isft_jax.worlds.problems import physics
from isft_jax.worlds.problems.physics import PHYSICS

D = Decimal


def test_the_skills_and_the_number_of_cases():
  assert [(s.name, s.domain, s.unit, s.size) for s in PHYSICS.skills] == [
    ('ohm_voltage', 'electricity', 'V', 4752),
    ('ohm_current', 'electricity', 'A', 4752),
    ('electric_power', 'electricity', 'W', 1008),
    ('density', 'chemistry', 'g/cm^3', 19305),
    ('specific_heat', 'chemistry', 'J', 7200),
    ('molarity', 'chemistry', 'mol/L', 4410),
    ('ph', 'chemistry', '', 979),
    ('kinetic_energy', 'mechanics', 'J', 1520),
    ('engineering_stress', 'mechanics', 'MPa', 2301),
    ('bragg', 'mechanics', 'nm', 855),
  ]
  for s in PHYSICS.skills:
    expected = ('0.02', '0') if s.name == 'ph' else ('0', '0.01')
    assert (s.absolute, s.relative) == tuple(map(D, expected))


@pytest.mark.parametrize(
  ('worked', 'given', 'work', 'answer'),
  [
    # 2.5 A through 4 ohms need 10 V.
    (
      physics._ohm_voltage(D('2.5'), D(4)),
      {'current': '2.5 A', 'resistance': '4 ohms'},
      'V = I R = 2.5 x 4',
      '10',
    ),
    # 12 V drive 0.5 A through 24 ohms.
    (
      physics._ohm_current(D('0.5'), D(24)),
      {'voltage': '12 V', 'resistance': '24 ohms'},
      'I = V / R = 12 / 24',
      '0.5',
    ),
    # 230 V and 3 A are 690 W.
    (
      physics._electric_power(D(230), D(3)),
      {'voltage': '230 V', 'current': '3 A'},
      'P = V I = 230 x 3',
      '690',
    ),
    # 27 g of aluminum fill 10 cm^3.
    (
      physics._density(D('2.7'), D(10)),
      {'mass': '27 g', 'volume': '10 cm^3'},
      'density = mass / volume = 27 / 10',
      '2.7',
    ),
    # 100 g of water, 20 K: 100 x 4.18 x 20 J.
    (
      physics._specific_heat(('water', D('4.18')), D(100), D(20)),
      {
        'substance': 'water',
        'mass': '100 g',
        'heat': '4.18 J/(g K)',
        'rise': '20 K',
      },
      'Q = m c dT = 100 x 4.18 x 20',
      '8360',
    ),
    # 0.1 mol in a quarter of a litre.
    (
      physics._molarity(D('0.4'), D(250)),
      {'moles': '0.1 mol', 'volume': '250 mL'},
      'c = n / V = 0.1 / 0.25',
      '0.4',
    ),
    # 2 kg at 3 m/s: 2 x 9 / 2 J.
    (
      physics._kinetic_energy(D(2), D(3)),
      {'mass': '2 kg', 'speed': '3 m/s'},
      'E = m v^2 / 2 = 2 x 3^2 / 2',
      '9',
    ),
    # 10,000 N on 50 mm^2.
    (
      physics._engineering_stress(D(200), D(50)),
      {'force': '10 kN', 'area': '50 mm^2'},
      'stress = F / A = 10000 / 50',
      '200',
    ),
  ],
)
def test_an_exact_case_worked_by_hand(worked, given, work, answer):
  assert worked[:3] == (given, work, D(answer))


def test_cases_in_float64_worked_by_hand():
  # log10 2 = 0.30103.
  worked = physics._ph(D('2.0'), D(3))
  assert worked[:2] == (
    {'hydrogen': '2 x 10^-3 mol/L'},
    'pH = -log10(2 x 10^-3)',
  )
  assert float(worked.answer) == pytest.approx(2.69897, abs=1e-6)
  # sin 30 degrees is 1/2, so that the spacing is the wavelength.
  worked = physics._bragg(D('0.1542'), D(30))
  assert worked[:2] == (
    {'wavelength': '0.1542 nm', 'angle': '30 degrees'},
    'd = w / (2 sin a) = 0.1542 / (2 sin 30)',
  )
  assert float(worked.answer) == pytest.approx(0.1542, rel=1e-15)


def test_the_slips_of_a_case():
  assert physics._ohm_voltage(D('2.5'), D(4)).slips == (
    ('V = I / R = 2.5 / 4', D('0.625')),
    ('V = R / I = 4 / 2.5', D('1.6')),
  )
  assert physics._kinetic_energy(D(2), D(3)).slips == (
    ('E = m v^2 = 2 x 3^2', D(18)),
    ('E = m v / 2 = 2 x 3 / 2', D(3)),
  )


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    ('0', '0'),
    ('10', '10'),
    ('12.50', '12.5'),
    ('12.345', '12.34'),  # ties go to the even digit
    ('12.355', '12.36'),
    ('0.000123456', '0.0001235'),
    ('123456', '123500'),
    ('123450', '123400'),
    ('9999.9', '10000'),
    ('-11.2924', '-11.29'),
    ('1000', '1000'),
  ],
)
def test_four_significant_digits(value, text):
  assert physics.rounded(D(value)) == text


def test_ten_problems_of_one_seed():
  assert [(p.question, p.solution) for p in PHYSICS.make('train', 10, 0)] == [
    (
      'A heater has a resistance of 63 ohms and draws 3.8 A. Which voltage '
      'does it run on?',
      'V = I R = 3.8 x 63 = 239.4 V. Final answer: 239.4 V',
    ),
    (
      'A lamp with a resistance of 30 ohms runs on 63 V. How many amperes '
      'does it draw?',
      'I = V / R = 63 / 30 = 2.1 A. Final answer: 2.1 A',
    ),
    (
      'A device draws 2.3 A at 12 V. What is its power?',
      'P = V I = 12 x 2.3 = 27.6 W. Final answer: 27.6 W',
    ),
    (
      'A stone of 73 g displaces 10 cm^3 of water. How dense is it?',
      'density = mass / volume = 73 / 10 = 7.3 g/cm^3. Final answer: 7.3 '
      'g/cm^3',
    ),
    (
      'How much heat warms 40 g of silver by 15 K? Its specific heat is '
      '0.235 J/(g K).',
      'Q = m c dT = 40 x 0.235 x 15 = 141 J. Final answer: 141 J',
    ),
    (
      'What is the molarity of 330 mL of a solution that contains 1.617 '
      'mol of solute?',
      'c = n / V = 1.617 / 0.33 = 4.9 mol/L. Final answer: 4.9 mol/L',
    ),
    (
      'Convert a hydrogen ion concentration of 5.1 x 10^-12 mol/L to pH.',
      'pH = -log10(5.1 x 10^-12) = 11.29. Final answer: 11.29',
    ),
    (
      'A stone of 15.5 kg hits the ground at 33 m/s. Which kinetic energy '
      'does it bring?',
      'E = m v^2 / 2 = 15.5 x 33^2 / 2 = 8440 J. Final answer: 8440 J',
    ),
    (
      'Find the engineering stress of 25.2 kN on an initial area of 140 mm^2.',
      'stress = F / A = 25200 / 140 = 180 MPa. Final answer: 180 MPa',
    ),
    (
      'Find the lattice spacing for a first-order reflection of 0.0711 nm '
      'at a Bragg angle of 25 degrees.',
      'd = w / (2 sin a) = 0.0711 / (2 sin 25) = 0.08412 nm. Final answer: '
      '0.08412 nm',
    ),
  ]


# ------------------------------------------------------- questions, read again

# A quantity in a question, by its unit.
_QUANTITIES = {
  'A': r'([\d.]+) A\b',
  'V': r'([\d.]+) V\b',
  'ohm': r'([\d.]+) ohms',
  'g': r'([\d.]+) g\b',
  'cm3': r'([\d.]+) cm\^3',
  'heat': r'([\d.]+) J/\(g K\)',
  'K': r'([\d.]+) K\b',
  'mol': r'([\d.]+) mol\b(?!/)',
  'mL': r'([\d.]+) mL',
  'factor': r'([\d.]+) x 10\^-',
  'power': r'x 10\^-(\d+) mol/L',
  'kg': r'([\d.]+) kg',
  'm/s': r'([\d.]+) m/s',
  'kN': r'([\d.]+) kN',
  'mm2': r'([\d.]+) mm\^2',
  'nm': r'([\d.]+) nm',
  'deg': r'([\d.]+) degrees',
}
_FORMULAS = {
  'ohm_voltage': lambda q: q('A') * q('ohm'),
  'ohm_current': lambda q: q('V') / q('ohm'),
  'electric_power': lambda q: q('V') * q('A'),
  'density': lambda q: q('g') / q('cm3'),
  'specific_heat': lambda q: q('g') * q('heat') * q('K'),
  'molarity': lambda q: q('mol') / (q('mL') / 1000),
  'ph': lambda q: -math.log10(q('factor') * 10 ** -q('power')),
  'kinetic_energy': lambda q: 0.5 * q('kg') * q('m/s') ** 2,
  'engineering_stress': lambda q: q('kN') * 1e3 / (q('mm2') * 1e-6) / 1e6,
  'bragg': lambda q: q('nm') / (2 * math.sin(q('deg') * math.pi / 180)),
}


def test_answers_follow_from_the_numbers_in_the_questions():
  for skill in PHYSICS.skill_names:
    for problem in PHYSICS.make('train', 300, 1, [skill]):

      def quantity(unit, question=problem.question):
        (text,) = re.findall(_QUANTITIES[unit], question)
        return float(text)

      value = _FORMULAS[skill](quantity)
      # Only rounding of float64 differs.
      assert float(problem.answer) == pytest.approx(value, rel=1e-12), problem


def test_each_skill_has_six_phrases_and_every_phrase_is_used():
  for skill in PHYSICS.skill_names:
    problems = PHYSICS.make('test', 170, 0, [skill])
    names = '|'.join(name for name, _ in physics._SUBSTANCES)
    phrases = Counter(
      re.sub(rf'\d[\d.]*|{names}', '#', p.question) for p in problems
    )
    assert len(phrases) == 6, skill
    # 28 expected of 170, with a standard deviation of 4.9.
    assert min(phrases.values()) > 8, phrases


def test_no_slip_of_any_case_gives_the_right_answer():
  for index, skill in enumerate(PHYSICS.skills):
    for case in range(0, skill.size, 7):
      problem = PHYSICS._problem(index, case, 0)
      wrong = PHYSICS.verify(problem.wrong_solution, problem)
      assert wrong.kind == 'wrong', problem


def test_answers_are_in_a_sensible_range():
  ranges = {}
  for skill in PHYSICS.skill_names:
    answers = [p.answer for p in PHYSICS.make('train', 300, 0, [skill])]
    ranges[skill] = float(min(answers)), float(max(answers))
  limits = {
    'ohm_voltage': (0.4, 500),
    'ohm_current': (0.2, 5),
    'electric_power': (0.3, 1200),
    'density': (0.5, 20),
    'specific_heat': (6, 170_000),
    'molarity': (0.1, 5),
    'ph': (1, 12),
    'kinetic_energy': (2, 16_000),
    'engineering_stress': (20, 600),
    'bragg': (0.05, 0.7),
  }
  for skill, (low, high) in limits.items():
    assert low <= ranges[skill][0] < ranges[skill][1] <= high, skill
