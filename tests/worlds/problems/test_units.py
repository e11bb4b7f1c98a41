"""Units: prefixes, names, quotients, powers, and words that are no units."""

from decimal import Decimal

import pytest

from isft_jax.worlds.problems import units

# In powers of kg, m, s, A, mol and K.
VOLT = (1, 2, -3, -1, 0, 0)
AMPERE = (0, 0, 0, 1, 0, 0)
WATT = (1, 2, -3, 0, 0, 0)
JOULE = (1, 2, -2, 0, 0, 0)
PASCAL = (1, -1, -2, 0, 0, 0)
METRE = (0, 1, 0, 0, 0, 0)
DENSITY = (1, -3, 0, 0, 0, 0)
MOLARITY = (0, -3, 0, 0, 1, 0)
HEAT = (0, 2, -2, 0, 0, -1)


@pytest.mark.parametrize(
  ('text', 'dimension', 'scale'),
  [
    ('V', VOLT, '1'),
    ('mV', VOLT, '1e-3'),
    ('kV', VOLT, '1e3'),
    ('KV', VOLT, '1e3'),
    ('MV', VOLT, '1e6'),
    ('volts', VOLT, '1'),
    ('Volt', VOLT, '1'),
    ('Millivolts', VOLT, '1e-3'),
    ('W/A', VOLT, '1'),
    ('A', AMPERE, '1'),
    ('mA', AMPERE, '1e-3'),
    ('\u00b5A', AMPERE, '1e-6'),  # micro sign
    ('\u03bcA', AMPERE, '1e-6'),  # Greek letter
    ('uA', AMPERE, '1e-6'),
    ('amps', AMPERE, '1'),
    ('amperes', AMPERE, '1'),
    ('W', WATT, '1'),
    ('kW', WATT, '1e3'),
    ('J/s', WATT, '1'),
    ('joules per second', WATT, '1'),
    ('V\u00b7A', WATT, '1'),
    ('V*A', WATT, '1'),
    ('J', JOULE, '1'),
    ('kJ', JOULE, '1e3'),
    ('N m', JOULE, '1'),
    ('kg m^2/s^2', JOULE, '1'),
    ('Pa', PASCAL, '1'),
    ('MPa', PASCAL, '1e6'),
    ('megapascals', PASCAL, '1e6'),
    ('N/mm^2', PASCAL, '1e6'),
    ('N/mm2', PASCAL, '1e6'),
    ('kN/m**2', PASCAL, '1e3'),
    ('newtons per square millimeter', PASCAL, '1e6'),
    ('nm', METRE, '1e-9'),
    ('nanometres', METRE, '1e-9'),
    ('pm', METRE, '1e-12'),
    ('\u00c5', METRE, '1e-10'),
    ('\u212b', METRE, '1e-10'),  # angstrom sign
    ('Angstroms', METRE, '1e-10'),
    ('g/cm^3', DENSITY, '1e3'),
    ('g/cm3', DENSITY, '1e3'),
    ('g/mL', DENSITY, '1e3'),
    ('g cm^-3', DENSITY, '1e3'),
    ('g cm^(\u22123)', DENSITY, '1e3'),
    ('kg/L', DENSITY, '1e3'),
    ('kg/m^3', DENSITY, '1'),
    ('grams per cubic centimeter', DENSITY, '1e3'),
    ('M', MOLARITY, '1e3'),
    ('mM', MOLARITY, '1'),
    ('mol/L', MOLARITY, '1e3'),
    ('mol/l', MOLARITY, '1e3'),
    ('mol/dm^3', MOLARITY, '1e3'),
    ('moles per liter', MOLARITY, '1e3'),
    ('molar', MOLARITY, '1e3'),
    ('J/(g K)', HEAT, '1e3'),
    ('J/(g \u00b0C)', HEAT, '1e3'),
    ('J/g/K', HEAT, '1e3'),
    ('kJ/(kg K)', HEAT, '1e3'),
    ('J/(g*K)', HEAT, '1e3'),
  ],
)
def test_a_unit(text, dimension, scale):
  assert units.parse(text) == units.Unit(text, dimension, Decimal(scale))


@pytest.mark.parametrize(
  ('text', 'unit'),
  [
    (' V and 3 A', 'V'),
    ('V.', 'V'),
    ('V (volts)', 'V'),
    (' volts is the voltage', 'volts'),
    (' J of heat', 'J'),
    (' g/cm^3, rounded', 'g/cm^3'),
  ],
)
def test_words_after_a_unit_are_left_out(text, unit):
  assert units.parse(text).text == unit


@pytest.mark.parametrize(
  'text',
  ['', ' ', '.', ' is it', ' apples', 'percent', ' a', '/s', '* V', '(V)']
  + ['\u00b2', '5', ' g per bottle', ' the', ' in total'],
)
def test_other_words_are_no_units(text):
  assert units.parse(text) is None


def test_at_most_six_factors_are_read():
  assert units.parse('m ' * 9).dimension == (0, 6, 0, 0, 0, 0)
