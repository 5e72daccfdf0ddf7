"use strict";
(() => {
  const atFirst = 24; // cards; the rest wait for a click, so that the page stays easy to scroll
  const form = document.querySelector(".filters");
  const more = document.querySelector(".more");
  const cards = [...document.querySelectorAll(".card")];
  const selects = [...form.querySelectorAll("select")];
  const shown = form.querySelector("output");
  let all = false;
  const apply = () => {
    const matching = cards.filter((card) =>
      selects.every((select) => !select.value || card.dataset[select.name] === select.value));
    const visible = new Set(all ? matching : matching.slice(0, atFirst));
    for (const card of cards) card.hidden = !visible.has(card);
    more.hidden = visible.size === matching.length;
    more.textContent = `Show all ${matching.length}`;
    shown.value = `${visible.size} of ${matching.length} shown`;
  };
  const reveal = () => { all = true; apply(); };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", reveal);
  window.addEventListener("beforeprint", reveal);
  form.hidden = false;
  apply();
})();
