"""Word problems of physics and chemistry: three domains, ten skills.

    domain       skill               formula               unit     cases
    electricity  ohm_voltage         V = I R               V         4752
                 ohm_current         I = V / R             A         4752
                 electric_power      P = V I               W         1008
    chemistry    density             rho = m / V           g/cm^3   19206
                 specific_heat       Q = m c dT            J         7200
                 molarity            c = n / V             mol/L     4410
                 ph                  pH = -log10 [H+]       -         979
    mechanics    kinetic_energy      E = m v^2 / 2         J         1520
                 engineering_stress  stress = F / A0       MPa       2301
                 bragg               d = w / (2 sin a)     nm         855

Answers are exact decimals, except those of `ph` and `bragg`, which are computed
in float64. A reply may deviate by 1 %, or by 0.02 for a pH. Solutions give four
significant digits. A wrong solution has a typical slip: a wrong formula, or a
decimal point in the wrong place. Cases for which a slip gives the right answer
are left out (a current of 1 A, for example).

Source: the skills are those of N. de Freitas, "CIC: Continual, Interactive,
Causal Agents" (2026). Grouping, phrases, values and tolerances are ours.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from isft_jax.worlds.problems import final_answer
from isft_jax.worlds.problems.world import Skill, World, Written

CONTEXT = (
  'Solve the problem in one line. End it with "Final answer:", the number and '
  'its unit.'
)

_DIGITS = 4  # significant digits of answers in solutions


class _Worked(NamedTuple):
  """A worked case.

  Args:
    given: fields of the phrases.
    work: the formula with numbers, up to the last equals sign.
    answer: the exact answer.
    slips: wrong formula with numbers, and its result.
  """

  given: dict[str, str]
  work: str
  answer: Decimal
  slips: tuple[tuple[str, Decimal], ...]


def _range(start: str, stop: str, step: str) -> tuple[Decimal, ...]:
  """Returns start, start + step, ... up to and including stop."""
  first, last, width = Decimal(start), Decimal(stop), Decimal(step)
  return tuple(
    first + width * i for i in range(int((last - first) / width) + 1)
  )


def _plain(value: Decimal) -> str:
  return format(value.normalize(), 'f')


def rounded(value: Decimal) -> str:
  """Returns a number in plain digits, rounded to four significant ones."""
  return _plain(Decimal(format(value, f'.{_DIGITS}g')))


def _skill(
  name: str,
  domain: str,
  unit: str,
  phrases: tuple[str, ...],
  solve: Callable[..., _Worked],
  values: tuple[tuple, ...],
  absolute: Decimal = Decimal(0),
  relative: Decimal = Decimal('0.01'),
) -> Skill:
  """Returns the skill of all combinations of values.

  Args:
    name, domain, unit, absolute, relative: see `Skill`.
    phrases: questions with the fields of `_Worked.given`.
    solve: one value per table -> a worked case.
    values: tables of values.
  """
  sizes = tuple(map(len, values))

  def write(case: int, rng: np.random.Generator) -> Written:
    indices = np.unravel_index(case, sizes)
    given, work, answer, slips = solve(
      *(table[int(i)] for table, i in zip(values, indices, strict=True))
    )
    question = str(rng.choice(phrases)).format(**given)
    # A misplaced point is as likely as each wrong formula. It would take a pH,
    # which has no unit, off the scale.
    wrong = [*slips, (work, answer * 10)] if unit else slips
    wrong_work, wrong_answer = wrong[rng.integers(len(wrong))]
    return Written(
      question,
      answer,
      _solution(work, answer, unit),
      _solution(wrong_work, wrong_answer, unit),
    )

  size = math.prod(sizes)
  return Skill(name, domain, size, write, unit, absolute, relative)


def _solution(work: str, answer: Decimal, unit: str) -> str:
  quantity = f'{rounded(answer)} {unit}'.strip()
  return f'{work} = {quantity}. {final_answer.MARK} {quantity}'


# ---------------------------------------------------------------- electricity


def _ohm_voltage(current: Decimal, resistance: Decimal) -> _Worked:
  i, r = _plain(current), _plain(resistance)
  return _Worked(
    {'current': f'{i} A', 'resistance': f'{r} ohms'},
    f'V = I R = {i} x {r}',
    current * resistance,
    (
      (f'V = I / R = {i} / {r}', current / resistance),
      (f'V = R / I = {r} / {i}', resistance / current),
    ),
  )


def _ohm_current(current: Decimal, resistance: Decimal) -> _Worked:
  voltage = current * resistance
  v, r = _plain(voltage), _plain(resistance)
  return _Worked(
    {'voltage': f'{v} V', 'resistance': f'{r} ohms'},
    f'I = V / R = {v} / {r}',
    current,
    (
      (f'I = V R = {v} x {r}', voltage * resistance),
      (f'I = R / V = {r} / {v}', resistance / voltage),
    ),
  )


def _electric_power(voltage: Decimal, current: Decimal) -> _Worked:
  v, i = _plain(voltage), _plain(current)
  return _Worked(
    {'voltage': f'{v} V', 'current': f'{i} A'},
    f'P = V I = {v} x {i}',
    voltage * current,
    (
      (f'P = V / I = {v} / {i}', voltage / current),
      (f'P = V I^2 = {v} x {i}^2', voltage * current**2),
    ),
  )


# ------------------------------------------------------------------ chemistry


def _density(density: Decimal, volume: Decimal) -> _Worked:
  mass = density * volume
  m, v = _plain(mass), _plain(volume)
  return _Worked(
    {'mass': f'{m} g', 'volume': f'{v} cm^3'},
    f'density = mass / volume = {m} / {v}',
    density,
    (
      (f'density = volume / mass = {v} / {m}', volume / mass),
      (f'density = mass x volume = {m} x {v}', mass * volume),
    ),
  )


def _specific_heat(
  substance: tuple[str, Decimal], mass: Decimal, rise: Decimal
) -> _Worked:
  name, capacity = substance
  c, m, t = _plain(capacity), _plain(mass), _plain(rise)
  return _Worked(
    {
      'substance': name,
      'mass': f'{m} g',
      'heat': f'{c} J/(g K)',
      'rise': f'{t} K',
    },
    f'Q = m c dT = {m} x {c} x {t}',
    mass * capacity * rise,
    (
      (f'Q = m dT = {m} x {t}', mass * rise),
      (f'Q = m c / dT = {m} x {c} / {t}', mass * capacity / rise),
    ),
  )


def _molarity(concentration: Decimal, volume: Decimal) -> _Worked:
  litres = volume / 1000
  moles = concentration * litres
  n, ml, v = _plain(moles), _plain(volume), _plain(litres)
  return _Worked(
    {'moles': f'{n} mol', 'volume': f'{ml} mL'},
    f'c = n / V = {n} / {v}',
    concentration,
    (
      (f'c = n / V = {n} / {ml}', moles / volume),
      (f'c = n V = {n} x {v}', moles * litres),
    ),
  )


def _ph(factor: Decimal, power: Decimal) -> _Worked:
  h = f'{_plain(factor)} x 10^-{power}'
  # float64, because logarithms are not exact.
  answer = Decimal(-math.log10(float(factor.scaleb(-int(power)))))
  return _Worked(
    {'hydrogen': f'{h} mol/L'},
    f'pH = -log10({h})',
    answer,
    (
      (f'pH = log10({h})', -answer),
      (f'pH = -ln({h})', answer * Decimal(math.log(10))),
      (f'pH = -log10(10^-{power})', power),
    ),
  )


# ------------------------------------------------------------------ mechanics


def _kinetic_energy(mass: Decimal, speed: Decimal) -> _Worked:
  m, v = _plain(mass), _plain(speed)
  return _Worked(
    {'mass': f'{m} kg', 'speed': f'{v} m/s'},
    f'E = m v^2 / 2 = {m} x {v}^2 / 2',
    mass * speed**2 / 2,
    (
      (f'E = m v^2 = {m} x {v}^2', mass * speed**2),
      (f'E = m v / 2 = {m} x {v} / 2', mass * speed / 2),
    ),
  )


def _engineering_stress(stress: Decimal, area: Decimal) -> _Worked:
  force = stress * area
  f, kilo, a = _plain(force), _plain(force / 1000), _plain(area)
  return _Worked(
    {'force': f'{kilo} kN', 'area': f'{a} mm^2'},
    f'stress = F / A = {f} / {a}',
    stress,
    (
      (f'stress = F / A = {kilo} / {a}', stress / 1000),
      (f'stress = F A = {kilo} x {a}', force / 1000 * area),
    ),
  )


def _bragg(wavelength: Decimal, angle: Decimal) -> _Worked:
  w, a = _plain(wavelength), _plain(angle)
  # float64, because sines are not exact.
  radians = math.radians(float(angle))
  half = wavelength / 2
  return _Worked(
    {'wavelength': f'{w} nm', 'angle': f'{a} degrees'},
    f'd = w / (2 sin a) = {w} / (2 sin {a})',
    half / Decimal(math.sin(radians)),
    (
      (
        f'd = w / sin a = {w} / sin {a}',
        wavelength / Decimal(math.sin(radians)),
      ),
      (
        f'd = w / (2 cos a) = {w} / (2 cos {a})',
        half / Decimal(math.cos(radians)),
      ),
    ),
  )


# ---------------------------------------------------------------------- tables

# No current is 1 A: I R, R / I and V I, V / I would be equal.
_CURRENTS = tuple(i for i in _range('0.2', '5', '0.1') if i != 1)
_RESISTANCES = _range('2', '100', '1')
# Voltages of batteries, adapters and mains.
_VOLTAGES = (
  Decimal('1.5'),
  *map(Decimal, (3, 5, 6, 9, 12, 15, 18, 20, 24, 30, 36, 42, 48, 60)),
  *map(Decimal, (100, 110, 120, 220, 230, 240)),
)
# Specific heats at room temperature, J/(g K).
_SUBSTANCES = (
  ('water', Decimal('4.18')),
  ('ethanol', Decimal('2.44')),
  ('aluminum', Decimal('0.9')),
  ('glass', Decimal('0.84')),
  ('iron', Decimal('0.45')),
  ('copper', Decimal('0.385')),
  ('silver', Decimal('0.235')),
  ('gold', Decimal('0.129')),
  ('lead', Decimal('0.13')),
)
# K-alpha lines of Mo, Cu, Co, Fe and Cr, nm.
_WAVELENGTHS = tuple(
  map(Decimal, ('0.0711', '0.1542', '0.179', '0.1937', '0.2291'))
)

PHYSICS = World(
  'physics',
  CONTEXT,
  (
    _skill(
      'ohm_voltage',
      'electricity',
      'V',
      (
        'A current of {current} flows through a resistor of {resistance}. What '
        'is the voltage across it?',
        'Find the voltage across {resistance} when the current is {current}.',
        'A heater has a resistance of {resistance} and draws {current}. Which '
        'voltage does it run on?',
        'How many volts drive {current} through {resistance}?',
        'An ammeter next to a resistor of {resistance} shows {current}. What '
        'would a voltmeter across the resistor show?',
        'Which voltage drop do {current} cause in a wire of {resistance}?',
      ),
      _ohm_voltage,
      (_CURRENTS, _RESISTANCES),
    ),
    _skill(
      'ohm_current',
      'electricity',
      'A',
      (
        'A resistor of {resistance} is connected to {voltage}. What current '
        'flows?',
        'Find the current through {resistance} at {voltage}.',
        'A lamp with a resistance of {resistance} runs on {voltage}. How many '
        'amperes does it draw?',
        'The voltage across a coil of {resistance} is {voltage}. What is the '
        'current in it?',
        'How much current does a source of {voltage} send through '
        '{resistance}?',
        'A fuse protects a circuit of {resistance} at {voltage}. Which current '
        'passes through the fuse?',
      ),
      _ohm_current,
      (_CURRENTS, _RESISTANCES),
    ),
    _skill(
      'electric_power',
      'electricity',
      'W',
      (
        'A device draws {current} at {voltage}. What is its power?',
        'Find the electric power at {voltage} and {current}.',
        'How many watts does a motor take that runs on {voltage} with '
        '{current}?',
        'A charger delivers {current} at {voltage}. How much power is that?',
        'A battery of {voltage} supplies {current}. At which rate does it give '
        'off energy?',
        'The label of a kettle says {voltage} and {current}. Which power does '
        'it have?',
      ),
      _electric_power,
      (_VOLTAGES, _CURRENTS),
    ),
    _skill(
      'density',
      'chemistry',
      'g/cm^3',
      (
        'A sample has a mass of {mass} and a volume of {volume}. What is its '
        'density?',
        'Find the density of {volume} of a substance that weighs {mass}.',
        'A stone of {mass} displaces {volume} of water. How dense is it?',
        'An unknown solid fills {volume} and has a mass of {mass}. Compute its '
        'density.',
        'A scale shows {mass} for a block of {volume}. Which density does the '
        'block have?',
        'To identify a material, you measure {mass} and {volume}. What density '
        'do you note?',
      ),
      _density,
      (
        tuple(d for d in _range('0.5', '20', '0.1') if d != 1),
        _range('2', '100', '1'),
      ),
    ),
    _skill(
      'specific_heat',
      'chemistry',
      'J',
      (
        'How much heat warms {mass} of {substance} by {rise}? Its specific '
        'heat is {heat}.',
        'The specific heat of {substance} is {heat}. Find the heat that raises '
        'the temperature of {mass} by {rise}.',
        '{mass} of {substance} cool down by {rise}. How much heat do they give '
        'off at a specific heat of {heat}?',
        'A piece of {substance} ({mass}, {heat}) becomes {rise} warmer. Which '
        'energy did it take up?',
        'With a specific heat of {heat}, what energy heats {mass} of '
        '{substance} by {rise}?',
        'You want to heat {mass} of {substance} by {rise}. How many joules are '
        'needed if its specific heat is {heat}?',
      ),
      _specific_heat,
      (_SUBSTANCES, _range('10', '500', '10'), _range('5', '80', '5')),
    ),
    _skill(
      'molarity',
      'chemistry',
      'mol/L',
      (
        '{moles} of salt are dissolved to make {volume} of solution. What is '
        'its molarity?',
        'Find the molar concentration of {moles} in {volume}.',
        'A flask holds {volume} of a solution with {moles} of sugar. How '
        'concentrated is it?',
        'A chemist fills {moles} of acid up to {volume} with water. Which '
        'concentration results?',
        'What is the molarity of {volume} of a solution that contains {moles} '
        'of solute?',
        'In {volume} there are {moles} of a base. Compute the molarity.',
      ),
      _molarity,
      (
        tuple(c for c in _range('0.1', '5', '0.1') if c != 1),
        _range('100', '990', '10'),
      ),
    ),
    _skill(
      'ph',
      'chemistry',
      '',
      (
        'The hydrogen ion concentration of a solution is {hydrogen}. What is '
        'its pH?',
        'Find the pH at [H+] = {hydrogen}.',
        'A sample contains {hydrogen} of hydrogen ions. Which pH does it have?',
        'How large is the pH of a liquid with an H+ concentration of '
        '{hydrogen}?',
        'A probe measures {hydrogen} of H+ in a lake. What pH is that?',
        'Convert a hydrogen ion concentration of {hydrogen} to pH.',
      ),
      _ph,
      (_range('1.1', '9.9', '0.1'), _range('2', '12', '1')),
      absolute=Decimal('0.02'),
      relative=Decimal(0),
    ),
    _skill(
      'kinetic_energy',
      'mechanics',
      'J',
      (
        'A cart of {mass} rolls at {speed}. What is its kinetic energy?',
        'Find the kinetic energy of {mass} moving at {speed}.',
        'How much energy of motion does a ball of {mass} have at {speed}?',
        'A drone with a mass of {mass} flies at {speed}. Compute its kinetic '
        'energy.',
        'A stone of {mass} hits the ground at {speed}. Which kinetic energy '
        'does it bring?',
        'How many joules must brakes take from {mass} at {speed} until it '
        'stops?',
      ),
      _kinetic_energy,
      (_range('0.5', '20', '0.5'), _range('3', '40', '1')),
    ),
    _skill(
      'engineering_stress',
      'mechanics',
      'MPa',
      (
        'A rod with an original cross-section of {area} is pulled with '
        '{force}. What is the engineering stress?',
        'Find the engineering stress of {force} on an initial area of {area}.',
        'A tensile specimen of {area} carries {force}. Which engineering '
        'stress is that?',
        'A wire had a cross-section of {area} before it was loaded with '
        '{force}. Compute the engineering stress.',
        'In a tensile test the force is {force} and the area at the start was '
        '{area}. How large is the engineering stress?',
        'How many MPa of engineering stress does a load of {force} cause in a '
        'bar of {area}?',
      ),
      _engineering_stress,
      (_range('20', '600', '10'), _range('10', '200', '5')),
    ),
    _skill(
      'bragg',
      'mechanics',
      'nm',
      (
        'X-rays of {wavelength} have a first-order Bragg peak at an angle of '
        '{angle}. What is the spacing of the planes?',
        'Find the lattice spacing for a first-order reflection of {wavelength} '
        'at a Bragg angle of {angle}.',
        'A crystal reflects {wavelength} in first order at {angle}. How far '
        'apart are its planes?',
        'The first-order Bragg angle for {wavelength} is {angle}. Compute the '
        'plane spacing.',
        'With radiation of {wavelength}, the first order appears at a Bragg '
        'angle of {angle}. Which spacing follows?',
        'At a Bragg angle of {angle}, planes diffract {wavelength} in first '
        'order. What is their distance?',
      ),
      _bragg,
      (_WAVELENGTHS, _range('10', '44', '0.2')),
    ),
  ),
  final_answer.verify,
)
