'use strict';
for (const viewer of document.querySelectorAll('.viewer')) {
  const tokens = [...viewer.querySelectorAll('.token')];
  const box = viewer.querySelector('.tokens');
  const detail = viewer.querySelector('.detail');
  const hint = detail.textContent;
  let focused = 0;

  function show(k) {
    for (const token of tokens) {
      const weight = token.dataset.weights.split(' ')[k];
      token.classList.toggle('scored', Number(weight) > 0);
      token.style.setProperty('--weight', weight);
      token.title = `${token.dataset.about}, weight ${weight}`;
    }
    const about = tokens.find((token) => token.classList.contains('chosen'));
    if (about) tell(about);
  }

  function tell(token) {
    viewer.querySelector('.chosen')?.classList.remove('chosen');
    token.classList.add('chosen');
    detail.textContent = token.title;
  }

  for (const input of viewer.querySelectorAll('.objectives input')) {
    input.addEventListener('change', () => show(Number(input.value)));
    // A browser may keep the choice over a reload.
    if (input.checked) show(Number(input.value));
  }

  box.addEventListener('pointerover', (event) => {
    const token = event.target.closest('.token');
    if (token) detail.textContent = token.title;
  });
  box.addEventListener('pointerleave', () => {
    detail.textContent = viewer.querySelector('.chosen')?.title ?? hint;
  });
  box.addEventListener('focusin', (event) => {
    const token = event.target.closest('.token');
    if (!token) return;
    focused = tokens.indexOf(token);
    tell(token);
  });
  box.addEventListener('keydown', (event) => {
    const inside = event.target !== box;
    const next = {
      ArrowRight: inside ? focused + 1 : focused,
      ArrowLeft: focused - 1,
      Home: 0,
      End: tokens.length - 1,
    }[event.key];
    if (next === undefined || !tokens[next]) return;
    event.preventDefault();
    tokens[next].focus();
  });
}
