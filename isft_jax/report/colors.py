"""Colours by role, for pages and charts, in light and dark mode.

The hues are those of Okabe and Ito's palette, made darker or lighter if the
contrast of WCAG AA requires it (tests/report/test_colors.py computes every
pair). Colour is never the only sign: authors have a letter, lies a sign and a
word, arms a dash pattern. Each role is a CSS variable of pages. Charts are
drawn in the light colours.
"""

# Roles that charts draw with. Their light colours are all different. None is
# black, because matplotlib leaves black out of an SVG.
CHART_ROLES = (
  *('paper', 'ink', 'quiet', 'line', 'link'),
  *(f'arm-{i}' for i in range(9)),
)

LIGHT = {
  **{'paper': '#ffffff', 'card': '#f5f6f7', 'line': '#d5d9dd'},
  **{'ink': '#1b1e22', 'quiet': '#5b6168', 'link': '#0063a3'},
  **{'lie': '#b04500', 'truth': '#007052', 'shade': '#9da1a5'},
  **{'template': '#5c636a', 'template-tint': '#e4e7ea'},
  **{'context': '#a03a78', 'context-tint': '#f6d9e9'},
  **{'user': '#0063a3', 'user-tint': '#cde5f8'},
  **{'tool': '#007052', 'tool-tint': '#c4eedf'},
  **{'agent': '#b04500', 'agent-tint': '#ffd8bd'},
  **{'demonstration': '#806000', 'demonstration-tint': '#f8e8a8'},
  **{'harness': '#17718f', 'harness-tint': '#d0f2fb'},
  **{'arm-0': '#707070', 'arm-1': '#c25400', 'arm-2': '#0072b2'},
  **{'arm-3': '#a87400', 'arm-4': '#00805d', 'arm-5': '#b65a90'},
  **{'arm-6': '#2a86bd', 'arm-7': '#050505', 'arm-8': '#7d7400'},
}
DARK = {
  **{'paper': '#14171b', 'card': '#1d2126', 'line': '#3b4147'},
  **{'ink': '#eceff2', 'quiet': '#a5acb4', 'link': '#74baf0'},
  **{'lie': '#ff9d5c', 'truth': '#45c9a2', 'shade': '#6b7178'},
  **{'template': '#aab1b8', 'template-tint': '#3b4147'},
  **{'context': '#e79cc8', 'context-tint': '#5b2a49'},
  **{'user': '#74baf0', 'user-tint': '#123f65'},
  **{'tool': '#45c9a2', 'tool-tint': '#0c4b3a'},
  **{'agent': '#ff9d5c', 'agent-tint': '#6d300b'},
  **{'demonstration': '#e6bd45', 'demonstration-tint': '#54420a'},
  **{'harness': '#82d7f5', 'harness-tint': '#124a5e'},
  **{'arm-0': '#a0a0a0', 'arm-1': '#ff8438', 'arm-2': '#4aa8ea'},
  **{'arm-3': '#f0b429', 'arm-4': '#2cc295', 'arm-5': '#e08fc0'},
  **{'arm-6': '#8fd0f7', 'arm-7': '#ffffff', 'arm-8': '#f0e442'},
}
